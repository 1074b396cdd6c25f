"""Pseudo-labels for films without masks."""
