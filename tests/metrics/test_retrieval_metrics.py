# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from sfumato.errors import DataError
from sfumato.metrics.reid import Embedded, cosine_distance, rank

# Of lengths that are powers of two, so that distances are exact and there are many ties.
DIRECTIONS = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-4.0, 0.0], [0.0, -0.5], [0.0, 0.0]])

pictures = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=12)


def embedded(rows: list[tuple[int, int, int]]) -> Embedded:
    place, identity, camera = (torch.tensor(column) for column in zip(*rows, strict=True))
    return Embedded(DIRECTIONS[place], identity, camera)


def random_embedded(count: int, seed: int) -> Embedded:
    stream = torch.Generator().manual_seed(seed)
    identity, camera = (torch.randint(high, (count,), generator=stream) for high in (5, 3))
    return Embedded(torch.randn(count, 6, generator=stream), identity, camera)


def slow_rank(query: Embedded, gallery: Embedded) -> list[tuple[int, float]]:
    """Place of the first right picture and average precision, query by query, picture by picture."""
    who, camera = gallery.identity.tolist(), gallery.camera.tolist()
    found = []
    for x, own, seen in zip(query.embedding.numpy(), query.identity.tolist(), query.camera.tolist(), strict=True):
        searched = []
        for y, identity, other in zip(gallery.embedding.numpy(), who, camera, strict=True):
            if identity == own and other == seen:
                continue
            lengths = np.sqrt((x**2).sum()) * np.sqrt((y**2).sum())
            searched.append((1 - ((x * y).sum() / lengths if lengths else 0), identity == own))
        hits, precisions = 0, []
        for place, (_, right) in enumerate(sorted(searched), start=1):  # False, a wrong picture, goes before True
            if right:
                hits += 1
                precisions.append((hits / place, place))
        if precisions:
            found.append((precisions[0][1], float(np.mean([precision for precision, _ in precisions]))))
    return found


@settings(max_examples=200, deadline=None)
@given(pictures, pictures)
def test_ranks_are_those_of_a_search_picture_by_picture_ties_included(
    asked: list[tuple[int, int, int]], searched: list[tuple[int, int, int]]
) -> None:
    query, gallery = embedded(asked), embedded(searched)
    expected = slow_rank(query, gallery)
    assume(expected)
    found = rank(query, gallery)
    assert found.first.tolist() == [first for first, _ in expected]
    assert found.precision.tolist() == pytest.approx([precision for _, precision in expected])
    assert found.unmatched == len(asked) - len(expected)


def test_average_precision_without_ties_is_that_of_scikit_learn() -> None:
    query, gallery = random_embedded(20, 0), random_embedded(60, 1)
    expected = []
    for distance, who, camera in zip(
        cosine_distance(query.embedding, gallery.embedding), query.identity, query.camera, strict=True
    ):
        kept = ~((gallery.identity == who) & (gallery.camera == camera))
        expected.append(average_precision_score((gallery.identity == who)[kept].numpy(), -distance[kept].numpy()))
    assert rank(query, gallery).precision.tolist() == pytest.approx(expected, abs=1e-6)


def test_a_gallery_that_does_not_fit_is_searched_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    query, gallery = random_embedded(20, 0), random_embedded(60, 1)
    whole = rank(query, gallery)
    monkeypatch.setattr("sfumato.metrics.reid._CELLS", 7 * 60)
    parts = rank(query, gallery)
    assert torch.equal(parts.first, whole.first)
    assert torch.allclose(parts.precision, whole.precision)


def test_embeddings_that_are_all_the_same_find_nobody() -> None:
    who, camera = torch.arange(40) % 4, torch.arange(40) % 3
    blind = Embedded(torch.zeros(40, 3), who, camera)
    found = rank(blind, blind)
    assert found.within(20).sum() == 0
    assert found.precision.mean() < 0.25


def test_the_share_of_queries_that_are_answered_within_a_rank() -> None:
    gallery = Embedded(DIRECTIONS[:3], torch.tensor([0, 1, 2]), torch.tensor([1, 1, 1]))
    query = Embedded(DIRECTIONS[[0, 0, 0]], torch.tensor([0, 1, 2]), torch.tensor([0, 0, 0]))
    found = rank(query, gallery)
    assert [found.within(k).tolist() for k in (1, 2, 3)] == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_a_gallery_without_any_right_picture_is_refused() -> None:
    seen = random_embedded(4, 0)
    with pytest.raises(DataError, match="none of 4 queries has a picture of the same individual by another camera"):
        rank(seen, Embedded(seen.embedding, seen.identity + 5, seen.camera))


def test_the_same_camera_of_the_same_individual_is_left_out() -> None:
    query = embedded([(0, 0, 0)])
    assert rank(query, embedded([(0, 0, 0), (1, 1, 0), (2, 0, 1)])).first.tolist() == [2]
    assert rank(query, embedded([(0, 0, 2), (1, 1, 0), (2, 0, 1)])).first.tolist() == [1]


def test_half_precision_embeddings_are_compared_in_single() -> None:
    x = torch.tensor([[300.0, 300.0]], dtype=torch.float16)  # whose squared length is beyond half precision
    assert cosine_distance(x, x).item() == pytest.approx(0, abs=1e-6)
