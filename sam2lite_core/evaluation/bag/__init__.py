"""Evaluate the node on a bag in real time, against the tracker offline."""
