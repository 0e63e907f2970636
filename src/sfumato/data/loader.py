# SPDX-License-Identifier: Apache-2.0
"""Batches of pictures on the training device. Resident pictures never leave it; streamed ones are read ahead by a thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from sfumato.data.augment import Augment
from sfumato.data.base import Pictures
from sfumato.data.resident import ResidentPictures
from sfumato.errors import ConfigError
from sfumato.types import Images, Labels, Pixels

_AHEAD = 2

Batch = tuple[Images, Labels]
"""x, float32 (n, C, H, W) in [0, 1], and y, int64 (n,), on the device."""


def shuffled(count: int, generator: torch.Generator) -> Tensor:
    """Return 0 to count - 1 in random order, int64, on the device of the generator.

    Example:
        >>> shuffled(3, torch.Generator().manual_seed(0)).sort().values
        tensor([0, 1, 2])
    """
    return torch.randperm(count, generator=generator, device=generator.device)


def divide(order: Tensor, size: int) -> tuple[Tensor, ...]:
    """Divide an order into batches; a single picture that is left joins the last, since batch norm cannot train on one.

    Args:
        order: (n,), int64.
        size: pictures in a batch.

    Example:
        >>> [len(batch) for batch in divide(torch.arange(7), 3)]
        [3, 4]
    """
    parts = order.split(size)
    return (*parts[:-2], torch.cat(parts[-2:])) if len(parts) > 1 and len(parts[-1]) == 1 else parts


def as_images(pixels: Pixels, device: torch.device | str) -> Images:
    """Return stored pixels, uint8 (N, C, H, W), as x: float32 in [0, 1], on a device.

    They move as bytes, before they are four times as large. What is stored as float32 is x, and copied: a model may work in
    place.

    Example:
        >>> as_images(torch.full((1, 1, 1, 1), 255, dtype=torch.uint8), "cpu").item()
        1.0
    """
    device = torch.device(device)
    if pixels.is_floating_point():
        return pixels.to(device, copy=True)
    # away from CUDA a copy that is not waited for could be read before it is there
    return pixels.to(device, non_blocking=device.type == "cuda").to(torch.float32).div_(255)


def batches(
    pictures: Pictures,
    *,
    size: int,
    device: torch.device | str,
    order: Tensor | tuple[Tensor, ...] | None = None,
    augment: Augment | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[Batch]:
    """Go through pictures once.

    Args:
        pictures: resident, best on `device` already, or streamed.
        size: pictures in a batch; the last one may hold fewer, or, with an order, one more: see `divide`.
        device: where the batches are made.
        order: (n,), int64: which pictures, in which order; None takes all as they come. Or the batches themselves, each (n,) for
            any n, whatever `size` is.
        augment: moves the pictures of every batch.
        generator: for `augment`, on `device`.

    Returns:
        An iterator over x, float32 (size, C, H, W) in [0, 1], and y, int64 (size,), both on `device`.

    Raises:
        ConfigError: `size` is below 1, or `augment` comes without a generator.
        StorageError: while iterating, the disk of streamed pictures fails.

    Example:
        >>> from sfumato.data.resident import ResidentPictures
        >>> pictures = ResidentPictures(torch.zeros(5, 1, 4, 4, dtype=torch.uint8), torch.arange(5))
        >>> [len(y) for x, y in batches(pictures, size=2, device="cpu")]
        [2, 2, 1]
    """
    if size < 1:
        raise ConfigError(f"a batch must hold at least 1 picture, got {size}")
    if augment is not None and generator is None:
        raise ConfigError("augment draws random numbers: pass generator= too, such as seeds.generator(seed, 'augment')")
    device = torch.device(device)
    if isinstance(pictures, ResidentPictures):
        stored = _resident(pictures, size, device, order)
    else:
        stored = _streamed(pictures, size, device, order)
    return _ready(stored, device, augment, generator)


_Stored = tuple[Pixels, Labels]


def _ready(
    stored: Iterator[_Stored], device: torch.device, augment: Augment | None, generator: torch.Generator | None
) -> Iterator[Batch]:
    for pixels, labels in stored:
        x, y = as_images(pixels, device), labels.to(device, non_blocking=device.type == "cuda")
        yield (x if augment is None or generator is None or not len(y) else augment(x, generator)), y


def _batches(order: Tensor | tuple[Tensor, ...], size: int) -> tuple[Tensor, ...]:
    return divide(order, size) if isinstance(order, Tensor) else order


def _resident(
    pictures: ResidentPictures, size: int, device: torch.device, order: Tensor | tuple[Tensor, ...] | None
) -> Iterator[_Stored]:
    labels = pictures.labels.to(device)  # all at once, and not batch by batch
    if order is None:
        for start, y in zip(range(0, len(pictures), size), torch.split(labels, size), strict=True):
            yield pictures.span(start, start + size), y
        return
    parts = _batches(order, size)
    order, sizes = torch.cat(parts), [len(part) for part in parts]
    places, labels = order.to(pictures.device), labels.index_select(0, order.to(device))
    for index, y in zip(places.split(sizes), labels.split(sizes), strict=True):
        yield pictures.read(index), y


def _streamed(
    pictures: Pictures, size: int, device: torch.device, order: Tensor | tuple[Tensor, ...] | None
) -> Iterator[_Stored]:
    parts = torch.arange(len(pictures)).split(size) if order is None else _batches(order, size)
    pinned = device.type == "cuda"

    def fetch(index: Tensor) -> _Stored:
        index = index.cpu()
        pixels, y = pictures.read(index), pictures.labels[index]
        return (pixels.pin_memory(), y.pin_memory()) if pinned else (pixels, y)

    ahead: deque[Future[_Stored]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="sfumato-loader") as reader:
        try:
            for index in parts:
                ahead.append(reader.submit(fetch, index))
                if len(ahead) > _AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:  # a consumer that stops early does not wait for what it will not use
            reader.shutdown(wait=False, cancel_futures=True)
