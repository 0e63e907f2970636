# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from sfumato.data.loader import batches
from sfumato.data.tensors import from_tensors
from sfumato.errors import DataError

X = torch.randint(0, 256, (20, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(20) % 4


def test_split_is_stratified() -> None:
    data = from_tensors(X, Y)
    assert data.part("train").labels.bincount().tolist() == [4] * 4
    assert data.part("test").labels.bincount().tolist() == [1] * 4
    assert data.classes == ("0", "1", "2", "3")


def test_given_test_and_classes() -> None:
    data = from_tensors(X, Y, test=(X[:3], Y[:3]), classes=["a", "b", "c", "d"], name="mine")
    assert len(data.part("train")) == 20
    assert len(data.part("test")) == 3
    assert (data.name, data.classes) == ("mine", ("a", "b", "c", "d"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_float_round_trips(dtype: torch.dtype) -> None:
    pictures = from_tensors(X.to(dtype) / 255, Y, test=(X, Y)).part("train")
    assert torch.equal(pictures.read(torch.arange(20)), X)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X[0], Y, "four dimensions"),
        (X[:0], Y[:0], "none of them 0"),
        (X.float(), Y, "must lie in .0, 1."),
        (X.float() / 127.5 - 1, Y, "undo a normalization"),
        (torch.full((20, 1, 4, 4), float("nan")), Y, "must lie in"),
        (X.int(), Y, "must be uint8"),
        (X, Y.float(), "y must hold integers"),
        (torch.full((20, 3), float("inf")), Y, "must be finite, found 60 that are not"),
        (torch.ones(20, 3, dtype=torch.complex64), Y, "must be real"),
        (X, Y[:5], "one label for each of 20"),
        (X, Y - 1, "count from 0, got -1"),
    ],
)
def test_refusals(x: torch.Tensor, y: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_tensors(x, y)


def test_label_without_class() -> None:
    with pytest.raises(DataError, match="0 to 1, got 3"):
        from_tensors(X, Y, classes=["a", "b"])


def test_test_of_another_shape() -> None:
    with pytest.raises(DataError, match="shape of the training pictures"):
        from_tensors(X, Y, test=(X[:, :1], Y))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8, torch.int64])
def test_the_rows_of_a_table_reach_a_model_as_they_are(dtype: torch.dtype) -> None:
    rows = (torch.arange(60).view(20, 3) * 3).to(dtype)
    pictures = from_tensors(rows, Y, test=(rows, Y)).part("train")
    x, _ = next(iter(batches(pictures, size=20, device="cpu")))
    assert x.shape == (20, 3, 1, 1)
    assert torch.equal(x.flatten(1), rows.float())
    x.zero_()  # as a layer that works in place would
    assert torch.equal(next(iter(batches(pictures, size=20, device="cpu")))[0].flatten(1), rows.float())
