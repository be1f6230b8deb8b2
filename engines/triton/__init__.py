"""Networks of a Triton inference server: tiles are cut here and computed there."""
