"""Render videos with ground truth to the pixel."""
