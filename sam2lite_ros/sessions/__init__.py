"""Programs that start several nodes: demo, replay, soak."""
