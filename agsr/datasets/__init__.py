"""Training images: where they lie, how they are read, and the LR images made of them."""
