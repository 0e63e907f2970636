# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import dataclasses
import math
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sfumato as sf
from memorized import TRAIN, asked, dense_net, gap, noisy_labels, trained, undefended
from sfumato.defenses.memguard import MemGuard, _pull, mislead
from sfumato.errors import ConfigError
from sfumato.train import assemble

ANSWERS = (3 * torch.randn(120, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).log_softmax(1)


def classifier(classes: int = 4) -> nn.Sequential:
    """An h with weights of its own, in float64, smooth so that differences can be taken."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return nn.Sequential(nn.Linear(classes, 16), nn.Tanh(), nn.Linear(16, 1)).double().requires_grad_(False)


def literal_guess(network: nn.Sequential, scores: np.ndarray) -> float:
    """The logit of h for one answer."""
    p = np.exp(scores) / np.exp(scores).sum()
    (a, b), (c, d) = ([tensor.numpy() for tensor in network[place].parameters()] for place in (0, 2))
    return float((c @ np.tanh(a @ np.array(sorted(p)) + b) + d)[0])


def literal_loss(network: nn.Sequential, scores: np.ndarray, answer: np.ndarray, weight: float) -> float:
    """jia2019memguard, Phase I: |h'| + c2 max(0, largest other - label) + c3 |q - p|_1."""
    q = np.exp(scores) / np.exp(scores).sum()
    label = int(answer.argmax())
    other = max(value for place, value in enumerate(scores) if place != label)
    distortion = sum(abs(new - old) for new, old in zip(q, np.exp(answer), strict=True))
    return abs(literal_guess(network, scores)) + 10 * max(0.0, other - scores[label]) + weight * distortion


@cache
def guarded() -> sf.Target:
    """The net with an h that learned from it, released without noise."""
    return trained(MemGuard(epsilon=0.0))


def with_epsilon(epsilon: float) -> MemGuard:
    """The defense of that net, with another budget."""
    defense = copy.deepcopy(next(iter(guarded().defense)))
    assert isinstance(defense, MemGuard)
    defense.epsilon = epsilon
    return defense


@pytest.mark.parametrize("weight", [0.1, 10.0])
def test_the_search_follows_the_gradient_of_the_equation(weight: float) -> None:
    network, rows = classifier(), 12
    moved = ANSWERS[:rows] + torch.randn(rows, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    guess, pull = _pull(network, moved, ANSWERS[:rows], ANSWERS[:rows].argmax(1), weight)
    for row in range(rows):
        scores, answer = moved[row].numpy(), ANSWERS[row].numpy()
        assert guess[row].item() == pytest.approx(literal_guess(network, scores), rel=1e-9)
        for place in range(4):
            near = [literal_loss(network, scores + side * 1e-6 * np.eye(4)[place], answer, weight) for side in (1, -1)]
            assert pull[row, place].item() == pytest.approx((near[0] - near[1]) / 2e-6, rel=1e-4, abs=1e-6)
    assert (moved.argmax(1) != ANSWERS[:rows].argmax(1)).any(), "the term that keeps the label was at work"


def test_h_guesses_the_other_side_of_what_it_is_misled_about_and_the_label_stays() -> None:
    network = classifier()
    network[2].bias -= torch.tensor([literal_guess(network, row.numpy()) for row in ANSWERS]).median()
    found = mislead(network, ANSWERS, iterations=300)
    before, after = ([literal_guess(network, row.numpy()) for row in scores] for scores in (ANSWERS, found))
    changed = (found != ANSWERS).any(1)
    assert changed.double().mean() > 0.9
    for was, now, misled in zip(before, after, changed.tolist(), strict=True):
        assert was * now <= 0 if misled else was == now
    assert torch.equal(found.argmax(1), ANSWERS.argmax(1))
    assert torch.allclose(found.exp().sum(1), torch.ones(120, dtype=torch.float64))


def test_a_step_that_names_another_class_is_not_the_end() -> None:
    """What h asks for is that two classes be as probable, and the steps are longer than what parts them then."""
    network = nn.Sequential(nn.Linear(4, 1)).double().requires_grad_(False)
    network[0].weight.copy_(torch.tensor([[0.0, 0.0, -1.0, 1.0]]))
    network[0].bias.fill_(-0.05)
    found = mislead(network, ANSWERS, iterations=300)
    assert (found != ANSWERS).any(1).double().mean() > 0.5
    assert torch.equal(found.argmax(1), ANSWERS.argmax(1))


def test_heavier_weights_bring_the_noise_nearer(monkeypatch: pytest.MonkeyPatch) -> None:
    network = copy.deepcopy(with_epsilon(1.0).network).double()
    whole = mislead(network, ANSWERS, iterations=300)
    monkeypatch.setattr("sfumato.defenses.memguard._LADDER", (0.1,))
    first = mislead(network, ANSWERS, iterations=300)
    near, far = ((scores.exp() - ANSWERS.exp()).abs().sum(1) for scores in (whole, first))
    assert near.mean() < far.mean()
    assert (near < far - 0.01).any()
    assert (near <= far + 0.05).all()


def test_what_h_cannot_tell_is_left_as_it_is() -> None:
    network = classifier()
    network[2].weight *= 0
    network[2].bias *= 0
    assert torch.equal(mislead(network, ANSWERS, iterations=10), ANSWERS)


def test_what_cannot_be_found_is_left_as_it_is() -> None:
    network = classifier()
    network[2].bias += 1e6
    assert torch.equal(mislead(network, ANSWERS, iterations=10), ANSWERS)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.3, 2.0])
def test_the_noise_is_added_as_often_as_the_budget_lets_it(epsilon: float) -> None:
    defense = with_epsilon(epsilon)
    network = copy.deepcopy(defense.network).double()
    noisy = mislead(network, ANSWERS.log_softmax(1), iterations=300)  # as released: they differ in the last bit
    distortion = (noisy.exp() - ANSWERS.exp()).abs().sum(1)
    released = defense.release(ANSWERS)
    added = (released - noisy).abs().amax(1) < 1e-9
    plain = (released - ANSWERS).abs().amax(1) < 1e-9
    assert (added | plain).all()
    before, after = ((network(s.exp().sort(1).values)[:, 0].sigmoid() - 0.5).abs() for s in (ANSWERS, noisy))
    helps = after < before
    assert not (added & ~helps & ~plain).any()
    chance = torch.where(helps, (epsilon / distortion.clamp(min=1e-300)).clamp(max=1), 0.0)
    assert added[chance == 1].all()
    expected, spread = chance.sum(), (chance * (1 - chance)).sum().sqrt()
    assert abs((added & ~plain).sum() - expected) <= 4 * spread + 1e-9
    if epsilon:
        assert (added & ~plain).any()
    if 0 < epsilon < 0.2:
        assert spread > 1, "the coin had something to say"


@pytest.mark.parametrize("scale", [1e-6, 1.0, 30.0, 1000.0])
def test_the_label_stays_and_every_number_is_finite(scale: float) -> None:
    logits = (torch.randn(60, 4, generator=torch.Generator().manual_seed(0)) * scale).requires_grad_()
    released = with_epsilon(2.0).release(logits)
    assert released.dtype == torch.float32
    assert released.isfinite().all()
    assert torch.equal(released.argmax(1), logits.argmax(1))


def test_asking_again_alone_or_among_others_gets_the_same_answer() -> None:
    defense, logits = with_epsilon(0.3), ANSWERS[:12].float()
    released = defense.release(logits)
    assert torch.equal(defense.release(logits), released)
    for number, row in enumerate(logits):
        assert torch.equal(defense.release(row[None])[0], released[number])


def test_a_bit_more_or_less_changes_the_answer_by_no_more() -> None:
    """What a GPU or a batch of another size rounds otherwise must not be seen: noise drawn anew would average out."""
    defense = with_epsilon(2.0)
    assert torch.allclose(defense.release(ANSWERS + 1e-6 * ANSWERS.roll(1, 0)), defense.release(ANSWERS), atol=1e-3)


def test_it_answers_where_no_gradient_is_kept() -> None:
    defense, logits = with_epsilon(2.0), ANSWERS[:20].float()
    with torch.inference_mode():
        kept = defense.release(logits * 1)
    with torch.no_grad():
        assert torch.equal(defense.release(logits), kept)


def test_the_logits_tell_no_more_than_the_posteriors() -> None:
    defense = with_epsilon(0.3)
    assert torch.allclose(defense.release(ANSWERS + 7), defense.release(ANSWERS))
    fresh = MemGuard()
    fresh.prepare(dense_net(), noisy_labels())
    assert torch.allclose(fresh.release(ANSWERS + 7), ANSWERS), "without noise before it has learned"


def told(target: sf.Target, network: nn.Module) -> float:
    """The area under the ROC curve of the adversary who asks h."""
    with torch.no_grad():
        member, other = (network(asked(target, part)[0].softmax(1).sort(1).values)[:, 0].tolist() for part in ("private", "test"))
    pairs = [1.0 if m > o else 0.5 if m == o else 0.0 for m in member for o in other]
    return sum(pairs) / len(pairs)


def test_an_adversary_of_its_kind_is_misled_and_the_gap_shrinks() -> None:
    network = next(iter(guarded().defense)).network
    hidden = copy.deepcopy(guarded())
    next(iter(hidden.defense)).epsilon = 2.0
    assert told(guarded(), network) > 0.65
    assert told(hidden, network) < 0.5
    assert gap(hidden) < gap(undefended()) - 0.05
    assert torch.equal(asked(hidden, "test")[0].argmax(1), asked(undefended(), "test")[0].argmax(1))


def test_the_loop_leaves_h_alone() -> None:
    target = assemble(dense_net(), noisy_labels(), [MemGuard()], seed=0)
    assert list(target.defense.learned()) == []  # type: ignore[union-attr]
    assert not any(parameter.requires_grad for parameter in target.defense.parameters())


@pytest.mark.parametrize("finetune", [0, 1])
def test_h_learns_from_the_finished_model(finetune: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    original = MemGuard._teach

    def teach(self: MemGuard, model: sf.Split) -> None:
        seen.append(next(model.parameters()).clone())
        original(self, model)

    monkeypatch.setattr(MemGuard, "_teach", teach)
    target = trained(MemGuard(epochs=1), train=dataclasses.replace(TRAIN, epochs=1, finetune=finetune))
    assert len(seen) == 1 + finetune
    assert torch.equal(seen[-1], next(target.split.parameters()))
    assert bool(next(iter(target.defense)).fitted)


def test_h_learns_from_members_and_others_alike() -> None:
    """A model that answers with its picture: members are dark and others bright, in numbers that differ."""
    x = torch.zeros(100, 2, 1, 1)
    x[:, 0] = torch.linspace(0, 1, 100)[:, None, None]
    pictures = sf.load_data((x, torch.arange(100) % 2)).part("train")
    few, many = pictures.subset(torch.arange(10)), pictures.subset(torch.arange(20, 80))
    defense = MemGuard(epochs=200)
    split = sf.Split(nn.Identity(), nn.Sequential(nn.Flatten(), nn.Linear(2, 2)))
    with torch.no_grad():
        split.tail[1].weight.copy_(5 * torch.eye(2))
        data = noisy_labels().with_parts(private=few, reference=many)
        defense.prepare(split, dataclasses.replace(data, classes=("0", "1")))
        defense.begin(data)
        defense.finish(split)
        guesses = [defense.network(split(side.read(torch.arange(10)) / 255).softmax(1).sort(1).values) for side in (few, many)]
    assert guesses[0].min() > 0 > guesses[1].max()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilon": -0.1}, "epsilon must be >= 0 and finite"),
        ({"epsilon": math.nan}, "epsilon must be >= 0 and finite"),
        ({"epochs": 0}, "epochs and iterations must be at least 1"),
        ({"iterations": 0}, "epochs and iterations must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be > 0 and finite"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MemGuard(**arguments)


def test_data_without_reference_is_refused(small_split: sf.Split, blobs: sf.Data) -> None:
    with pytest.raises(ConfigError, match=r"memguard needs .* set reference = 0.2 under \[data\]"):
        MemGuard().prepare(small_split, blobs)


@pytest.mark.gpu
def test_it_learns_and_answers_on_cuda_as_on_the_cpu() -> None:
    settings = dataclasses.replace(TRAIN, epochs=5, finetune=2)
    target = sf.harden(dense_net().to("cuda"), noisy_labels(), defenses=[MemGuard(epsilon=0.3, epochs=5)], train=settings)
    assert next(iter(target.defense)).fitted.device.type == "cuda"
    logits = ANSWERS.float()
    on_cuda = target.defense.release(logits.cuda()).cpu()  # type: ignore[union-attr]
    assert torch.allclose(on_cuda, target.cpu().defense.release(logits), atol=1e-3)  # type: ignore[union-attr]
