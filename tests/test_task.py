# SPDX-License-Identifier: Apache-2.0
"""What a target is trained for: losses against slow ones, orders, and everything that is refused before training."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sfumato as sf
from example_reid import embedding_net, street, street_split
from sfumato.errors import ConfigError, DataError, ModelError
from sfumato.loop import Run
from sfumato.settings import Optimizer, Train
from sfumato.target import Target
from sfumato.task import Classification, Reidentification, _batch_hard, task_for
from sfumato.train import assemble, fit
from sfumato.types import Step

QUICK = Train(epochs=1, batch_size=32)


def step(embedding: Tensor, logits: Tensor, y: Tensor) -> Step:
    x = torch.zeros(len(y), 1, 8, 8)
    return Step(
        x=x, y=y, z=x, protected=x, logits=logits, model=nn.Identity(), epoch=0, index=0, learning_rate=0.1,
        generator=torch.Generator(), embedding=embedding,
    )  # fmt: skip


def slow_loss(embedding: np.ndarray, logits: np.ndarray, y: np.ndarray, margin: float, smoothing: float) -> float:
    named, triplets = [], []
    for row, label in zip(logits, y, strict=True):
        log = row - np.log(np.exp(row).sum())
        wanted = np.full(len(row), smoothing / len(row))
        wanted[label] += 1 - smoothing
        named.append(-(wanted * log).sum())
    for a, anchor in enumerate(embedding):
        distances = [np.sqrt(((anchor - other) ** 2).sum()) for other in embedding]
        farthest = max(distances[p] for p in range(len(y)) if y[p] == y[a] and p != a)
        nearest = min(distances[n] for n in range(len(y)) if y[n] != y[a])
        triplets.append(max(0.0, margin + farthest - nearest))
    return float(np.mean(named) + np.mean(triplets))


@pytest.mark.parametrize(("margin", "smoothing"), [(0.3, 0.1), (3.0, 0.0), (0.0, 0.5)])
@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_the_loss_is_smoothed_cross_entropy_and_batch_hard_triplets(margin: float, smoothing: float, scale: float) -> None:
    stream = torch.Generator().manual_seed(0)
    embedding = scale * torch.randn(16, 5, generator=stream, dtype=torch.float64)
    logits, y = torch.randn(16, 6, generator=stream), torch.arange(16) // 4
    task = Reidentification(margin=margin, smoothing=smoothing)
    expected = slow_loss(embedding.numpy(), logits.numpy().astype(np.float64), y.numpy(), margin, smoothing)
    assert task.loss(step(embedding, logits, y)).item() == pytest.approx(expected, abs=1e-5)


def test_embeddings_that_are_all_the_same_have_the_loss_of_the_margin_and_a_finite_gradient() -> None:
    embedding = torch.ones(40, 5, requires_grad=True)
    loss = Reidentification(smoothing=0.0).loss(step(embedding, 100.0 * torch.eye(10).repeat(4, 1), torch.arange(40) % 10))
    assert loss.item() == pytest.approx(0.3, abs=1e-3)
    loss.backward()
    assert embedding.grad is not None
    assert embedding.grad.isfinite().all()


def test_every_batch_holds_some_pictures_of_each_of_its_individuals() -> None:
    pictures = street().part("private")
    order = Reidentification(instances=4).order(pictures, 32, torch.Generator().manual_seed(0))
    for batch in order.split(32):
        assert torch.unique(pictures.labels[batch], return_counts=True)[1].tolist() == [4] * 8


def test_processes_share_an_order_by_whole_individuals() -> None:
    data = street()
    run = Run(assemble(street_split(), data, [], seed=0), data, QUICK, task=Reidentification(instances=4), seed=0)
    shares = []
    for process in range(3):
        run.accelerator = SimpleNamespace(num_processes=3, process_index=process)
        shares.append(run._order(0))
        assert (data.part("private").labels[shares[-1]].view(-1, 4).diff(dim=1) == 0).all()
    run.accelerator = SimpleNamespace(num_processes=1, process_index=0)
    assert len({len(share) for share in shares}) == 1
    assert set(torch.cat(shares).tolist()) <= set(run._order(0).tolist())


def test_training_learns_to_find_individuals_that_it_never_saw() -> None:
    data, settings = street(), Train(epochs=5, batch_size=32, optimizer=Optimizer(name="adam", learning_rate=0.01))
    before = task_for(data).utility(Target(street_split(), sf.Compose()), data, 0)
    after = task_for(data).utility(sf.harden(street_split(), data, train=settings), data, 0)
    assert list(after) == ["rank-1", "rank-5", "rank-10", "mAP"]
    assert before["rank-1"].value < 0.7
    assert before["mAP"].value < 0.7
    assert after["rank-1"].value > 0.9
    assert after["mAP"].value > 0.9


class Noting(sf.Defense):
    """Keep the steps that the hooks see."""

    name = "noting"

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []

    def before_step(self, step: Step) -> None:
        self.steps.append(step)


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_hooks_see_what_the_last_linear_layer_was_given(bottleneck: bool, precision: str) -> None:
    data, noting = street(), Noting()
    target = assemble(street_split(), data, [sf.Bottleneck(channels=2)] if bottleneck else [], seed=0)
    target = assemble(target, data, [noting], seed=0)
    (*_, noting) = target.defense
    fit(target, data, replace(QUICK, optimizer=Optimizer(learning_rate=1e-20), precision=precision), seed=0)
    linear = next(module for module in target.split.modules() if isinstance(module, nn.Linear))
    first = noting.steps[0]
    assert first.embedding is not None
    assert first.embedding.requires_grad
    assert first.embedding.shape == (32, 16)
    assert torch.allclose(linear(first.embedding.float()), first.logits.float(), atol=1e-6 if precision == "float32" else 0.05)
    assert not linear._forward_pre_hooks


def test_classification_captures_nothing(small_split: sf.Split, blobs: sf.Data) -> None:
    target = assemble(small_split, blobs, [Noting()], seed=0)
    fit(target, blobs, QUICK, seed=0)
    (noting,) = target.defense
    assert noting.steps[0].embedding is None


def test_a_defense_may_replace_the_loss_of_any_task() -> None:
    class Nothing(sf.Defense):
        name = "nothing"

        def criterion(self, step: Step) -> Tensor:
            assert step.embedding is not None
            return step.logits.sum() * 0

    data = street()
    target = assemble(street_split(), data, [Nothing()], seed=0)
    assert fit(target, data, QUICK, seed=0)[0].loss == 0


def test_the_task_is_that_of_the_data(small_split: sf.Split, blobs: sf.Data) -> None:
    own = Reidentification(instances=8)
    assert task_for(blobs) == Classification()
    assert task_for(street()) == Reidentification()
    assert task_for(street(), own) is own
    with pytest.raises(
        ConfigError, match=r"the task is reidentification, but the data set 'tensors' is for classification; leave"
    ):
        sf.harden(small_split, blobs, task=own)
    with pytest.raises(ConfigError, match=r"the task is classification, but the data set 'toy street' is for reidentification"):
        sf.harden(street_split(), street(), task=Classification())


@pytest.mark.parametrize(("batch_size", "fits"), [(30, 28), (4, 8), (3, 8)])
def test_batches_that_hold_no_triplets_are_refused(batch_size: int, fits: int) -> None:
    with pytest.raises(ConfigError, match=f"multiple of instances.*got {batch_size} for 4 instances; {fits} is one"):
        sf.harden(street_split(), street(), train=Train(batch_size=batch_size))
    Reidentification().check(street(), fits)


def test_an_individual_with_one_picture_is_refused() -> None:
    data = street()
    index = torch.tensor([row for row, who in enumerate(data.part("private").labels.tolist()) if row == 0 or who > 0])
    with pytest.raises(DataError, match="training compares pictures of the same individual, but private has one only of 0"):
        sf.harden(street_split(), data.with_parts(private=data.part("private").subset(index)), train=QUICK)


def test_a_model_that_ends_in_no_linear_layer_is_refused_before_training() -> None:
    net = embedding_net().append(nn.Softmax(1))
    with pytest.raises(
        ModelError, match="must be a torch.nn.Linear on \\(N, E\\), but the logits of .* come from something else"
    ):
        sf.harden(sf.split(net, at="1"), street(), train=QUICK)


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _batch_hard.cache_clear()
    monkeypatch.setitem(sys.modules, "pytorch_metric_learning", None)
    with pytest.raises(ConfigError, match=r're-identification needs the extra: pip install "sfumato\[reid\]"'):
        sf.harden(street_split(), street(), train=QUICK)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"instances": 1}, "instances must be at least 2, got 1"),
        ({"margin": -0.1}, "margin must be >= 0"),
        ({"margin": float("nan")}, "margin must be >= 0"),
        ({"smoothing": 1.0}, r"smoothing in \[0, 1\)"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Reidentification(**arguments)
