# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from sfumato.errors import ConfigError, ModelError, UnknownNameError
from sfumato.models.resolve import build_model, check_model, own_code, resolve

SHAPE = (1, 8, 8)


def plain(classes: int, shape: tuple[int, int, int], hidden: int = 4) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], hidden), nn.Linear(hidden, classes))


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    module = ModuleType("own_models")
    module.plain = plain
    module.wrong = lambda classes, shape: plain(classes + 1, shape)
    module.text = lambda classes, shape: "a model"
    module.number = 3
    monkeypatch.setitem(sys.modules, "own_models", module)
    return module


def build(name: str, **options: object) -> nn.Module:
    return build_model(name, classes=3, shape=SHAPE, options=options)


def test_zoo_model_by_name_draws_its_weights_from_the_seed() -> None:
    state = torch.random.get_rng_state()
    a, b, c = (build_model("lenet5", classes=3, shape=SHAPE, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a["c1.0.weight"], c["c1.0.weight"])
    assert torch.equal(state, torch.random.get_rng_state())


def test_zoo_options_are_passed_on_and_checked() -> None:
    assert build("vgg11", width=0.125).classifier[-1].in_features == 64
    with pytest.raises(ConfigError, match="width"):
        build("vgg11", widht=0.5)


def test_unknown_zoo_name_offers_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'mobilenet_v2'"):
        build("mobilenetv2")


@pytest.mark.usefixtures("own")
def test_own_function_is_called_with_the_options() -> None:
    assert build("own_models:plain", hidden=5)[1].out_features == 5


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("own_models:plan", UnknownNameError, "no function 'plan' .did you mean 'plain'"),
        ("own_models:number", UnknownNameError, "no function 'number'"),
        ("own_models:", UnknownNameError, "module:function"),
        ("no_such_module:plain", UnknownNameError, "no module named 'no_such_module'"),
        ("own_models:text", ModelError, "must return a torch.nn.Module, got str"),
        ("own_models:wrong", ModelError, r"shape \(2, 3\), one a class, got torch.float32 of shape \(2, 4\)"),
    ],
)
def test_own_function_that_does_not_do(name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build(name)


@pytest.mark.usefixtures("own")
def test_own_function_that_does_not_take_the_options() -> None:
    with pytest.raises(ModelError, match="unexpected keyword argument 'depth'.*by name"):
        build("own_models:plain", depth=2)


def test_the_code_of_an_own_model_is_its_file(own: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    found = []
    for text in ("net = 1", "net = 2", "net = 1"):
        monkeypatch.delitem(sys.modules, "nets_in_a_file", raising=False)
        (tmp_path / "nets_in_a_file.py").write_text(text)
        found.append(own_code("nets_in_a_file:net"))
    assert found[0] == found[2] != found[1]
    assert own_code("own_models:plain") is None, "typed in, without a file"
    assert own_code("vgg11") is own_code("timm:resnet18") is None


def test_own_module_with_a_missing_need_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needy_models.py").write_text("import no_such_need\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModelError, match="needs 'no_such_need'"):
        build("needy_models:plain")


def test_own_module_that_cannot_be_imported_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_models.py").write_text("from math import no_such_name\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModelError, match="module 'broken_models' cannot be imported: cannot import name 'no_such_name'"):
        build("broken_models:plain")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(9, 3), "must take pictures of 1x8x8, but failed"),
        (nn.LSTM(8, 3), "must take pictures of 1x8x8, but failed"),
        (nn.Flatten(), r"got torch.float32 of shape \(2, 64\)"),
    ],
)
def test_check_says_what_was_expected_and_found(model: nn.Module, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        check_model(model, classes=3, shape=SHAPE)


def test_check_refuses_an_answer_that_is_no_tensor() -> None:
    class Pair(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x

    with pytest.raises(ModelError, match="got tuple"):
        check_model(Pair(), classes=3, shape=SHAPE)


def test_check_leaves_modes_and_statistics_alone() -> None:
    frozen, running = nn.BatchNorm2d(1).eval(), nn.BatchNorm2d(1)
    model = nn.Sequential(frozen, running, nn.Flatten(), nn.Linear(64, 3))
    check_model(model, classes=3, shape=SHAPE)
    assert [module.training for module in model.modules()] == [True, False, True, True, True]
    assert running.num_batches_tracked == 0


def test_timm_without_timm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match=r'pip install "sfumato\[vision\]"'):
        build("timm:resnet18")


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    def create_model(name: str, num_classes: int, in_chans: int, hidden: int = 4) -> nn.Module:
        model = plain(num_classes, (in_chans, 8, 8), hidden)
        model.pretrained_cfg = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.2, 0.2)}
        return model

    fake = SimpleNamespace(create_model=create_model, is_model=lambda name: name == "net", list_models=lambda: ["net"])
    monkeypatch.setitem(sys.modules, "timm", fake)
    return fake


@pytest.mark.usefixtures("timm")
def test_timm_model_gets_the_normalization_of_its_weights() -> None:
    color = resolve("timm:net", classes=3, shape=(3, 8, 8), options={"hidden": 5})
    assert color.normalize.mean.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])
    assert color.backbone[1].out_features == 5
    assert build("timm:net").normalize.mean.flatten().tolist() == pytest.approx([0.5])


@pytest.mark.usefixtures("timm")
def test_unknown_timm_name_offers_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="timm has no model 'nat' .did you mean 'net'"):
        build("timm:nat")
