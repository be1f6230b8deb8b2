"""Video files: properties, decoded frames, encoders and containers. Requires the package av."""
