# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor

import sfumato as sf
from sfumato.errors import ConfigError, ConflictError
from sfumato.train import assemble, fit
from sfumato.types import Plan, Step


class Shrink(sf.Defense):
    """A penalty on the size of z, with a parameter of its own."""

    name = "shrink"

    def __init__(self, weight: float = 0.1) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(weight))

    def penalty(self, step: Step) -> Tensor:
        return self.weight * step.z.square().mean()


class Smooth(sf.Defense):
    """A task loss of its own, and rounding of the answer."""

    name = "smooth"

    def criterion(self, step: Step) -> Tensor:
        return torch.nn.functional.cross_entropy(step.logits, step.y, label_smoothing=0.1)

    def release(self, logits: Tensor) -> Tensor:
        return logits.round(decimals=1)


class Phased(sf.Defense):
    """A method of two updates a batch that notes them."""

    name = "phased"
    phases = ("first", "second")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def after_step(self, step: Step) -> None:
        self.seen.append(step.phase)


class Veil(sf.Defense):
    """Pictures that are darker, each by another amount."""

    name = "veil"

    def __init__(self, depth: float = 0.5) -> None:
        super().__init__()
        self.depth, self.calls = depth, 0

    def perturb(self, x: Tensor, generator: torch.Generator) -> Tensor:
        self.calls += 1
        return x * (1 - self.depth * torch.rand(len(x), 1, 1, 1, generator=generator))


PARTS = [sf.Noise(sigma=0.1), sf.Dropout(p=0.2), sf.Bottleneck(channels=2), Shrink(), Smooth(), Veil()]


def weights(split: sf.Split, data: sf.Data, *defenses: sf.Defense) -> dict[str, Tensor]:
    hardened = sf.harden(split, data, defenses=list(defenses), epochs=1, seed=3)
    return {name: value for name, value in hardened.state_dict().items() if name.startswith("split.")}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_empty_composition_trains_as_no_defense(small_split: sf.Split, blobs: sf.Data) -> None:
    assert equal(weights(small_split, blobs), weights(small_split, blobs, sf.Compose()))


def test_empty_composition_trains_as_the_plainest_loop(small_split: sf.Split, blobs: sf.Data) -> None:
    """The loop, written by hand without any hook, reaches the same bits."""
    from sfumato.data.loader import batches, shuffled
    from sfumato.seeds import ambient, generator

    settings = sf.Train(epochs=2)
    target = assemble(small_split, blobs, [], seed=3)
    fit(target, blobs, settings, seed=3)
    plain = copy.deepcopy(small_split).train().to(memory_format=torch.channels_last)
    optimizer = settings.optimizer.build(plain.parameters())
    pictures = blobs.part("private")
    for epoch in range(2):
        order = shuffled(len(pictures), generator(3, "order", epoch))
        steps = -(-len(order) // settings.batch_size)
        with ambient(3, "epoch", epoch, 0):
            for index, (x, y) in enumerate(batches(pictures, size=settings.batch_size, device="cpu", order=order)):
                optimizer.param_groups[0]["lr"] = settings.learning_rate(epoch + (index + 1) / (steps + 1))
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(plain(x.contiguous(memory_format=torch.channels_last)), y).backward()
                optimizer.step()
    assert equal(dict(target.split.state_dict()), dict(plain.state_dict()))


@pytest.mark.parametrize("part", PARTS, ids=repr)
def test_one_defense_equals_itself_composed(part: sf.Defense, small_split: sf.Split, blobs: sf.Data) -> None:
    assert equal(weights(small_split, blobs, part), weights(small_split, blobs, sf.Compose(part)))


def test_composition_is_associative(small_split: sf.Split, blobs: sf.Data) -> None:
    a, b, c, d = sf.Noise(sigma=0.1), sf.Dropout(p=0.2), Shrink(), Veil()
    left, right = sf.Compose(sf.Compose(a, d, b), c), sf.Compose(a, sf.Compose(d, sf.Compose(b, c)))
    assert list(left.parts) == list(right.parts) == ["noise", "veil", "dropout", "shrink"]
    assert equal(weights(small_split, blobs, left), weights(small_split, blobs, right))


def test_protect_folds_from_left_to_right() -> None:
    z = torch.ones(4, 3)
    a, b = sf.Noise(sigma=0.1), sf.Dropout(p=0.5)
    together = sf.Compose(a, b).protect(z, torch.Generator().manual_seed(0))
    stream = torch.Generator().manual_seed(0)
    assert torch.equal(together, b.protect(a.protect(z, stream), stream))


def test_perturb_folds_from_left_to_right() -> None:
    class Negative(sf.Defense):
        name = "negative"

        def perturb(self, x: Tensor, generator: torch.Generator) -> Tensor:
            return 1 - x

    x, a, b = torch.rand(4, 1, 2, 2), Veil(), Negative()
    together = sf.Compose(a, b).perturb(x, torch.Generator().manual_seed(0))
    assert torch.equal(together, 1 - a.perturb(x, torch.Generator().manual_seed(0)))
    assert sf.Compose().perturb(x, torch.Generator()) is x


def test_what_perturb_draws_moves_no_other_draw(small_split: sf.Split, blobs: sf.Data) -> None:
    others = [sf.Noise(sigma=0.1), sf.Dropout(p=0.2)]
    drawing = weights(small_split, blobs, *others, Veil(0.0))
    assert equal(weights(small_split, blobs, *others), drawing)
    assert not equal(weights(small_split, blobs, *others, Veil()), drawing)


def test_pictures_are_perturbed_once_a_batch_and_never_in_deployment(small_split: sf.Split, blobs: sf.Data) -> None:
    target = assemble(small_split, blobs, [Veil(), Phased()], seed=0)
    fit(target, blobs, sf.Train(epochs=1, batch_size=96), seed=0)
    veil, _ = target.defense
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(target(x), target.split(x))
    assert veil.calls == 2


def test_a_checkpoint_does_not_depend_on_the_order_of_the_parts() -> None:
    first, second = sf.Compose(Shrink(0.1), sf.Noise(sigma=0.1)), sf.Compose(sf.Noise(sigma=0.1), Shrink(0.7))
    second.load_state_dict(first.state_dict())
    assert [part.weight.item() for part in second if isinstance(part, Shrink)] == pytest.approx([0.1])


def test_two_parts_of_a_name_are_refused() -> None:
    with pytest.raises(ConflictError, match=r"two defenses named 'noise': Noise\(sigma=0.1.*Noise\(sigma=0.2"):
        sf.Compose(sf.Noise(sigma=0.1), sf.Compose(sf.Noise(sigma=0.2)))


def test_what_is_no_defense_is_refused(small_split: sf.Split, blobs: sf.Data) -> None:
    with pytest.raises(ConfigError, match=r"a defense is an object such as Noise\(sigma=0.1\), got 'noise'"):
        sf.harden(small_split, blobs, defenses=["noise"])


def test_two_owners_of_the_task_loss_are_refused() -> None:
    class Other(Smooth):
        name = "other"

    with pytest.raises(ConflictError, match="at most one defense may replace the task loss"):
        sf.Compose(Smooth(), Other())


def test_two_owners_of_the_gradient_are_refused() -> None:
    class Steps(sf.Defense):
        name = "steps"

        def optimize(self, optimizer: torch.optim.Optimizer, model: sf.Split, plan: Plan) -> torch.optim.Optimizer:
            return optimizer

    class Other(Steps):
        name = "other"

    assert sf.Compose(Steps(), sf.Noise(sigma=0.1)).owns_gradient
    assert not sf.Compose(sf.Noise(sigma=0.1)).owns_gradient
    with pytest.raises(ConflictError, match=r"at most one defense may replace the gradient, found Steps\(\) and Other\(\)"):
        sf.Compose(Steps(), Other())


def test_only_what_sees_each_picture_by_itself_is_separable() -> None:
    assert sf.Compose(sf.Noise(sigma=0.1), sf.Dropout(p=0.1), sf.Bottleneck()).separable
    for part in (sf.DistCorr(weight=0.5), sf.ResSFL(), Smooth(), Phased(), Veil()):
        assert not part.separable
        assert not sf.Compose(sf.Noise(sigma=0.1), part).separable


def test_phases_make_an_update_each_and_the_others_take_part_in_all(small_split: sf.Split, blobs: sf.Data) -> None:
    class Always(Phased):
        name = "always"
        phases = ()

    target = assemble(small_split, blobs, [Phased(), Always()], seed=0)
    fit(target, blobs, sf.Train(epochs=1, batch_size=96), seed=0)
    phased, always = target.defense
    assert phased.seen == always.seen == ["first", "second"] * 2


def test_release_acts_in_deployment_only(small_split: sf.Split, blobs: sf.Data) -> None:
    hardened = sf.harden(small_split, blobs, defenses=[Smooth()], epochs=1)
    logits = hardened(torch.rand(4, 1, 8, 8))
    assert torch.equal(logits, logits.round(decimals=1))


@pytest.mark.parametrize(
    "pair",
    list(itertools.permutations(PARTS[:3], 2)),
    ids=lambda pair: "+".join(part.name for part in pair),
)
def test_every_pair_trains_and_deploys(pair: tuple[sf.Defense, ...], small_split: sf.Split, blobs: sf.Data) -> None:
    hardened = sf.harden(small_split, blobs, defenses=list(pair), epochs=1)
    assert hardened(torch.rand(2, 1, 8, 8)).shape == (2, 2)
