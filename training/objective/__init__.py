"""Unroll clips through the student and compute the losses."""
