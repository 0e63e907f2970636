# SPDX-License-Identifier: Apache-2.0
"""What a tail answers, for people and programs: a label and its probability, or an embedding, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfumato.deploy.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class Way:
    """What an answer cost.

    Attributes:
        device_ms: milliseconds that the head took for one picture, the mean over its request.
        way_ms: milliseconds from the sending of the request to its answer, all tries and pauses included.
        bytes_sent: of the request's messages, all tries together, divided among its pictures.
        tries: how often the request was sent.
    """

    device_ms: float
    way_ms: float
    bytes_sent: float
    tries: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """What came back for one picture.

    Attributes:
        values: logits, (classes,), or an embedding, (features,), float32.
        label: of the largest logit: its name, or its number where the manifest has no names; None for an embedding.
        probability: of that label, the softmax of its logit; None for an embedding.
        way: what it cost.
    """

    values: NDArray[np.float32]
    label: str | None
    probability: float | None
    way: Way


def read_answers(values: NDArray[np.generic], manifest: Manifest, way: Way) -> list[Answer]:
    """Return the answers that a tensor holds.

    Args:
        values: (N, *shape), float32, finite, as the tail returned it.
        manifest: of the bundle.
        way: what each of them cost.
    """
    rows = values.reshape(len(values), -1).astype(np.float32)
    if manifest.task == "reidentification":
        return [Answer(values=row, label=None, probability=None, way=way) for row in rows]
    exact = rows.astype(np.float64)
    best = exact.argmax(1)
    shares = 1 / np.exp(exact - exact.max(1, keepdims=True)).sum(1)
    names = manifest.labels if len(manifest.labels) == rows.shape[1] else tuple(map(str, range(rows.shape[1])))
    return [
        Answer(values=row, label=names[at], probability=float(share), way=way)
        for row, at, share in zip(rows, best, shares, strict=True)
    ]
