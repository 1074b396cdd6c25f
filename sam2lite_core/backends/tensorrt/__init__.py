"""Backend that runs TensorRT engines, and builds them. Experimental: no hardware has run it."""
