# SPDX-License-Identifier: Apache-2.0
"""How well embeddings find the pictures of the same individual: the ranks behind CMC, and average precision.

Source: zheng2015market, Section 4.2 (the protocol); ding2024patrol, Section V-A (cosine similarity).
Equations: none.
Departures: the protocol says nothing of ties. Here a wrong picture goes before a right one at the same distance, so that
embeddings that are all the same find nobody, in whatever order the gallery is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.errors import DataError

_CELLS = 1 << 23
"""Distances that are held at once."""


@dataclass(frozen=True)
class Embedded:
    """Embedded pictures of individuals.

    Attributes:
        embedding: (N, E), float.
        identity: who it is, (N,), int64, on the device of `embedding`.
        camera: which camera saw it, (N,), int64, on the device of `embedding`.
    """

    embedding: Tensor
    identity: Tensor
    camera: Tensor


@dataclass(frozen=True)
class Ranking:
    """What a gallery answers to queries: one number for each query that has a right answer, in their order.

    Attributes:
        first: place of the first right picture, from 1, (Q,), int64.
        precision: average precision, (Q,), float32, (0, 1].
        unmatched: how many queries have no right picture in the gallery and are left out.
    """

    first: Tensor
    precision: Tensor
    unmatched: int

    def within(self, rank: int) -> Tensor:
        """Return 1 for each query with a right picture among the first `rank`, else 0, (Q,), float32; its mean is CMC."""
        return (self.first <= rank).float()


def cosine_distance(query: Tensor, gallery: Tensor) -> Tensor:
    """Return 1 minus the cosine of the angle between every two embeddings; 1 where one of them is zero.

    Args:
        query: (Q, E), float.
        gallery: (G, E), float, on the same device.

    Returns:
        (Q, G), float32, [0, 2] up to rounding.

    Example:
        >>> cosine_distance(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [-3.0, 0.0]]))
        tensor([[0., 1., 2.]])
    """
    return 1 - F.normalize(query.float()) @ F.normalize(gallery.float()).T


def rank(query: Embedded, gallery: Embedded) -> Ranking:
    """Search a gallery for each query, by cosine distance.

    Gallery pictures of the same individual by the same camera are left out for a query: they are too easy to find.

    Args:
        query: what is asked about, at least one.
        gallery: what is searched, on the same device.

    Raises:
        DataError: no query has a right picture.

    Example:
        >>> who, camera = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> rank(Embedded(x[:1], who[:1], camera[:1]), Embedded(x, who, camera))
        Ranking(first=tensor([2]), precision=tensor([0.5000]), unmatched=0)
    """
    rows = max(1, _CELLS // len(gallery.identity))
    parts = zip(query.embedding.split(rows), query.identity.split(rows), query.camera.split(rows), strict=True)
    found = [_search(Embedded(*part), gallery) for part in parts]
    first, precision = (torch.cat(column) for column in zip(*found, strict=True))
    matched = first > 0
    if not bool(matched.any()):
        raise DataError(
            f"none of {len(first)} queries has a picture of the same individual by another camera in the gallery; "
            "check the identities and the cameras"
        )
    return Ranking(first[matched], precision[matched], int((~matched).sum()))


def _search(query: Embedded, gallery: Embedded) -> tuple[Tensor, Tensor]:
    """Return place of the first right picture, 0 where there is none, and average precision of each query, both (Q,)."""
    distance = cosine_distance(query.embedding, gallery.embedding)
    same = query.identity[:, None] == gallery.identity
    right = same & (query.camera[:, None] != gallery.camera)
    count = right.sum(1, keepdim=True)
    near = distance.masked_fill(~right, torch.inf).topk(max(1, int(count.max())), largest=False).values
    wrong = distance.masked_fill(same, torch.inf).sort(1).values
    ahead = torch.searchsorted(wrong, near, right=True)  # wrong pictures that are as near, or nearer
    number = torch.arange(1, near.shape[1] + 1, device=near.device)
    precision = (number / (number + ahead)).masked_fill(number > count, 0).sum(1) / count[:, 0].clamp_min(1)
    return (1 + ahead[:, 0]).masked_fill(count[:, 0] == 0, 0), precision
