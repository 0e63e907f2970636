# SPDX-License-Identifier: Apache-2.0
"""Trained weights go into a model for other classes whole, or not at all."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import sfumato as sf
from sfumato.errors import ConfigError, WeightsError
from sfumato.models.transfer import transfer

SHAPE = (3, 16, 16)
X = torch.zeros(2, *SHAPE)


def model(classes: int, seed: int) -> nn.Module:
    return sf.build_model("cnn4", classes=classes, shape=SHAPE, options={"width": 0.25}, seed=seed)


def test_everything_but_the_last_layer_is_taken_over() -> None:
    old, new = model(7, 0), model(4, 1)
    before = {name: value.clone() for name, value in new.state_dict().items()}
    transfer(new, old.state_dict(), example=X)
    kept = {name for name, value in new.state_dict().items() if torch.equal(value, before[name])}
    taken = {name for name, value in new.state_dict().items() if torch.equal(value, old.state_dict()[name])} - kept
    last = {name for name in before if name.startswith("classifier.")}
    assert last <= kept
    assert {name for name in before if name.endswith("weight") and before[name].ndim > 1} - last <= taken


def test_the_last_layer_is_drawn_anew_even_where_it_would_fit() -> None:
    old, new = model(4, 0), model(4, 1)
    before = new.classifier.weight.clone()
    transfer(new, old.state_dict(), example=X)
    assert torch.equal(new.classifier.weight, before)


def test_what_is_missing_is_listed_and_nothing_is_loaded() -> None:
    old, new = model(4, 0).state_dict(), model(4, 1)
    before = {name: value.clone() for name, value in new.state_dict().items()}
    names = [name for name in old if not name.startswith("classifier.")]
    part = {name: old[name] for name in names[4:]}
    with pytest.raises(WeightsError, match="4 missing") as caught:
        transfer(new, part, example=X, source="part.safetensors")
    assert all(name in str(caught.value) for name in names[:4])
    assert "part.safetensors" in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in new.state_dict().items())


def test_layers_that_are_named_stay_as_they_were_drawn() -> None:
    old, new = model(4, 0).state_dict(), model(4, 1)
    owner = next(name for name in old if not name.startswith("classifier.")).rpartition(".")[0]
    before = {name: value.clone() for name, value in new.state_dict().items() if name.startswith(f"{owner}.")}
    transfer(new, {name: value for name, value in old.items() if not name.startswith(f"{owner}.")}, example=X, fresh=[owner])
    assert all(torch.equal(new.state_dict()[name], value) for name, value in before.items())


def test_weights_of_another_model_or_shape_are_refused() -> None:
    old, new = model(4, 0).state_dict(), model(4, 1)
    with pytest.raises(WeightsError, match=r"1 not of this model \(other.weight\)"):
        transfer(new, {**old, "other.weight": X}, example=X)
    name = next(name for name in old if name.endswith("weight"))
    with pytest.raises(WeightsError, match="1 of another shape"):
        transfer(new, {**old, name: X}, example=X)


def test_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="no module 'clasifier' in the model .did you mean 'classifier'"):
        transfer(model(4, 1), {}, example=X, fresh=["clasifier"])


def test_a_target_is_taken_over_as_its_model_is() -> None:
    old, new = model(7, 0), model(4, 1)
    transfer(new, sf.Target(sf.whole(old), sf.Compose()), example=X)
    assert all(torch.equal(value, old.state_dict()[name]) for name, value in new.state_dict().items() if "classifier" not in name)
