"""Video files: their properties, decoded frames, encoders and containers. Requires the package av."""
