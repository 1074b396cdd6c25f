"""Teach attention by the true correspondence of rendered clips (design section 4)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from training.teachers.attention_bins import CELLS, grid_cells
from training.teachers.base import TeacherTargets

SPREAD = 8.0
"""Standard deviation in px of the weight around the true place: half a patch."""

REACH = 16.0
"""Distance in px up to which places match: a patch's width."""

LEAST = 0.3
"""Weight of matches from which a query counts as seen before; as in `losses.correspondence`."""


class OracleTeacher:
    """Attends evenly to all patches of earlier frames that show the same place of the same layer; has no readout.

    Queries that show something new, or whose place is unknown (layer -1), are not `known`.
    """

    name = "oracle"
    readout_width = 0

    @torch.no_grad()
    def targets(self, clip: dict[str, Tensor]) -> TeacherTargets:
        """See `Teacher.targets`; the clip's `places` decide."""
        places = clip["places"]
        batch, frames, rows, columns, _ = places.shape
        places = places.flatten(2, 3).float()
        patches = rows * columns
        cells = F.one_hot(grid_cells(rows, columns, places.device), CELLS).float()
        attention = torch.zeros(batch, frames, patches, frames, CELLS, device=places.device)
        known = torch.zeros(batch, frames, patches, dtype=torch.bool, device=places.device)
        held = torch.zeros(batch, frames, frames, CELLS, dtype=torch.bool, device=places.device)
        seen = cells.sum(0) > 0
        for t in range(1, frames):
            weight = torch.stack([self._match(places[:, t], places[:, s]) for s in range(t)], dim=2)
            binned = weight @ cells
            mass = binned.flatten(2).sum(-1)
            known[:, t] = mass > LEAST
            share = binned / mass.clamp(min=LEAST).unsqueeze(-1).unsqueeze(-1)
            attention[:, t, :, :t] = share * known[:, t].unsqueeze(-1).unsqueeze(-1)
            held[:, t, :t] = seen
        return TeacherTargets(attention, held, known, torch.zeros_like(known, dtype=torch.float32))

    @staticmethod
    def _match(query: Tensor, source: Tensor) -> Tensor:
        """Weigh every source patch for every query, (N, P, P'). query, source: (N, P, 3) (layer, x, y)."""
        distance = torch.cdist(query[..., 1:], source[..., 1:])
        same = (query[..., :1] == source[..., 0].unsqueeze(1)) & (query[..., :1] >= 0)
        return torch.exp(-((distance / SPREAD) ** 2) / 2.0) * same * (distance < REACH)
