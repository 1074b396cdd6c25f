"""Clips drawn by code, with true masks."""
