"""The gate: scores memory tokens by how much later frames will need them (paper section 3.3, equation 8)."""

import torch
from torch import Tensor, nn

from sam2lite_core.model.layers import Linear

SCORE_LIMIT = 20.0
"""|s| stays within it, so that the anchors' bonus of 100 stays above every score and its noise. Odds of e^-20 are those
of a token that lost half of its odds with each doubling of its age for weeks."""

DOUBLINGS = 16.0
"""Doublings of the age, in frames, that make 1 of the gate's input: three quarters of an hour at 24 frames/s."""


class Gate(nn.Module):
    """MLP([k; v; a; m; u]) with hidden layers of 128 and 64 units (methodology section 2.2).

    With 256-wide keys and values its 515 inputs make 74 k parameters, not the paper's 50 k.
    """

    def __init__(self, key_width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Linear(2 * key_width + 3, 128), nn.ReLU(), Linear(128, 64), nn.ReLU(), Linear(64, 1)
        )

    def forward(self, key: Tensor, value: Tensor, age: Tensor, motion: Tensor, uncertainty: Tensor) -> Tensor:
        """Score tokens, (N, S) in [-20, 20]; the keep probability is sigmoid(s).

        Args:
            key, value: (N, S, 256); keys have unit length.
            age: (N, S) frames since creation.
            motion: (N, S) flow magnitude relative to the frame's median, patch widths per frame.
            uncertainty: (N, S) mask entropy, 0..1.
        """
        # Ages are unbounded on a robot, and a minute is told from five as a frame is from the fifth.
        doublings = torch.log2(1.0 + age) / DOUBLINGS
        scalars = torch.stack([doublings, motion.clamp(0.0, 4.0), uncertainty], dim=-1)
        score = self.layers(torch.cat([key, value, scalars], dim=-1)).squeeze(-1)
        return score.clamp(-SCORE_LIMIT, SCORE_LIMIT)
