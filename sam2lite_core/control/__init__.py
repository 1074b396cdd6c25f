"""The parts of the deadline controllers; `sam2lite_core.control.registry` is where to find them."""
