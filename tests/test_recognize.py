# SPDX-License-Identifier: Apache-2.0
"""A recognizer names what it sees: of a toy whose private part is a stripe, of a classifier whose answer is known."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import sfumato as sf
from sfumato.data.base import Pictures
from sfumato.data.resident import ResidentPictures
from sfumato.errors import ConfigError, ModelError, UnknownNameError, WeightsError
from sfumato.files import write_tensors
from sfumato.recognize import Recognizer, Witness, attribute_of, prepare
from sfumato.types import Recognition

CPU = torch.device("cpu")


def striped(count: int = 240, seed: int = 0) -> ResidentPictures:
    """8x8 pictures whose class is the side of a square, and whose private "driver" is a row that is bright."""
    stream = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 60, (count, 1, 8, 8), generator=stream, dtype=torch.uint8)
    side, driver = torch.arange(count) % 2, torch.randint(0, 3, (count,), generator=stream)
    for row in range(count):
        x[row, 0, 5:8, 4 * int(side[row]) : 4 * int(side[row]) + 4] += 150
        x[row, 0, int(driver[row])] += 120
    box = {name: torch.full((count,), value) for name, value in (("top", 0), ("left", 0), ("bottom", 3), ("right", 8))}
    return ResidentPictures(x, side, tags={"driver": driver, **box})


def street() -> sf.Data:
    parts: dict[str, Pictures] = {"train": striped(), "test": striped(60, seed=1)}
    return sf.partition(sf.Data(name="street", classes=("left", "right"), parts=parts))


def answer(witness: Witness, x_hat: Tensor, pictures: Pictures) -> Recognition:
    x = pictures.read(torch.arange(len(pictures))) / 255
    return witness(x_hat.expand_as(x), x, pictures, torch.Generator().manual_seed(0))


def levels(classes: int, shape: tuple[int, int, int]) -> nn.Module:
    """Names the brightness of a picture: class k is the level nearest to k / classes."""
    linear = nn.Linear(1, classes)
    centers = torch.arange(classes) / classes
    linear.weight.data, linear.bias.data = 2 * centers[:, None], -centers.square()
    return nn.Sequential(OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), linear=linear))


def behind(classes: int, shape: tuple[int, int, int]) -> nn.Module:
    """The same behind a first layer, as models of timm are."""
    return nn.Sequential(OrderedDict(normalize=nn.Identity(), backbone=levels(classes, shape)))


def gray(*values: int, **tags: list[int]) -> ResidentPictures:
    x = torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8)
    return ResidentPictures(x, torch.zeros(len(values)), tags={name: torch.tensor(told) for name, told in tags.items()})


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write_tensors(tmp_path / "levels.safetensors", levels(4, (1, 8, 8)).state_dict())


@pytest.mark.parametrize(("attribute", "of"), [("driver", "driver"), ("label", "class")])
def test_it_learns_to_name_an_attribute(attribute: str, of: str) -> None:
    data = street()
    test = data.part("test")
    witness = prepare(Recognizer(attribute=attribute), data, device=CPU)
    found = answer(witness, test.read(torch.arange(len(test))) / 255, test)
    assert (found.of, found.accuracy.value) == (of, found.on_real.value)
    assert found.on_real.value > 0.95
    values = attribute_of(test, attribute).tolist()
    assert found.chance == max(values.count(value) for value in values) / len(values)
    for blind in (torch.zeros(1), torch.full((1,), 0.5)):
        assert answer(witness, blind, test).accuracy.value <= found.chance


def test_each_reconstruction_is_asked_about_its_own_picture() -> None:
    data = street()
    test = data.part("test")
    witness = prepare(Recognizer(attribute="driver"), data, device=CPU)
    x = test.read(torch.arange(len(test))) / 255
    other = x[torch.tensor([(test.tags["driver"] != value).nonzero()[0, 0] for value in test.tags["driver"]])]
    assert answer(witness, other, test).accuracy.value < 0.1


def test_one_classifier_judges_all_audits_of_the_same_pictures() -> None:
    first, second = (prepare(Recognizer(attribute="driver", epochs=1), street(), device=CPU).network for _ in range(2))
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def test_it_is_trained_on_the_published_training_pictures_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def fit(_: object, data: sf.Data, *__: object, **___: object) -> None:
        seen.append(data.part("private"))

    monkeypatch.setattr("sfumato.classifier.fit", fit)
    data = sf.partition(street(), public=0.5, auxiliary="public")
    prepare(Recognizer(attribute="driver"), data, device=CPU)
    (used,), train = seen, data.part("train")
    assert torch.equal(used.read(torch.arange(len(used))), train.read(torch.arange(len(train))))
    assert torch.equal(used.labels, train.tags["driver"])


def test_outputs_that_are_accepted_count_whatever_the_picture(weights: Path) -> None:
    recognizer = Recognizer(model="test_recognize:levels", weights=weights, classes=4, accepts=(1, 3))
    witness = prepare(recognizer, street(), device=CPU)
    found = answer(witness, torch.full((1,), 0.26), gray(0, 64, 128, 191, 255))
    assert (found.of, found.accuracy.value, found.chance, found.on_real.value) == ("class", 1.0, 0.5, 0.6)
    assert answer(witness, torch.full((1,), 0.5), gray(0)).accuracy.value == 0


def test_a_trained_classifier_can_name_an_attribute(weights: Path) -> None:
    recognizer = Recognizer(model="test_recognize:levels", weights=weights, classes=4, attribute="driver")
    pictures = gray(0, 64, 128, 191, driver=[0, 1, 2, 2])
    found = answer(prepare(recognizer, street(), device=CPU), torch.full((1,), 0.5), pictures)
    assert (found.of, found.accuracy.value, found.chance, found.on_real.value) == ("driver", 0.5, 0.5, 0.75)


def test_weights_of_a_backbone_fit_with_and_without_what_is_put_before_it(weights: Path, tmp_path: Path) -> None:
    whole = write_tensors(tmp_path / "whole.safetensors", behind(4, (1, 8, 8)).state_dict())
    for file in (weights, whole):
        recognizer = Recognizer(model="test_recognize:behind", weights=file, classes=4, accepts=(3,))
        assert answer(prepare(recognizer, street(), device=CPU), torch.zeros(1), gray(191, 0)).on_real.value == 0.5
    with pytest.raises(WeightsError, match=r"whole.safetensors holds the weights of another model"):
        prepare(Recognizer(model="test_recognize:levels", weights=whole, classes=4, accepts=(3,)), street(), device=CPU)


def test_pictures_are_resized_to_what_the_classifier_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfumato.classifier.fit", lambda *_, **__: None)
    plain, wide = (prepare(Recognizer(size=size), street(), device=CPU).network for size in (None, 32))
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(plain[0](x), x)
    assert wide[0](x).shape == (2, 1, 32, 32)
    assert torch.allclose(wide[0](torch.full((1, 1, 8, 8), 0.3)), torch.tensor(0.3))
    down = prepare(Recognizer(size=4, model="test_recognize:levels"), street(), device=CPU).network[0](x)
    assert torch.allclose(down.mean(), x.mean(), atol=0.02)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": "lenet"}, UnknownNameError, "did you mean 'lenet5'"),
        ({"epochs": 0}, ConfigError, "epochs and size must be at least 1, got 0 and None"),
        ({"size": 0}, ConfigError, "epochs and size must be at least 1"),
        ({"accepts": (1,)}, ConfigError, "those of a trained classifier; give its weights"),
        ({"classes": 3}, ConfigError, "those of a trained classifier; give its weights"),
        ({"weights": Path("w"), "accepts": (1,)}, ConfigError, r"from 0 to classes - 1, got \(1,\) and classes = None"),
        ({"weights": Path("w"), "classes": 2, "accepts": (2,)}, ConfigError, "from 0 to classes - 1"),
        ({"weights": Path("w"), "classes": 2, "accepts": (-1,)}, ConfigError, "from 0 to classes - 1"),
        ({"weights": Path("w"), "classes": 2, "accepts": (1, 1)}, ConfigError, "different outputs"),
    ],
)
def test_arguments_that_make_no_recognizer(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Recognizer(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("recognizer", "error", "message"),
    [
        (Recognizer(attribute="diver"), ConfigError, r"no tag 'diver' \(did you mean 'driver'\?\); known: label, driver"),
        (Recognizer(attribute="top"), ConfigError, "'top' must have two values or more in part train"),
        (Recognizer(attribute="unknown"), ConfigError, "numbered from 0; found 3, from -1 on"),
        (Recognizer(attribute="only train"), ConfigError, "the pictures have no tag 'only train'"),
        (Recognizer(size=4), ConfigError, "8"),
        (Recognizer(weights=Path("nowhere")), WeightsError, "expected a safetensors file at nowhere"),
        (Recognizer(model="test_recognize:levels", options={"a": 1}), ModelError, "could not be called"),
    ],
)
def test_what_cannot_be_named_is_said_before_anything_is_trained(
    recognizer: Recognizer, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfumato.classifier.fit", lambda *_, **__: pytest.fail("trained"))
    train, test = (
        part.relabeled(part.labels, {**part.tags, "unknown": part.tags["driver"] - 1}) for part in (striped(8), striped(8))
    )
    train.tags["only train"] = train.labels
    data = sf.Data(name="street", classes=("left", "right"), parts={"train": train, "test": test})
    with pytest.raises(error, match=message):
        prepare(recognizer, data, device=CPU)
