# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import nn

import quadrants
import sfumato as sf
from quadrants import CPU, SHAPE
from sfumato.data.resident import ResidentPictures
from sfumato.errors import DataError
from sfumato.factors import Reader, assemble_reader, factor_names, factors_of, prepare_reader, teach_reader


class Brightness(nn.Module):
    """Reads of a picture how bright it is, and twice that: an answer that is known."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor([1.0, 2.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((1, 2, 3))[:, None] * self.gain


def gray(*values: float, **tags: list[int]) -> ResidentPictures:
    x = torch.tensor(values, dtype=torch.float32)[:, None, None, None].expand(-1, *SHAPE)
    told = {f"factor-{name}": torch.tensor(one) for name, one in tags.items()}
    return ResidentPictures(x.contiguous(), torch.arange(len(values)), tags=told)


def test_factors_are_shares_by_name() -> None:
    pictures = gray(0, 1, skin=[0, 10_000], eyes=[2500, 5000])
    assert factor_names(pictures) == ("eyes", "skin")
    assert factors_of(pictures, ("skin", "eyes")).tolist() == [[0.0, 0.25], [1.0, 0.5]]
    assert factor_names(quadrants.people().part("test")) == ()


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"skin": [0]}, "expected the tag 'factor-eyes' of every picture, found factor-skin"),
        ({"eyes": [10_001], "skin": [0]}, "factors must be from 0 to 10000, found 0 to 10001"),
        ({"eyes": [-1], "skin": [0]}, "found -1 to 0; scale the tags"),
    ],
)
def test_factors_that_are_not_there_are_said(tags: dict[str, list[int]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        factors_of(gray(0, **tags), ("eyes", "skin"))


def test_what_is_read_is_within_the_range_and_its_error_the_mean_over_classes() -> None:
    reader = Reader(("a", "b"), Brightness())
    x = torch.tensor([0.25, 0.75])[:, None, None, None].expand(-1, *SHAPE)
    assert reader(x).tolist() == [[0.25, 0.5], [0.75, 1.0]]
    pictures = gray(0.25, 0.75, a=[2500, 5000], b=[5000, 7500])
    assert torch.equal(reader.read(pictures), reader(x))
    assert reader.error(pictures).value == pytest.approx((0 + 0.25) / 2)


def test_it_learns_factors_from_private_and_public_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfumato.factors._MODEL", ("cnn4", {"width": 0.5}))
    data = quadrants.people(each=15, factors=True)
    reader = prepare_reader(data, device=CPU)
    assert reader is not None
    assert reader.names == ("gray", "quarter")
    for part in ("test", "public"):
        assert reader.error(data.part(part)).value < 0.08
    turned = data.part("test").read(torch.arange(12)) / 255
    wrong = (reader(turned.flip(-2)) - factors_of(data.part("test"), reader.names)).abs().mean(0)
    assert wrong[1] > 0.3


def test_it_is_taught_the_factors_of_both_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[ResidentPictures, nn.Module]] = []

    def train(_: nn.Module, pictures: ResidentPictures, *__: object, criterion: nn.Module, **___: object) -> None:
        seen.append((pictures, criterion))

    monkeypatch.setattr("sfumato.factors.train_classifier", train)
    data = quadrants.people(factors=True)
    reader = assemble_reader(data, device=CPU)
    assert reader is not None
    teach_reader(reader, data)
    ((pictures, criterion),) = seen
    parts = [data.part(name) for name in ("private", "public")]
    assert torch.equal(
        pictures.read(torch.arange(len(pictures))), torch.cat([part.read(torch.arange(len(part))) for part in parts])
    )
    rows = criterion.get_buffer("rows") if "rows" in dict(criterion.named_buffers()) else criterion.rows
    assert isinstance(rows, torch.Tensor)
    assert torch.equal(rows[pictures.labels], torch.cat([factors_of(part, reader.names) for part in parts]))


def test_photographs_have_no_factors_and_half_of_them_no_reader() -> None:
    assert prepare_reader(quadrants.people(), device=CPU) is None
    data = quadrants.people(factors=True)
    bare = data.part("public").relabeled(data.part("public").labels, {})
    mixed: sf.Data = data.with_parts(public=bare)
    with pytest.raises(DataError, match="expected the tag 'factor-gray' of every picture, found none"):
        prepare_reader(mixed, device=CPU)
