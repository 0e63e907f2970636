# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from sfumato.arguments import construct
from sfumato.errors import ConfigError, UnknownNameError
from sfumato.evaluator import Evaluator


def test_a_table_of_a_recipe_is_an_evaluator() -> None:
    made, problems = construct(Evaluator, {"model": "vgg11", "options": {"width": 0.25}, "weights": "w.safetensors", "gate": 1})
    assert made == Evaluator(model="vgg11", options={"width": 0.25}, weights=Path("w.safetensors"), gate=1.0)
    assert not problems


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": "lenet"}, UnknownNameError, "did you mean 'lenet5'"),
        ({"epochs": 0}, ConfigError, "epochs must be at least 1"),
        ({"batch_size": 0}, ConfigError, "batch_size must be at least 1"),
        ({"size": 0}, ConfigError, "size must be at least 1"),
        ({"face": "a:b", "face_size": 0}, ConfigError, "face_size must be at least 1"),
        ({"learning_rate": 0.0}, ConfigError, "learning_rate must be above 0"),
        ({"gate": 80.0}, ConfigError, r"gate must be an accuracy in \[0, 1\], got 80.0"),
        ({"gate": float("nan")}, ConfigError, "gate must be an accuracy"),
        ({"face_size": 112}, ConfigError, "those of a network of your own; name it"),
        ({"face_weights": Path("w")}, ConfigError, "those of a network of your own; name it"),
    ],
)
def test_arguments_that_make_no_evaluator(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Evaluator(**arguments)  # type: ignore[arg-type]
