# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import sfumato as sf
from memorized import TRAIN, asked, dense_net, found_by_loss, gap, noisy_labels, trained, undefended
from sfumato.defenses.early_stopping import EarlyStopping
from sfumato.errors import ConfigError
from sfumato.train import assemble, fit
from sfumato.types import Epoch


class Recorder(sf.Defense):
    """Keeps the weights of every epoch, and what the model says of the reference pictures then."""

    name = "recorder"

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[dict[str, Tensor]] = []
        self.losses: list[float] = []

    def end_epoch(self, epoch: Epoch) -> None:
        self.weights.append({name: value.clone() for name, value in epoch.model.state_dict().items()})
        logits, y = asked(epoch.model, "reference")
        rows = logits.double().numpy()
        each = [np.log(np.exp(row).sum()) - row[label] for row, label in zip(rows, y.tolist(), strict=True)]
        self.losses.append(float(np.mean(each)))


def same(model: torch.nn.Module, weights: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def recorded(settings: sf.Train) -> tuple[sf.Target, Recorder]:
    target = trained(Recorder(), EarlyStopping(), train=settings)
    recorder = next(iter(target.defense))
    assert isinstance(recorder, Recorder)
    return target, recorder


def test_the_weights_are_those_of_the_epoch_with_the_least_loss_on_reference() -> None:
    target, recorder = recorded(TRAIN)
    best = int(np.argmin(recorder.losses))
    assert 0 < best < len(recorder.losses) - 10
    assert same(target.split, recorder.weights[best])


def test_fine_tuning_has_a_best_epoch_of_its_own() -> None:
    target, recorder = recorded(dataclasses.replace(TRAIN, epochs=5, finetune=45))
    best = 5 + int(np.argmin(recorder.losses[5:]))
    assert 5 < best < 49
    assert same(target.split, recorder.weights[best])


def test_the_last_epoch_is_kept_where_it_is_the_best() -> None:
    target, recorder = recorded(dataclasses.replace(TRAIN, epochs=3))
    assert int(np.argmin(recorder.losses)) == 2
    assert same(target.split, recorder.weights[2])


def test_other_parts_finish_the_best_model() -> None:
    class Last(sf.Defense):
        name = "last"

        def finish(self, model: sf.Split) -> None:
            self.seen = {name: value.clone() for name, value in model.state_dict().items()}

    target = trained(Last(), EarlyStopping())
    assert same(target.split, next(iter(target.defense)).seen)


@pytest.mark.parametrize("stopped", [1, 28])
def test_a_run_that_is_interrupted_goes_on_to_the_same_bits(stopped: int, tmp_path: Path) -> None:
    # at a rate that stays so high the best epoch is neither the first nor among the last
    optimizer = sf.Optimizer(name="adam", learning_rate=0.02, weight_decay=0.0)
    settings = dataclasses.replace(TRAIN, epochs=30, optimizer=optimizer, schedule=sf.Schedule(name="constant"))
    whole, recorder = recorded(settings)
    assert 2 < int(np.argmin(recorder.losses)) < 27

    def interrupt(done: int, total: int) -> None:
        if done == 3 * stopped + 1:
            raise KeyboardInterrupt

    path = tmp_path / "checkpoint"
    for watch in (interrupt, None):
        again = assemble(dense_net(), noisy_labels(), [EarlyStopping()], seed=0)
        if watch is None:
            fit(again, noisy_labels(), settings, seed=0, checkpoint=path)
        else:
            with pytest.raises(KeyboardInterrupt):
                fit(again, noisy_labels(), settings, seed=0, checkpoint=path, watch=watch)
    assert same(again.split, dict(whole.split.state_dict()))


def test_what_it_remembers_is_dropped_when_training_is_over() -> None:
    target = trained(EarlyStopping(), train=dataclasses.replace(TRAIN, epochs=1))
    assert target.defense.memory() == {}  # type: ignore[union-attr]
    assert list(target.defense.state_dict()) == []


def test_it_measures_the_model_as_it_is_protected() -> None:
    class Constant(sf.Defense):
        """Hides the picture, so that every epoch's model knows the same of it."""

        name = "constant"

        def protect(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
            return z * 0

    defense = EarlyStopping()
    target = assemble(dense_net(), noisy_labels(), [defense, Constant()], seed=0)
    stopping = next(iter(target.defense))
    stopping.begin(noisy_labels())
    with torch.no_grad():
        stopping.end_epoch(Epoch(number=0, total=2, model=target.split, batches=lambda: iter(())))
        logits = target.split(torch.zeros(1, 1, 8, 8))[0].log_softmax(0)
    y = noisy_labels().part("reference").labels
    assert stopping.memory()["loss"].item() == pytest.approx(-logits[y].mean().item(), rel=1e-5)


def test_members_are_found_less_easily() -> None:
    stopped = trained(EarlyStopping())
    assert gap(stopped) < 0.6 * gap(undefended())
    assert found_by_loss(stopped) < found_by_loss(undefended()) - 0.05
    (logits, y), (plain, _) = asked(stopped, "test"), asked(undefended(), "test")
    assert (logits.argmax(1) == y).sum() >= (plain.argmax(1) == y).sum()


def test_data_without_reference_is_refused(small_split: sf.Split, blobs: sf.Data) -> None:
    with pytest.raises(ConfigError, match=r"early_stopping needs .* set reference = 0.2 under \[data\]"):
        EarlyStopping().prepare(small_split, blobs)
    empty = blobs.with_parts(reference=blobs.part("test").subset(torch.arange(0)))
    with pytest.raises(ConfigError, match="early_stopping needs"):
        EarlyStopping().prepare(small_split, empty)


def test_what_it_looks_at_is_no_training_picture() -> None:
    assert EarlyStopping().separable


@pytest.mark.gpu
def test_it_keeps_and_recalls_weights_on_cuda(tmp_path: Path) -> None:
    for epochs in (2, 3):
        target = assemble(dense_net().to("cuda"), noisy_labels(), [EarlyStopping()], seed=0)
        settings = dataclasses.replace(TRAIN, epochs=epochs)
        fit(target, noisy_labels(), settings, seed=0, checkpoint=tmp_path / "checkpoint", definition="the same")
    assert target.device.type == "cuda"
