# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from sfumato.seeds import ambient, derive, generator


@given(st.integers(0, 2**31), st.lists(st.text(max_size=4) | st.integers(0, 99), max_size=3))
def test_derived_seeds_are_stable_and_in_range(seed: int, names: list[str | int]) -> None:
    assert derive(seed, *names) == derive(seed, *names)
    assert 0 <= derive(seed, *names) < 2**63


def test_derived_seeds_are_the_same_on_every_machine() -> None:
    assert derive(0, "order", 1) == 3560704936019802908


def test_names_are_not_glued_together() -> None:
    assert derive(0, "ab", "c") != derive(0, "a", "bc")


def test_streams_do_not_disturb_each_other() -> None:
    a = generator(0, "a")
    torch.rand(5, generator=generator(0, "b"))
    assert torch.equal(torch.rand(3, generator=a), torch.rand(3, generator=generator(0, "a")))


def test_the_ambient_stream_is_put_back() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with ambient(0, "x"):
        inside = torch.rand(2)
    assert torch.equal(torch.rand(2), expected)
    with ambient(0, "x"):
        assert torch.equal(torch.rand(2), inside)
