# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sfumato as sf
from sfumato.data.base import REGION, Data, Reading
from sfumato.data.canvas import Canvas, Frame
from sfumato.data.driver import PERSONS, persons
from sfumato.data.plate import draw_plate
from sfumato.data.streamed import StreamedPictures
from sfumato.data.synthetic import Street, region, render
from sfumato.errors import ConfigError
from sfumato.seeds import ambient, generator

SMALL = Street(identities=6, test_identities=4, cameras=3, drivers=4, size=24)


@pytest.fixture(scope="module")
def street() -> Data:
    return Street().load(Reading())


def pixels(data: Data, part: str = "train") -> torch.Tensor:
    return data.part(part).read(torch.arange(len(data.part(part))))


def test_the_same_seed_draws_the_same_bytes() -> None:
    first, again, other = (SMALL.load(Reading()), SMALL.load(Reading()), replace(SMALL, seed=1).load(Reading()))
    for part in ("train", "test", "query", "gallery"):
        assert first.part(part).fingerprint == again.part(part).fingerprint
        assert first.part(part).fingerprint != other.part(part).fingerprint


def test_a_small_budget_streams_the_same_bytes() -> None:
    resident, streamed = SMALL.load(Reading()), SMALL.load(Reading(budget=4000))
    assert isinstance(streamed.part("query"), StreamedPictures)
    assert streamed.part("train").fingerprint == resident.part("train").fingerprint
    assert streamed.part("query").fingerprint == resident.part("query").fingerprint


def test_pictures_stay_the_same_when_there_are_more_of_them() -> None:
    few, many = SMALL.load(Reading()), replace(SMALL, identities=9, test_identities=5, cameras=4).load(Reading())
    for part in ("train", "test"):
        index = ((many.part(part).tags["camera"] < 3).nonzero()[:, 0])[: len(few.part(part))]
        assert torch.equal(many.part(part).read(index), pixels(few, part))
        assert torch.equal(many.part(part).tags["driver"][index], few.part(part).tags["driver"])


def test_every_picture_has_its_place_in_the_protocol(street: Data) -> None:
    sizes = {name: len(part) for name, part in street.parts.items()}
    assert sizes == {"train": 512, "test": 256, "query": 128, "gallery": 128}
    assert street.task == "reidentification"
    assert street.shape == (3, 64, 64)
    assert len(street.classes) == len(set(street.classes)) == 64
    assert street.part("train").labels.bincount().tolist() == [8] * 64
    assert set(street.part("test").labels.tolist()) == set(range(64, 96))
    query, gallery = street.part("query"), street.part("gallery")
    asked = list(zip(query.labels.tolist(), query.tags["camera"].tolist(), strict=True))
    assert len(set(asked)) == len(asked) == 32 * 4
    for label, camera in asked:
        assert ((gallery.labels == label) & (gallery.tags["camera"] != camera)).any()


def test_query_and_gallery_are_the_test_part_in_two(street: Data) -> None:
    both = torch.cat([pixels(street, "query"), pixels(street, "gallery")]).flatten(1)
    assert {bytes(row.numpy()) for row in both} == {bytes(row.numpy()) for row in pixels(street, "test").flatten(1)}


def test_no_two_vehicles_look_alike() -> None:
    chosen = Street(identities=200)
    scenes = chosen.scenes("train")
    alike, different = scenes.at(torch.zeros(200, dtype=torch.int64)), scenes.at(torch.arange(0, 1600, 8))
    drawn = render(replace(alike, vehicles=different.vehicles), chosen.streets())
    assert len({bytes(row.numpy()) for row in drawn}) == 200


def spread(others: torch.Tensor, drivers: torch.Tensor, count: int) -> float:
    """Return how much more often than the rarest the most frequent driver comes, at worst, with the same value of another tag."""
    rows = others - others.min()
    table = torch.zeros(int(rows.max()) + 1, count).index_put((rows, drivers), torch.tensor(1.0), accumulate=True)
    return (table.amax(dim=1) - table.amin(dim=1)).max().item()


@pytest.mark.parametrize(("part", "least"), [("train", 0), ("test", 0), ("query", 1), ("gallery", 1)])
def test_who_drives_says_nothing_of_vehicle_and_camera(street: Data, part: str, least: int) -> None:
    tags, labels = street.part(part).tags, street.part(part).labels
    assert spread(tags["camera"], tags["driver"], 8) == 0
    assert spread(labels, tags["driver"], 8) == least  # query and gallery have 4 pictures of each vehicle, for 8 drivers


def test_numbers_that_do_not_divide_are_balanced_within_one() -> None:
    scenes = Street(identities=10, cameras=3, per_camera=3, drivers=4).scenes("train")
    assert spread(scenes.identity, scenes.person, 4) == 1


def test_who_drives_is_drawn_anew_for_other_vehicles() -> None:
    orders = Street(identities=32).scenes("train").person.view(4, 8, 8)
    assert not any(torch.equal(orders[first], orders[second]) for first in range(4) for second in range(first))


@pytest.mark.parametrize("size", [16, 37, 64, 256])
def test_the_driver_changes_pixels_of_the_region_only(size: int) -> None:
    chosen = Street(identities=8, drivers=16, size=size)
    scenes, streets = chosen.scenes("train"), chosen.streets()
    others = replace(scenes, drivers=scenes.at(torch.arange(len(scenes.person)).roll(1)).drivers)
    changed = (render(scenes, streets) != render(others, streets)).any(dim=1)
    sides, inside = region(scenes, size), torch.zeros_like(changed)
    for row, (top, left, bottom, right) in enumerate(sides.tolist()):
        inside[row, top:bottom, left:right] = True
    assert not (changed & ~inside).any()
    assert (changed & inside).flatten(1).any(dim=1).float().mean() > 0.9
    assert changed.sum() > 0.1 * inside.sum()


def test_the_region_is_as_large_as_a_face_needs(street: Data) -> None:
    tags = street.part("train").tags
    top, left, bottom, right = (tags[name] for name in REGION)
    assert (bottom - top).min() >= 12
    assert (right - left).min() >= 24
    assert top.min() >= 0
    assert max(bottom.max(), right.max()) <= 64
    assert ((bottom - top) * (right - left)).max() < 64 * 64 / 3


@pytest.mark.parametrize("size", [16, 33, 96])
def test_every_size(size: int) -> None:
    data = replace(SMALL, size=size).load(Reading())
    assert data.shape == (3, size, size)
    assert pixels(data).float().std() > 20


def test_a_larger_picture_shows_the_same() -> None:
    small, large = (pixels(replace(SMALL, size=size).load(Reading())).float() for size in (64, 128))
    assert (F.avg_pool2d(large, 2) - small).abs().mean() < 4


def test_drivers_are_different_persons() -> None:
    chosen = persons(PERSONS, generator(0, "persons"))
    assert len({tuple(row) for row in chosen.tolist()}) == PERSONS
    assert torch.equal(persons(8, generator(0, "persons")), chosen[:8])
    differing = (chosen[:8, None] != chosen[:8]).sum(dim=2) + 5 * torch.eye(8, dtype=torch.int64)
    assert differing.min() >= 3


def test_a_plate_can_be_read() -> None:
    frame = Frame(torch.eye(2)[None] * 4, torch.full((1, 2), 0.5))
    canvas = Canvas.whole(torch.zeros(1, 3, 256, 256), frame)
    draw_plate(canvas, torch.tensor([[1, 7, 0, 4, 2]]), torch.zeros(1))
    dot = 0.238 / 21 * 4 * 256
    places = ((torch.arange(21) - 10) * dot + 128).long(), ((torch.arange(7) - 3) * dot + 128).long()
    ink = canvas.pixels[0, 0][places[1]][:, places[0]] < 0.5
    rows = ["".join("#" if dark else "." for dark in row) for row in ink.tolist()]
    assert rows == [
        ".....................",
        "..#..###.###.#.#.###.",
        ".##....#.#.#.#.#...#.",
        "..#....#.#.#.###.###.",
        "..#....#.#.#...#.#...",
        ".###...#.###...#.###.",
        ".....................",
    ]


def crops(data: Data, part: str) -> torch.Tensor:
    x, tags = pixels(data, part) / 255, data.part(part).tags
    boxes = torch.stack([tags[name] for name in REGION], dim=1).tolist()
    shown = [picture[None, :, top:bottom, left:right] for picture, (top, left, bottom, right) in zip(x, boxes, strict=True)]
    return torch.cat([F.interpolate(window, size=(16, 32)) for window in shown])


def test_a_small_net_names_the_driver_in_vehicles_that_it_never_saw(street: Data) -> None:
    x, y = crops(street, "train"), street.part("train").tags["driver"]
    with ambient(0, "net"):
        net = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveMaxPool2d(4)),
            *(nn.Flatten(), nn.Linear(512, 8)),
        )
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    for epoch in range(8):
        for index in torch.randperm(len(x), generator=generator(0, "order", epoch)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(net(x[index]), y[index]).backward()
            optimizer.step()
    with torch.no_grad():
        named = net.eval()(crops(street, "test")).argmax(dim=1)
    assert (named == street.part("test").tags["driver"]).float().mean() > 0.9


def test_load_data_gives_size_and_seed() -> None:
    data = sf.load_data("street", size=16, seed=3)
    assert data.shape == (3, 16, 16)
    assert data.part("train").fingerprint == Street(size=16, seed=3).load(Reading()).part("train").fingerprint
    assert len(data.part("inference")) == len(data.part("test"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 15}, "size must be from 16 to 256, got 15"),
        ({"size": 257}, "size must be from 16 to 256, got 257"),
        ({"per_camera": 1}, "per_camera must be at least 2, got 1"),
        ({"cameras": 1}, "cameras must be at least 2, got 1"),
        ({"identities": 1}, "identities must be at least 2, got 1"),
        ({"test_identities": 0}, "test_identities must be at least 2, got 0"),
        ({"drivers": 1000}, f"drivers must be from 2 to {PERSONS}, got 1000"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Street(**arguments)
