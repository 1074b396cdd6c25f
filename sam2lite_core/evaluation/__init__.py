"""Evaluate trackers on datasets and bags: follow, score, sum up."""
