"""The parts of the deadline controllers; `sam2lite_core.controller` is where to find them."""
