# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sfumato.data.base import Reading
from sfumato.data.portrait import FACTORS, NOISE, NUISANCES, Stroke, draw_portraits
from sfumato.data.portraits import SCALE, Portraits
from sfumato.errors import ConfigError

SMALL = Portraits(identities=5, per_identity=6, size=16)


def pixels(source: Portraits, part: str = "train") -> Tensor:
    pictures = source.load(Reading()).part(part)
    return pictures.read(torch.arange(len(pictures)))


def calm(factors: Tensor, size: int = 32) -> Tensor:
    """Draw faces without nuisances or noise, as float."""
    count = len(factors)
    drawn = draw_portraits(factors, torch.full((count, NUISANCES), 0.5), torch.full((count, 3, size, size), 0.5))
    return drawn.float()


@pytest.mark.parametrize("name", FACTORS)
@pytest.mark.parametrize("others", [0.3, 0.7])
def test_every_factor_changes_what_is_seen(name: str, others: float) -> None:
    factors = torch.full((3, len(FACTORS)), others)
    factors[:, FACTORS.index(name)] = torch.tensor([0.0, 0.5, 1.0])
    low, middle, high = calm(factors)
    for one, other in ((low, middle), (middle, high), (low, high)):
        assert int(((one - other).abs().amax(dim=0) >= 12).sum()) >= 4
    assert int(((low - high).abs().amax(dim=0) >= 25).sum()) >= 8


@pytest.mark.parametrize("number", range(NUISANCES))
def test_every_nuisance_changes_a_pixel(number: int) -> None:
    nuisances = torch.full((2, NUISANCES), 0.35)  # in the middle the wall is as gray as what hangs on it
    nuisances[1, number] = 1.0
    one, other = draw_portraits(torch.full((2, len(FACTORS)), 0.4), nuisances, torch.full((2, 3, 48, 48), 0.5)).int()
    assert int((one - other).abs().max()) >= 5


def test_noise_reaches_as_far_as_it_says() -> None:
    factors, nuisances = torch.full((2, len(FACTORS)), 0.5), torch.full((2, NUISANCES), 0.5)
    noise = torch.stack([torch.full((3, 16, 16), 0.5), torch.ones(3, 16, 16)])
    still, moved = draw_portraits(factors, nuisances, noise).int()
    inside = moved < 255
    assert bool(((moved - still)[inside] - 255 * NOISE).abs().max() <= 1)


@pytest.mark.parametrize("size", [16, 32, 128])
def test_sizes_show_the_same(size: int) -> None:
    face = calm(torch.full((1, len(FACTORS)), 0.5), size)
    coarse = torch.nn.functional.adaptive_avg_pool2d(face, 8)
    reference = torch.nn.functional.adaptive_avg_pool2d(calm(torch.full((1, len(FACTORS)), 0.5), 64), 8)
    assert float((coarse - reference).abs().mean()) < 5


def test_a_face_does_not_depend_on_the_others_in_its_batch() -> None:
    stream = torch.Generator().manual_seed(0)
    factors, nuisances = (torch.rand(6, width, generator=stream) for width in (len(FACTORS), NUISANCES))
    noise = torch.rand(6, 3, 16, 16, generator=stream)
    together = draw_portraits(factors, nuisances, noise)
    alone = torch.cat([draw_portraits(factors[one], nuisances[one], noise[one]) for one in torch.arange(6).split(1)])
    assert torch.equal(together, alone)


def test_parts_and_tags() -> None:
    data = SMALL.load(Reading())
    assert (data.name, data.shape, data.classes[4]) == ("portraits", (3, 16, 16), "identity 4")
    assert [part.labels.bincount().tolist() for part in data.parts.values()] == [[5] * 5, [1] * 5]
    factors = SMALL.factors()
    for part in data.parts.values():
        told = torch.stack([part.tags[f"factor-{name}"] for name in FACTORS], dim=1)
        assert torch.equal(told, (factors * SCALE).round().long()[part.labels])
        assert 0 <= int(told.min()) <= int(told.max()) <= SCALE
    assert len(factors.unique(dim=0)) == 5


@pytest.mark.parametrize(("share", "held_out"), [(0.01, 1), (0.34, 2), (0.5, 3), (0.99, 5)])
def test_share_of_the_test(share: float, held_out: int) -> None:
    assert len(replace(SMALL, test_share=share).load(Reading()).part("test")) == 5 * held_out


def test_more_identities_and_pictures_change_none_of_those_there() -> None:
    few, many = pixels(SMALL).view(5, 5, -1), pixels(replace(SMALL, identities=7, per_identity=12)).view(7, 10, -1)
    assert torch.equal(few, many[:5, :5])


def test_every_picture_is_another_and_so_is_every_seed() -> None:
    both = torch.cat([pixels(SMALL), pixels(SMALL, "test"), pixels(replace(SMALL, seed=1))])
    assert len(both.flatten(1).unique(dim=0)) == len(both)
    assert torch.equal(pixels(SMALL), pixels(SMALL))


def test_a_small_budget_streams_the_same() -> None:
    streamed = SMALL.load(Reading(budget=1000)).part("train")
    assert streamed.fingerprint == SMALL.load(Reading()).part("train").fingerprint


@pytest.mark.parametrize(
    "wrong", [{"identities": 1}, {"per_identity": 1}, {"size": 15}, {"size": 129}, {"test_share": 0.0}, {"test_share": 1.0}]
)
def test_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"portraits: {next(iter(wrong))} must be"):
        Portraits(**wrong)  # type: ignore[arg-type]


def test_a_stroke_against_numpy() -> None:
    stroke = Stroke(x=0.0, y=0.0, width=0.5, height=0.1, tilt=0.3, bend=-2.0)
    places = np.linspace(-1, 1, 9, dtype=np.float32)
    x, y = (torch.from_numpy(part)[None, None] for part in np.meshgrid(places, places))
    slow = [[max(abs(b - 0.3 * a + 2 * a * a) - 0.1 * (1 - 0.6 * (a / 0.5) ** 2), abs(a) - 0.5) for a in places] for b in places]
    np.testing.assert_allclose(stroke.distance(x, y)[0, 0].numpy(), np.array(slow), atol=1e-6)
    across, down = stroke.reach(torch.tensor([0.05]))
    inside = stroke.distance(x, y) < 0.05
    assert float(x[inside].abs().max()) <= float(across)
    assert float(y[inside].abs().max()) <= float(down)


def test_one_color_does_not_tell_who_it_is_but_the_face_does() -> None:
    """A center pixel names hardly anybody; 12 coarse pixels by color do better, which a nearest mean can use."""
    source = Portraits(identities=10, per_identity=20)
    train, test = pixels(source).float() / 255, pixels(source, "test").float() / 255
    y, y_test = torch.arange(10).repeat_interleave(16), torch.arange(10).repeat_interleave(4)
    shares = {}
    for name, cut in (("pixel", slice(16, 17)), ("face", slice(None))):
        means = torch.stack([train[y == who][:, :, cut, cut].mean(0) for who in range(10)])
        far = (test[:, None, :, cut, cut] - means).flatten(2).square().sum(2)
        shares[name] = float((far.argmin(1) == y_test).float().mean())
    assert shares["pixel"] < 0.5 < shares["face"]


@pytest.mark.slow
def test_a_small_network_learns_them_and_a_linear_one_much_less() -> None:
    source = Portraits(identities=40, per_identity=50)
    x, x_test = (pixels(source, part).float() / 255 for part in ("train", "test"))
    y, y_test = torch.arange(40).repeat_interleave(40), torch.arange(40).repeat_interleave(10)

    def block(ins: int, outs: int) -> list[nn.Module]:
        return [nn.Conv2d(ins, outs, 3, padding=1), nn.BatchNorm2d(outs), nn.ReLU(), nn.MaxPool2d(2)]

    def learned(model: nn.Sequential, epochs: int) -> float:
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        stream = torch.Generator().manual_seed(0)
        for _ in range(epochs):
            for rows in torch.randperm(len(x), generator=stream).split(32):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
                optimizer.step()
        model.eval()
        with torch.no_grad():
            return float((model(x_test).argmax(1) == y_test).float().mean())

    torch.manual_seed(0)
    network = learned(nn.Sequential(*block(3, 32), *block(32, 64), *block(64, 128), nn.Flatten(), nn.Linear(2048, 40)), 8)
    linear = learned(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 40)), 20)
    assert network >= 0.95
    assert linear <= network - 0.1
