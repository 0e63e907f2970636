# SPDX-License-Identifier: Apache-2.0
"""CEM in the training loop: what it adds to the loss, when, what it remembers, and what it refuses."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import sfumato as sf
from sfumato.analysis.clusters import ClassClusters, hinged_variance
from sfumato.analysis.mixture import Mixture, entropy_loss
from sfumato.data.base import Data
from sfumato.errors import ConfigError, DataError, RecipeError, TrainingError
from sfumato.recipe import parse_recipe
from sfumato.seeds import ambient
from sfumato.train import assemble, fit
from sfumato.types import Epoch, Step

MODES = [
    {"covariance": "full"},
    {"covariance": "shrunk"},
    {"covariance": "diagonal"},
    {"by_class": True},
    {"mode": "reference", "components_per_class": 2},
]


def defenses(**given: object) -> list[sf.Defense]:
    return [sf.Bottleneck(channels=2), sf.Noise(sigma=0.1), sf.CEM(**given)]  # type: ignore[arg-type]


def features(target: sf.Target, data: Data) -> Tensor:
    with torch.no_grad():
        return target.eval().split.head(data.part("test").read(torch.arange(40)) / 255).flatten(1)


def spread(target: sf.Target, data: Data) -> float:
    """How far features lie from the mean of their class."""
    z, y = features(target, data), data.part("test").labels[:40]
    return sum((z[y == c] - z[y == c].mean(0)).square().mean().item() for c in (0, 1))


@pytest.mark.parametrize("given", MODES, ids=str)
def test_features_draw_together(given: dict[str, object], small_split: sf.Split, blobs: Data) -> None:
    settings = sf.Train(epochs=6, batch_size=32)
    without, hardened = (
        sf.harden(small_split, blobs, defenses=[sf.Noise(sigma=0.1), sf.CEM(weight=weight, **given)], train=settings)  # type: ignore[arg-type]
        for weight in (0.0, 16.0)
    )
    assert spread(hardened, blobs) < 0.8 * spread(without, blobs)


@pytest.mark.parametrize("given", MODES, ids=str)
def test_a_run_that_is_interrupted_goes_on_to_the_same_bits(
    given: dict[str, object], small_split: sf.Split, blobs: Data, tmp_path: Path
) -> None:
    settings = sf.Train(epochs=3, batch_size=64)
    whole = assemble(small_split, blobs, defenses(**given), seed=0)
    fit(whole, blobs, settings, seed=0)
    path = tmp_path / "checkpoint.safetensors"
    broken = assemble(small_split, blobs, defenses(**given), seed=0)

    def interrupt(done: int, total: int) -> None:
        if done > 2 * total / 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(broken, blobs, settings, seed=0, checkpoint=path, watch=interrupt)
    again = assemble(small_split, blobs, defenses(**given), seed=0)
    fit(again, blobs, settings, seed=0, checkpoint=path)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items())


def test_a_deployed_target_carries_no_statistics(small_split: sf.Split, blobs: Data) -> None:
    hardened = sf.harden(small_split, blobs, defenses=defenses(), epochs=2)
    assert not any("cem" in name for name in hardened.state_dict())
    assert isinstance(hardened.defense, sf.Compose)
    assert hardened.defense.memory() == {}


def step(z: Tensor, y: Tensor, *, epoch: int = 1, rate: float = 0.05, index: int = 0) -> Step:
    return Step(
        x=z, y=y, z=z, protected=z, logits=z, model=nn.Identity(), epoch=epoch, index=index, learning_rate=rate,
        generator=torch.Generator(),
    )  # fmt: skip


def shown(cem: sf.CEM, z: Tensor, y: Tensor, *, epoch: int = 0, index: int = 0) -> Tensor | None:
    """What the loop does with a batch."""
    made = step(z, y, epoch=epoch, index=index)
    cem.before_step(made)
    return cem.penalty(made)


def epoch(number: int, z: Tensor, y: Tensor) -> Epoch:
    return Epoch(number=number, total=5, model=nn.Identity(), batches=lambda: iter([(z, z, y)]))


def begun(cem: sf.CEM, data: Data, sigma: float = 0.2) -> sf.CEM:
    cem.join(sf.Compose(sf.Noise(sigma=sigma), cem))
    cem.begin(data)
    return cem


def drawn(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    stream, y = torch.Generator().manual_seed(seed), torch.arange(count) % 2
    return torch.randn(count, 5, generator=stream) * (1 + y[:, None]) + 3 * y[:, None], y


def test_the_penalty_is_that_of_the_statistics_of_the_epoch_before(blobs: Data) -> None:
    cem = begun(sf.CEM(weight=3.0, components_per_class=1, by_class=True), blobs)
    z, y = drawn(240)
    for start in range(0, 240, 60):
        assert shown(cem, z[start : start + 60], y[start : start + 60], index=start) is None
    cem.end_epoch(epoch(0, z, y))
    own = [z[y == c].double() for c in (0, 1)]
    values, vectors = zip(*(torch.linalg.eigh(torch.cov(rows.T, correction=0)) for rows in own), strict=True)
    mixture = Mixture(
        torch.tensor([0.5, 0.5]).double(), torch.stack([rows.mean(0) for rows in own]), torch.stack(values), torch.stack(vectors)
    )
    fresh, labels = drawn(30, seed=1)
    expected = entropy_loss(mixture, fresh.double(), labels, noise_variance=0.2**2, total=192)
    whole = sf.CEM(weight=3.0, components_per_class=1, by_class=True, normalize=False)
    begun(whole, blobs).recall(cem.memory())
    for part, size in ((cem, 5), (whole, 1)):
        penalty = part.penalty(step(fresh, labels))
        assert penalty is not None
        assert penalty.item() == pytest.approx(3.0 * expected.item() / size, rel=1e-4)


@pytest.mark.parametrize(("rate", "factor"), [(0.05, 0.02), (4.1e-4, 0.001 / 4.1e-4), (4e-4, 1.0)])
def test_the_reference_weighs_by_the_learning_rate(rate: float, factor: float, blobs: Data) -> None:
    cem = begun(sf.CEM(weight=8.0, mode="reference", components_per_class=2), blobs)
    z, y = drawn(240)
    assert cem.penalty(step(z, y, epoch=0)) is None
    with ambient(0, "test"):
        cem.end_epoch(epoch(0, z, y))
    memory = cem.memory()
    clusters = ClassClusters(memory["means"], memory["weights"], memory["variances"], int(memory["pictures"]))
    expected = 8.0 * factor * hinged_variance(clusters, z[:50], y[:50], floor=0.125 * 0.2**2)
    penalty = cem.penalty(step(z[:50], y[:50], rate=rate))
    assert penalty is not None
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_statistics_follow_the_features(small_split: sf.Split, blobs: Data) -> None:
    """Warm-started: after features that moved, so have the means; a component that lost its rows got others."""
    cem = begun(sf.CEM(components_per_class=1), blobs)
    z, y = drawn(240)
    for number, rows in enumerate((z, z + 50, z + 50)):
        shown(cem, rows, y, epoch=number, index=number)
        with ambient(0, "test"):
            cem.end_epoch(epoch(number, rows, y))
    memory = cem.memory()
    assert memory["weights"].min() > 0.05
    assert torch.allclose((memory["weights"][:, None] * memory["means"]).sum(0), z.mean(0) + 50, atol=1e-2)


def test_a_batch_counts_once_however_many_updates_a_method_makes_of_it(blobs: Data) -> None:
    """A method with phases, as PATROL, shows each batch several times."""
    z, y = drawn(240)
    memories = []
    for times in (1, 3):
        cem = begun(sf.CEM(components_per_class=1, covariance="shrunk", by_class=True), blobs)
        for start in range(0, 240, 60):
            for _ in range(times):
                shown(cem, z[start : start + 60], y[start : start + 60], index=start)
        cem.end_epoch(epoch(0, z, y))
        memories.append(cem.memory())
    assert all(torch.equal(memories[0][name], memories[1][name]) for name in memories[0])


def test_a_second_run_counts_its_own_pictures(small_split: sf.Split, blobs: Data) -> None:
    few = blobs.with_parts(private=blobs.part("private").subset(torch.arange(40)))
    quick = sf.Train(epochs=2, batch_size=20)
    first = sf.harden(small_split, few, defenses=[sf.Noise(sigma=0.1), sf.CEM()], train=quick)
    again = sf.harden(first, blobs, train=quick)
    other = copy.deepcopy(first)
    other.defense = sf.Compose(sf.Noise(sigma=0.1), sf.CEM())
    assert all(
        torch.equal(value, sf.harden(other, blobs, train=quick).state_dict()[name]) for name, value in again.state_dict().items()
    )


def test_the_gradient_survives_mixed_precision(blobs: Data) -> None:
    cem = begun(sf.CEM(components_per_class=1), blobs)
    z, y = drawn(240)
    shown(cem, z, y)
    cem.end_epoch(epoch(0, z, y))
    slopes = []
    for dtype in (torch.float32, torch.bfloat16):
        x = z[:32].to(dtype).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            penalty = cem.penalty(step(x, y[:32]))
        assert penalty is not None
        assert penalty.dtype == torch.float32
        penalty.backward()
        assert x.grad is not None
        slopes.append(x.grad.float())
    assert (slopes[0] - slopes[1]).norm() < 0.05 * slopes[0].norm()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weight": -1.0}, "weight must be >= 0"),
        ({"weight": float("inf")}, "weight must be >= 0 and finite"),
        ({"mode": "papr"}, "did you mean 'paper'"),
        ({"covariance": "ful"}, "did you mean 'full'"),
        ({"components_per_class": -1}, "components_per_class must be at least 1"),
        ({"floor": -0.1}, "floor must be >= 0"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sf.CEM(**given)  # type: ignore[arg-type]


def test_without_noise_the_bound_is_infinite(small_split: sf.Split, blobs: Data) -> None:
    for parts in ([sf.CEM()], [sf.Noise(sigma=0.0), sf.CEM()]):
        with pytest.raises(ConfigError, match=r"the bound on I\(z; z_hat\) is infinite; add .* or give cem a floor"):
            assemble(small_split, blobs, parts, seed=0)
    assemble(small_split, blobs, [sf.CEM(floor=0.1)], seed=0)
    assemble(small_split, blobs, [sf.Compose(sf.CEM()), sf.Compose(sf.Noise(sigma=0.1))], seed=0)
    assemble(small_split, blobs, [sf.CEM(mode="reference")], seed=0)


def test_a_recipe_without_noise_is_refused_before_anything_is_read() -> None:
    text = 'data.name = "digits"\nmodel = { name = "vgg11", cut = "c2" }\ndefenses = [{ name = "cem" }]'
    with pytest.raises(RecipeError, match="defenses: cem needs noise on z"):
        parse_recipe(text)


def test_more_components_than_pictures_are_refused(small_split: sf.Split, blobs: Data) -> None:
    with pytest.raises(ConfigError, match=r"got 192 pictures for 242 components \(2 classes x 121\)"):
        sf.harden(small_split, blobs, defenses=defenses(components_per_class=121), epochs=1)


def test_a_class_without_pictures_is_named(small_split: sf.Split, blobs: Data) -> None:
    only = (blobs.part("train").labels == 0).nonzero()[:, 0]
    data = blobs.with_parts(private=blobs.part("train").subset(only))
    for given in ({"mode": "reference"}, {"by_class": True}):
        with pytest.raises(DataError, match=f"class '{blobs.classes[1]}' has 0 training pictures"):
            sf.harden(small_split, data, defenses=defenses(**given), epochs=1)
    sf.harden(small_split, data, defenses=defenses(), epochs=1)


class Head(nn.Module):
    """A head that says the same thing, or nothing that a number can hold."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :5] * self.scale * self.factor


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (0.0, "cem needs features that differ, found one z for every picture of a batch in epoch 0"),
        (float("nan"), "cem needs finite features, found z with NaN in epoch 0"),
        (1e38 * 1e3, "cem needs finite features, found z with NaN|infinite values in epoch 0"),
        (1e25, "the covariance of cem's component . is not finite, and so not positive definite, at the end of epoch 0"),
    ],
    ids=str,
)
def test_features_without_a_covariance_are_refused(factor: float, message: str, blobs: Data) -> None:
    class Tail(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 2)

        def forward(self, z: Tensor) -> Tensor:
            return self.layer(z.nan_to_num().clamp(-1, 1))

    target = assemble(sf.Split(Head(factor), Tail()), blobs, [sf.Noise(sigma=0.1), sf.CEM()], seed=0)
    with pytest.raises(TrainingError, match=message):
        fit(target, blobs, sf.Train(epochs=1), seed=0)


def test_covariances_that_do_not_fit_in_memory_are_refused(
    small_split: sf.Split, blobs: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfumato.defenses.statistics.LARGEST", 1000)
    with pytest.raises(ConfigError, match=r"for 6 covariances in 128 dimensions.*use covariance='diagonal'"):
        sf.harden(small_split, blobs, defenses=defenses(), epochs=1)
    sf.harden(small_split, blobs, defenses=defenses(covariance="diagonal"), epochs=1)


@pytest.mark.gpu
@pytest.mark.parametrize("given", MODES, ids=str)
def test_every_mode_runs_and_resumes_on_cuda(
    given: dict[str, object], small_split: sf.Split, blobs: Data, tmp_path: Path
) -> None:
    path, split = tmp_path / "checkpoint.safetensors", small_split.to("cuda")
    for epochs in (2, 3):
        target = assemble(split, blobs, defenses(**given), seed=0)
        fit(target, blobs, sf.Train(epochs=epochs, batch_size=64), seed=0, checkpoint=path, definition="the same")
    assert target.device.type == "cuda"
    assert all(bool(value.isfinite().all()) for value in target.state_dict().values())


def test_a_mixture_lies_in_memory_as_a_checkpoint_gives_it_back() -> None:
    """A decomposition gives columns: products with rows and with columns of the same numbers differ in the last bit."""
    z, y = torch.rand(60, 12, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 2
    cem = sf.CEM(components_per_class=1)
    cem.begin(sf.load_data((torch.rand(80, 1, 8, 8), torch.arange(80) % 2)))
    cem.before_step(step(z, y, epoch=0))
    cem.end_epoch(epoch(0, z, y))
    assert cem.memory()
    assert all(value.is_contiguous() for value in cem.memory().values())
