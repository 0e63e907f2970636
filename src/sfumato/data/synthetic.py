# SPDX-License-Identifier: Apache-2.0
"""A synthetic street: vehicles to find again, seen by several cameras, each with a driver who is nobody's business.

The vehicle is what a target is for, the driver behind the windscreen is private. Who drives is independent of the vehicle and of
the camera: every driver has the same share of the pictures of each, as nearly as the numbers allow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from sfumato import seeds
from sfumato.data.base import REGION, Data, Pictures, Reading
from sfumato.data.camera import CAMERA, SHOT, Shots, backgrounds, random_shots
from sfumato.data.canvas import Canvas, Panel
from sfumato.data.collect import Chunk, chunk_length, collect, remaining
from sfumato.data.driver import CLOTHES, PERSONS, Drivers, persons
from sfumato.data.source import Source
from sfumato.data.vehicle import VEHICLE, Vehicles, draw_vehicle, random_vehicles, seats, windscreen
from sfumato.errors import ConfigError
from sfumato.parallel import torch_threads
from sfumato.types import Pixels

_LEAST = {"identities": 2, "test_identities": 2, "cameras": 2, "per_camera": 2, "drivers": 2, "size": 16}
_MOST = {"drivers": PERSONS, "size": 256}


@dataclass(frozen=True)
class Scenes:
    """Everything that N pictures show.

    Args:
        vehicles: who is to be found again.
        drivers: who is private.
        shots: how the pictures were taken.
        identity: number of the vehicle, (N,), int64.
        person: number of the driver, (N,), int64.
        camera: number of the camera, (N,), int64.
    """

    vehicles: Vehicles
    drivers: Drivers
    shots: Shots
    identity: Tensor
    person: Tensor
    camera: Tensor

    def at(self, index: Tensor) -> Scenes:
        """Return the scenes at `index`, (n,), int64."""
        return _at(self, index)


def render(scenes: Scenes, streets: Tensor) -> Pixels:
    """Draw pictures.

    Args:
        scenes: N of them.
        streets: the background of each camera, (C, 3, size, size), float32, [0, 1].

    Returns:
        (N, 3, size, size), uint8; the same for a scene whichever others are drawn with it.
    """
    shots = scenes.shots
    canvas = Canvas.whole(streets[scenes.camera], shots.frame)
    draw_vehicle(canvas, scenes.vehicles, scenes.drivers, shots.view)
    place, lean, depth = shots.shadow.unbind(1)
    canvas.paint(Panel(x=place, y=0.0, width=0.16, height=2.0, lean=lean), (0.0, 0.0, 0.05), depth, soft=0.06)
    return (canvas.pixels * shots.gain[:, :, None, None] * 255 + 0.5).clamp(0, 255).to(torch.uint8)


def region(scenes: Scenes, size: int) -> Tensor:
    """Find the windscreens, outside of which no driver changes a pixel.

    Args:
        scenes: N of them.
        size: side of the pictures in pixels.

    Returns:
        (N, 4), int64, the sides in pixels in the order of `REGION`.
    """
    frame = scenes.shots.frame
    left, top, right, bottom = (frame.box(windscreen(scenes.vehicles), frame.unit().reciprocal() / size / 2) * size).unbind(1)
    sides = torch.stack([top.floor(), left.floor(), bottom.ceil(), right.ceil()], dim=1)
    return sides.clamp(0, size).long()


@dataclass(frozen=True, kw_only=True)
class Street(Source):
    """Rendered vehicles from the front, for re-identification, without a download.

    Every camera takes `per_camera` pictures of every vehicle. Parts are `train`, `test`, and of `test` the `query`, one picture
    of each vehicle by each camera, and the `gallery`, the others. Tags are "camera", "driver" and the windscreen as `REGION`.
    Pictures stay the same when there are more vehicles or cameras; who drives in them depends on `per_camera` and `drivers` too.

    Args:
        identities: vehicles to train on.
        test_identities: other vehicles, numbered after these.
        cameras: how many.
        per_camera: pictures of each vehicle by each camera, at least 2: one to ask about and one to search.
        drivers: different persons.
        size: side of the pictures in pixels, 16 to 256.
        seed: of everything.

    Raises:
        ConfigError: a number is out of range.

    Example:
        >>> data = Street(identities=4, test_identities=2, size=32).load(Reading())
        >>> len(data.part("train")), len(data.part("query")), data.shape
        (32, 8, (3, 32, 32))
    """

    identities: int = 64
    test_identities: int = 32
    cameras: int = 4
    per_camera: int = 2
    drivers: int = 8
    size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value, most = getattr(self, name), _MOST.get(name)
            if value < least or (most is not None and value > most):
                wanted = f"at least {least}" if most is None else f"from {least} to {most}"
                raise ConfigError(f"street: {name} must be {wanted}, got {value}")

    def load(self, reading: Reading) -> Data:
        """Draw the pictures.

        Raises:
            StorageError: the disk has not enough space for streamed pictures.
        """
        train = self._part("train", 0, reading)
        test = self._part("test", self.identities, remaining(reading, train))
        asked = torch.arange(len(test)) % self.per_camera == 0
        query, gallery = (test.subset(chosen.nonzero()[:, 0]) for chosen in (asked, ~asked))
        return Data(
            name="street",
            classes=tuple(f"vehicle {number}" for number in range(self.identities)),
            parts={"train": train, "test": test, "query": query, "gallery": gallery},
            task="reidentification",
        )

    def scenes(self, part: Literal["train", "test"]) -> Scenes:
        """Decide what the pictures of a part show, vehicle by vehicle and camera by camera."""
        count = self.identities if part == "train" else self.test_identities
        ranges = (torch.arange(length) for length in (count, self.cameras, self.per_camera))
        taken = torch.cartesian_prod(*ranges)
        identity, camera, turn = taken.unbind(1)
        uniform = self._uniform(SHOT + 1, part, "picture", keys=taken.tolist())
        shots = random_shots(self._cameras()[camera], uniform[:, :SHOT])
        distinct = self._uniform(VEHICLE, part, "vehicle", keys=[(number,) for number in range(count)])
        vehicles = random_vehicles(distinct[identity])
        person = self._persons(part, identity, camera * self.per_camera + turn)
        features = persons(self.drivers, seeds.generator(self.seed, "street", "drivers"))[person]
        clothes = CLOTHES[(uniform[:, SHOT] * len(CLOTHES)).long()]
        drivers = Drivers(features, clothes, seats(vehicles, shots.seat))
        return Scenes(vehicles, drivers, shots, identity, person, camera)

    def streets(self) -> Tensor:
        """Draw the background of each camera, (C, 3, size, size), float32, [0, 1]."""
        grains = [seeds.generator(self.seed, "street", "grain", number) for number in range(self.cameras)]
        return backgrounds(self._cameras(), self.size, grains)

    def _part(self, part: Literal["train", "test"], first: int, reading: Reading) -> Pictures:
        scenes, shape = self.scenes(part), (3, self.size, self.size)
        labels = scenes.identity + first
        with torch_threads(1):  # shapes are so small that more of them wait for each other
            chunks = self._chunks(scenes, chunk_length(shape, reading))
            pictures = collect(chunks, count=len(labels), shape=shape, reading=reading)
        sides = dict(zip(REGION, region(scenes, self.size).unbind(1), strict=True))
        return pictures.relabeled(labels, {"camera": scenes.camera, "driver": scenes.person, **sides})

    def _chunks(self, scenes: Scenes, length: int) -> Iterator[Chunk]:
        streets = self.streets()
        for index in torch.arange(len(scenes.identity)).split(length):
            yield render(scenes.at(index), streets).numpy(), scenes.identity[index].numpy()

    def _cameras(self) -> Tensor:
        return self._uniform(CAMERA, "camera", keys=[(number,) for number in range(self.cameras)])

    def _uniform(self, width: int, *names: str, keys: Iterable[Iterable[int]]) -> Tensor:
        """Draw numbers in [0, 1), (n, width): a stream for each key, so that no row depends on how many there are."""
        streams = (seeds.generator(self.seed, "street", *names, *key) for key in keys)
        return torch.stack([torch.rand(width, generator=stream) for stream in streams])

    def _persons(self, part: str, identity: Tensor, turn: Tensor) -> Tensor:
        """Give each picture a driver, (N,): as many vehicles as drivers make a Latin square with as many of their pictures."""
        squares = torch.stack([identity, turn], dim=1) // self.drivers
        rows, columns = identity % self.drivers, turn % self.drivers
        person = torch.empty_like(identity)
        for square in squares.unique(dim=0):
            stream = seeds.generator(self.seed, "street", part, "square", *square.tolist())
            row, column, symbol = (torch.randperm(self.drivers, generator=stream) for _ in range(3))
            inside = (squares == square).all(dim=1)
            person[inside] = symbol[(row[rows[inside]] + column[columns[inside]]) % self.drivers]
        return person


def _at(record: Scenes, index: Tensor) -> Scenes:
    """Return the rows of a record, and of the records in it."""
    values: dict[str, Any] = {
        name: value[index] if isinstance(value, Tensor) else _at(value, index) for name, value in vars(record).items()
    }
    return replace(record, **values)
