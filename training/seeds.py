"""Derive one seed for each use from the seed of a run."""

import numpy as np


def seed_of(*key: int) -> int:
    """Derive a seed below 2**63 from several numbers."""
    # numpy takes (1,) and (1, 0) for the same entropy; the length at the end tells them apart.
    sequence = np.random.SeedSequence((*key, len(key)))
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
