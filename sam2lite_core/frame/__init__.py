"""Per-frame inputs and outputs of the graphs: resolution, prompts, motion, masks."""
