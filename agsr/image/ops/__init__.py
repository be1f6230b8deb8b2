"""Operations on pixels beside the network: alpha, padding, normal maps, resampling."""
