"""Training data: images from tar files and folders, and the LR images made from them."""
