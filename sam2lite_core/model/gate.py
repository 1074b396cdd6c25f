"""The gate: scores memory tokens by how much later frames will need them (paper section 3.3, equation 8)."""

import torch
from torch import Tensor, nn

from sam2lite_core.model.layers import Linear

SCORE_LIMIT = 10.0
"""|s| stays within it, so that fp16 engines and the anchors' bonus of 100 keep their order."""


class Gate(nn.Module):
    """MLP([k; v; a; m; u]) with hidden layers of 128 and 64 units (methodology section 2.2).

    With 256-wide keys and values its 515 inputs make 74 k parameters, not the paper's 50 k.
    """

    def __init__(self, key_width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Linear(2 * key_width + 3, 128),
            nn.ReLU(),
            Linear(128, 64),
            nn.ReLU(),
            Linear(64, 1),
        )

    def forward(self, key: Tensor, value: Tensor, age: Tensor, motion: Tensor, uncertainty: Tensor) -> Tensor:
        """Score tokens.

        Args:
            key: (N, S, 256) unit-length keys.
            value: (N, S, 256) values.
            age: (N, S) frames since creation.
            motion: (N, S) flow magnitude relative to the frame's median, patch widths per frame.
            uncertainty: (N, S) mask entropy, 0..1.

        Returns:
            (N, S) scores s in [-10, 10]; the keep probability is sigmoid(s).
        """
        # Ages are unbounded on a robot; a / (a + 16) keeps the paper's [0, 1] and resolves the first frames best.
        scalars = torch.stack([age / (age + 16.0), motion.clamp(0.0, 4.0), uncertainty], dim=-1)
        score = self.layers(torch.cat([key, value, scalars], dim=-1)).squeeze(-1)
        return score.clamp(-SCORE_LIMIT, SCORE_LIMIT)
