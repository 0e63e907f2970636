# SPDX-License-Identifier: Apache-2.0
"""How useful a target is as deployed: how often it names the right class, or finds the pictures of the same individual."""

from __future__ import annotations

import torch

from sfumato.data.base import RETRIEVAL, Data, Pictures
from sfumato.metrics.interval import mean_interval
from sfumato.metrics.reid import Embedded, rank
from sfumato.metrics.utility import hits
from sfumato.models.embedding import captured, last_linear
from sfumato.seeds import generator
from sfumato.target import Target, released
from sfumato.types import Interval

_RANKS = (1, 5, 10)


def accuracy(target: Target, pictures: Pictures, seed: int) -> Interval:
    """Return the accuracy of a target as deployed, with its 95 % interval.

    Args:
        target: the target.
        pictures: what it is asked about.
        seed: of the defense's random numbers.
    """
    stream = generator(seed, "accuracy", device=target.device)
    logits = torch.cat([logits for _, logits in released(target, pictures.to(target.device), stream)])
    return mean_interval(hits(logits, pictures.labels.to(logits.device)), generator(seed, "bootstrap"))


def retrieval(target: Target, data: Data, seed: int) -> dict[str, Interval]:
    """Return how well the embeddings of a target as deployed find individuals, with 95 % intervals over queries.

    Args:
        target: the target; what its last linear layer is given is the embedding.
        data: the pictures; each of `query` is searched for in `gallery`.
        seed: of the defense's random numbers.

    Returns:
        "rank-1", "rank-5", "rank-10": the share of queries with a right picture among the first; "mAP": the mean of the queries'
        average precision. Queries without a right picture in the gallery do not count.

    Raises:
        UnknownNameError: the data set has no query or no gallery.
        DataError: no query has a right picture in the gallery.
        ModelError: the logits of the target come from something else than a linear layer.
    """
    query, gallery = (_embedded(target, data.part(name), name, seed) for name in RETRIEVAL)
    found = rank(query, gallery)
    shares = {f"rank-{number}": found.within(number) for number in _RANKS} | {"mAP": found.precision}
    return {name: mean_interval(values, generator(seed, "bootstrap", name)) for name, values in shares.items()}


def _embedded(target: Target, pictures: Pictures, part: str, seed: int) -> Embedded:
    """Embed the pictures of a part as the server does: of the features that the device sends."""
    stream = generator(seed, "retrieval", part, device=target.device)
    layer = last_linear(target.split, torch.zeros(1, *pictures.shape, device=target.device))
    with captured(layer) as given:
        embeddings = [given[0] for _ in released(target, pictures.to(target.device), stream)]
    identity, camera = (values.to(target.device) for values in (pictures.labels, pictures.tags["camera"]))
    return Embedded(torch.cat(embeddings), identity, camera)
