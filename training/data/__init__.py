"""Sources of training clips by name, and the stream that mixes them."""
