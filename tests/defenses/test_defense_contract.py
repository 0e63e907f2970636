# SPDX-License-Identifier: Apache-2.0
"""What every defense of the registry keeps; a new one adds a row to `defense_rows`."""

from __future__ import annotations

import copy

import pytest
import torch

import sfumato as sf
from defense_rows import ROWS
from sfumato import registry
from sfumato.data.partition import partition
from sfumato.errors import RecipeError
from sfumato.recipe import read_recipe
from sfumato.train import assemble, restore


@pytest.fixture(scope="module")
def blobs(blobs: sf.Data) -> sf.Data:
    """The blobs, with some that a defense may compare with."""
    return partition(blobs, reference=0.2)


OF_PREDICTIONS = {
    "mcmia", "minmax", "dpsgd", "relaxloss", "hamp", "label_smoothing", "early_stopping", "memguard", "rounding", "top_k",
}  # fmt: skip
OF_WEIGHTS = {"mid", "bido", "midre", "trap_mid", "tl_dmi"}


def made(name: str) -> sf.Defense:
    defense = registry.create("defenses", name, ROWS[name])
    assert isinstance(defense, sf.Defense)
    return defense


def test_every_defense_has_a_row() -> None:
    assert set(ROWS) == set(registry.TABLE["defenses"])


@pytest.mark.parametrize("name", ROWS)
def test_a_defense_of_no_features_leaves_them_alone_and_needs_no_cut(name: str) -> None:
    defense, table = made(name), {"data": {"name": "digits"}, "model": {"name": "lenet5"}}
    z = torch.rand(2, 3)
    start = {"pretrain": {"epochs": 0}} if name == "tl_dmi" else {}  # a recipe must say what it freezes
    recipe = {**table, **start, "defenses": [{"name": name, **ROWS[name]}]}
    if name in OF_PREDICTIONS | OF_WEIGHTS:
        assert defense.protect(z, torch.Generator()) is z
        assert read_recipe(recipe, text="").split.cut == ""
    else:
        with pytest.raises(RecipeError, match="model.cut: missing"):
            read_recipe(recipe, text="")


@pytest.mark.parametrize("name", ROWS)
class TestEveryDefense:
    def test_is_keyed_and_described_by_its_own_name(self, name: str) -> None:
        defense = made(name)
        assert defense.name == name.removesuffix("-paper")  # the same method with other numbers
        assert defense.describe().startswith(type(defense).__name__)

    @pytest.mark.parametrize("shape", [(5, 4, 6, 6), (5, 7)])
    def test_protect_keeps_shape_dtype_and_gradient(self, name: str, shape: tuple[int, ...]) -> None:
        z = torch.rand(shape, requires_grad=True)
        protected = made(name).protect(z, torch.Generator().manual_seed(0))
        assert protected.shape == z.shape
        assert protected.dtype == z.dtype
        protected.sum().backward()
        assert z.grad is not None
        assert z.grad.abs().sum() > 0

    def test_the_same_stream_gives_the_same_bits(self, name: str) -> None:
        z, defense = torch.rand(5, 4, 6, 6), made(name)
        first, second = (defense.protect(z, torch.Generator().manual_seed(7)) for _ in range(2))
        assert torch.equal(first, second)

    def test_stochastic_says_whether_protect_draws(self, name: str) -> None:
        z, defense, stream = torch.rand(5, 4, 6, 6), made(name), torch.Generator().manual_seed(7)
        assert torch.equal(defense.protect(z, stream), defense.protect(z, stream)) != defense.stochastic

    def test_survives_a_checkpoint(self, name: str, small_split: sf.Split, blobs: sf.Data) -> None:
        trained = sf.harden(small_split, blobs, defenses=[made(name)], epochs=1)
        again = assemble(small_split, blobs, [made(name)], seed=9)
        restore(again, trained.state_dict(), source="a test")
        x = torch.rand(3, 1, 8, 8)
        first, second = (target(x, torch.Generator().manual_seed(0)) for target in (trained, again))
        assert torch.equal(first, second)

    def test_harden_leaves_what_it_was_given(self, name: str, small_split: sf.Split, blobs: sf.Data) -> None:
        before, defense = copy.deepcopy(small_split.state_dict()), made(name)
        sf.harden(small_split, blobs, defenses=[defense], epochs=1)
        assert all(torch.equal(before[key], value) for key, value in small_split.state_dict().items())
