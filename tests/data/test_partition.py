# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.data.base import PARTS, Data
from sfumato.data.partition import partition, split_test, stratified
from sfumato.data.resident import ResidentPictures
from sfumato.errors import ConfigError, DataError, UnknownNameError

LABELS = st.lists(st.integers(0, 4), max_size=60).map(lambda labels: torch.tensor(labels, dtype=torch.int64))


def numbered(count: int, start: int) -> ResidentPictures:
    """Pictures whose pixel is their number, so that they can be told apart."""
    return ResidentPictures(torch.arange(start, start + count, dtype=torch.uint8).view(-1, 1, 1, 1), torch.arange(count) % 2)


def numbers(data: Data, part: str) -> list[int]:
    pictures = data.part(part)
    return pictures.read(torch.arange(len(pictures))).flatten().tolist()


@pytest.fixture
def data() -> Data:
    return Data("numbers", ("even", "odd"), {"train": numbered(80, 0), "test": numbered(40, 100)})


@settings(deadline=None, max_examples=60)
@given(labels=LABELS, fraction=st.floats(0, 0.999), seed=st.integers(0, 2**40))
def test_stratified_is_disjoint_complete_and_repeatable(labels: torch.Tensor, fraction: float, seed: int) -> None:
    stay, taken = stratified(labels, fraction=fraction, seed=seed, purpose="a")
    again = stratified(labels, fraction=fraction, seed=seed, purpose="a")
    assert torch.equal(torch.cat([stay, taken]).sort().values, torch.arange(len(labels)))
    assert torch.equal(stay, again[0])
    assert torch.equal(taken, again[1])


@settings(deadline=None, max_examples=60)
@given(labels=LABELS, fraction=st.floats(0.001, 0.999))
def test_stratified_is_balanced(labels: torch.Tensor, fraction: float) -> None:
    taken = labels[stratified(labels, fraction=fraction, seed=0, purpose="a")[1]]
    for number in labels.unique().tolist():
        members, share = int((labels == number).sum()), int((taken == number).sum())
        assert abs(share - members * fraction) < 1
        assert members < 2 or 0 < share < members


def test_seed_and_purpose_change_the_split() -> None:
    labels = torch.zeros(100, dtype=torch.int64)
    splits = {
        tuple(stratified(labels, fraction=0.5, seed=seed, purpose=purpose)[1].tolist())
        for seed in (0, 1)
        for purpose in ("a", "b")
    }
    assert len(splits) == 4


def test_stratified_fraction_out_of_range() -> None:
    with pytest.raises(ConfigError, match=r"\[0, 1\), got 1"):
        stratified(torch.zeros(4), fraction=1, seed=0, purpose="a")


def test_split_test_needs_two_of_a_class() -> None:
    with pytest.raises(DataError, match="give test="):
        split_test(ResidentPictures(torch.zeros(2, 1, 1, 1, dtype=torch.uint8), torch.arange(2)), seed=0)


@settings(deadline=None, max_examples=20)
@given(public=st.floats(0, 0.99), seed=st.integers(0, 99))
def test_private_and_public_make_train(public: float, seed: int) -> None:
    data = Data("numbers", ("even", "odd"), {"train": numbered(80, 0), "test": numbered(40, 100)})
    parted = partition(data, public=public, seed=seed)
    assert sorted(numbers(parted, "private") + numbers(parted, "public")) == list(range(80))


def test_worst_case_is_the_default(data: Data) -> None:
    parted = partition(data, public=0.25)
    assert tuple(parted.parts) == PARTS
    assert numbers(parted, "auxiliary") == numbers(parted, "private")
    assert numbers(parted, "inference") == numbers(parted, "test")
    assert parted.auxiliary == "private"
    assert len(parted.part("public")) == 20


def test_nothing_public_leaves_train_as_it_is(data: Data) -> None:
    assert partition(data).part("private") is data.part("train")


def test_public_auxiliary(data: Data) -> None:
    parted = partition(data, public=0.25, auxiliary="public")
    assert numbers(parted, "auxiliary") == numbers(parted, "public")
    assert not set(numbers(parted, "auxiliary")) & set(numbers(parted, "private"))


def test_test_auxiliary_keeps_a_tenth_for_inference(data: Data) -> None:
    parted = partition(data, auxiliary="test")
    assert len(parted.part("inference")) == 4
    assert sorted(numbers(parted, "auxiliary") + numbers(parted, "inference")) == list(range(100, 140))
    assert parted.part("inference").labels.bincount().tolist() == [2, 2]


@pytest.mark.parametrize("public", [-0.1, 1.0, float("nan")])
def test_public_out_of_range(data: Data, public: float) -> None:
    with pytest.raises(ConfigError, match="public must be in"):
        partition(data, public=public)


def test_public_auxiliary_needs_public_pictures(data: Data) -> None:
    with pytest.raises(ConfigError, match="needs public pictures"):
        partition(data, auxiliary="public")


def test_unknown_auxiliary(data: Data) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'private'"):
        partition(data, auxiliary="privat")  # type: ignore[arg-type]
