# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sfumato as sf
from memorized import asked, found_by_loss, gap, trained, undefended
from sfumato.defenses.hamp import HAMP, label_probability
from sfumato.errors import ConfigError
from sfumato.seeds import ambient
from sfumato.split import whole
from sfumato.train import assemble
from steps import step_of


def entropy(p: np.ndarray) -> float:
    return -sum(value * math.log(value) for value in p.tolist() if value > 0)


def soft_label(classes: int, label: float, y: int) -> np.ndarray:
    soft = np.full(classes, (1 - label) / (classes - 1))
    soft[y] = label
    return soft


@pytest.mark.parametrize("classes", [2, 3, 10, 100, 1000])
@pytest.mark.parametrize("gamma", [0.0, 0.01, 0.5, 0.95])
def test_the_label_is_as_probable_as_the_entropy_lets_it(classes: int, gamma: float) -> None:
    label = label_probability(classes, gamma)
    assert 1 / classes < label <= 1
    assert entropy(soft_label(classes, label, 0)) >= gamma * math.log(classes) - 1e-9
    if gamma:
        assert entropy(soft_label(classes, label + 1e-6, 0)) < gamma * math.log(classes)
    else:
        assert label == pytest.approx(1)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("alpha", [0.0, 0.01, 2.0])
def test_the_loss_is_that_of_the_equation(gamma: float, alpha: float, small_split: sf.Split) -> None:
    defense = HAMP(gamma=gamma, alpha=alpha)
    step = step_of(small_split, defense)
    logits = 5 * torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    y = torch.arange(12) % 4
    expected = 0.0
    for row, label in zip(logits.double().numpy(), y.tolist(), strict=True):
        p = np.exp(row) / np.exp(row).sum()
        soft = soft_label(4, label_probability(4, gamma), label)
        expected += sum(t * math.log(t / q) for t, q in zip(soft, p, strict=True) if t > 0) - alpha * entropy(p)
    found = defense.criterion(dataclasses.replace(step, logits=logits, y=y))
    assert found.item() == pytest.approx(expected / 12, rel=1e-4, abs=1e-5)


def banked(bank: Tensor) -> HAMP:
    defense = HAMP(pictures=len(bank))
    defense.register_buffer("bank", bank)
    return defense


def test_what_is_released_is_a_row_of_the_bank_in_the_order_of_the_answer() -> None:
    stream = torch.Generator().manual_seed(0)
    bank = torch.randn(7, 5, generator=stream).log_softmax(1).sort(1, descending=True).values
    logits = torch.randn(300, 5, generator=stream)
    released = banked(bank).release(logits)
    assert torch.equal(released.argsort(1), logits.argsort(1))
    rows = {tuple(row) for row in bank.tolist()}
    assert {tuple(row) for row in released.sort(1, descending=True).values.tolist()} == rows


def test_the_order_of_the_classes_decides_and_nothing_else() -> None:
    bank = torch.randn(64, 5, generator=torch.Generator().manual_seed(0)).sort(1, descending=True).values
    defense = banked(bank)
    logits = torch.randn(50, 5, generator=torch.Generator().manual_seed(1))
    released = defense.release(logits)
    for number, row in enumerate(logits):
        assert torch.equal(defense.release(row[None])[0], released[number])
        assert torch.equal(defense.release(row[None] * 9 - 4)[0], released[number])
        assert torch.equal(defense.release(row[None].exp())[0], released[number])


def test_the_label_stays_where_random_scores_tie() -> None:
    logits = torch.eye(3)
    released = banked(torch.zeros(4, 3)).release(logits)
    assert torch.equal(released.argmax(1), logits.argmax(1))


def pixel_data(*, table: bool = False) -> sf.Data:
    """Pictures of a single pixel, or a table of two columns."""
    x = torch.randn(60, 2) * 9 if table else torch.rand(60, 1, 1, 1)
    return sf.load_data((x, torch.arange(60) % 3))


def pixel_net(inputs: int) -> sf.Split:
    return whole(nn.Sequential(nn.Flatten(), nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, 3)))


def among(bank: Tensor, split: sf.Split, x: Tensor) -> bool:
    """Whether every row of a bank is what the net says of one of these inputs."""
    with torch.no_grad():
        said = split.eval()(x).log_softmax(1).sort(1, descending=True).values
    return bool((bank[:, None] - said).abs().amax(2).amin(1).max() < 1e-5)


@pytest.mark.parametrize("finetune", [0, 1])
def test_the_bank_is_what_the_finished_model_says_of_random_pixels(finetune: int) -> None:
    settings = sf.Train(epochs=1, finetune=finetune, batch_size=16)
    target = sf.harden(pixel_net(1), pixel_data(), defenses=[HAMP(pictures=300)], train=settings)
    (defense,) = target.defense
    pixels = torch.arange(256).view(-1, 1, 1, 1) / 255
    assert among(defense.bank, target.split, pixels)
    assert defense.bank.unique(dim=0).shape[0] > 100


def test_random_rows_of_a_table_are_bits() -> None:
    target = sf.harden(pixel_net(2), pixel_data(table=True), defenses=[HAMP(pictures=64)], epochs=1)
    (defense,) = target.defense
    bits = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])[:, :, None, None]
    assert among(defense.bank, target.split, bits)
    assert defense.bank.unique(dim=0).shape[0] == 4


def test_random_pixels_are_protected_as_others_are() -> None:
    class Dark(sf.Defense):
        name = "dark"

        def protect(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
            return z * 0

    target = sf.harden(pixel_net(1), pixel_data(), defenses=[HAMP(pictures=64), Dark()], epochs=1)
    assert among(next(iter(target.defense)).bank, target.split, torch.zeros(1, 1, 1, 1))


def test_the_seed_decides_the_bank() -> None:
    target = assemble(pixel_net(1), pixel_data(), [HAMP(pictures=8)], seed=0)
    (defense,) = target.defense
    banks = []
    for seed in (0, 0, 1):
        with torch.no_grad(), ambient(seed, "finish"):
            defense.finish(target.split)
        banks.append(defense.bank.clone())
    assert torch.equal(banks[0], banks[1])
    assert not torch.equal(banks[0], banks[2])


def test_before_training_is_over_only_the_order_is_told() -> None:
    target = assemble(pixel_net(1), pixel_data(), [HAMP()], seed=0)
    assert target.defense.release(torch.tensor([[0.1, 9.0, 3.0]])).tolist() == [[-2.0, 0.0, -1.0]]


def test_members_and_others_get_answers_that_are_as_sure() -> None:
    hidden = trained(HAMP())
    # the label, and so whether it is right, still tells something; how sure the answer is does not
    sure = [asked(hidden, part)[0].softmax(1).amax(1).mean().item() for part in ("private", "test")]
    plain = [asked(undefended(), part)[0].softmax(1).amax(1).mean().item() for part in ("private", "test")]
    assert abs(sure[0] - sure[1]) < 0.02 < 0.05 < plain[0] - plain[1]
    assert gap(hidden) < 0.4 * gap(undefended())
    right = [(logits.argmax(1) == y).double().mean().item() for logits, y in (asked(hidden, p) for p in ("private", "test"))]
    assert found_by_loss(hidden) < 0.5 + (right[0] - right[1]) / 2 + 0.02


def test_it_sees_each_picture_for_itself() -> None:
    assert HAMP().separable


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gamma": 1.0}, r"gamma must be in \[0, 1\)"),
        ({"gamma": -0.1}, r"gamma must be in \[0, 1\)"),
        ({"alpha": -1.0}, "alpha must be >= 0 and finite"),
        ({"alpha": math.inf}, "alpha must be >= 0 and finite"),
        ({"pictures": 0}, "pictures must be at least 1"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HAMP(**arguments)


def test_data_with_a_loss_of_its_own_is_refused(small_split: sf.Split, blobs: sf.Data) -> None:
    with pytest.raises(ConfigError, match="hamp needs a data set for classification"):
        HAMP().prepare(small_split, dataclasses.replace(blobs, task="reidentification"))


@pytest.mark.gpu
def test_it_answers_on_cuda_as_on_the_cpu() -> None:
    target = sf.harden(pixel_net(1).to("cuda"), pixel_data(), defenses=[HAMP(pictures=64)], epochs=1)
    assert next(iter(target.defense)).bank.device.type == "cuda"
    x = torch.rand(50, 1, 1, 1)
    on_cuda = target(x.cuda()).cpu()
    assert torch.allclose(on_cuda, target.cpu()(x), atol=1e-5)
