"""Lifecycle node that follows objects through a camera stream."""
