"""Followers behind `Tracker`, and its settings."""
