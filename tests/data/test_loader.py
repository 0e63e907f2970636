# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from sfumato.data.augment import Augment
from sfumato.data.base import Pictures, Reading
from sfumato.data.collect import collect
from sfumato.data.loader import as_images, batches, shuffled
from sfumato.errors import ConfigError, StorageError

PIXELS = np.random.default_rng(0).integers(0, 256, (11, 3, 4, 4), dtype=np.uint8)
LABELS = np.arange(11, dtype=np.int64)


@pytest.fixture(params=["resident", "streamed", "resident subset", "streamed subset"])
def pictures(request: pytest.FixtureRequest, tmp_path: Path) -> Pictures:
    kept, _, subset = request.param.partition(" ")
    reading = Reading(budget=1 << 20 if kept == "resident" else 10, spool=tmp_path)
    found = collect([(PIXELS, LABELS)], count=11, shape=(3, 4, 4), reading=reading)
    return found.subset(torch.arange(11)) if subset else found


def loader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("sfumato-loader")]


def test_natural_order_with_a_partial_last_batch(pictures: Pictures) -> None:
    found = list(batches(pictures, size=4, device="cpu"))
    assert [len(y) for _, y in found] == [4, 4, 3]
    assert torch.cat([y for _, y in found]).tolist() == list(range(11))
    x = torch.cat([x for x, _ in found])
    assert x.dtype == torch.float32
    assert np.array_equal(x.numpy(), PIXELS.astype(np.float32) / np.float32(255))


def test_given_order(pictures: Pictures) -> None:
    order = torch.tensor([7, 7, 0, 10, 3])
    x, y = (torch.cat(parts) for parts in zip(*batches(pictures, size=2, device="cpu", order=order), strict=True))
    assert y.tolist() == order.tolist()
    assert np.array_equal((x * 255).round().to(torch.uint8).numpy(), PIXELS[order])


def test_given_batches_of_any_size(pictures: Pictures) -> None:
    given = tuple(torch.tensor(batch, dtype=torch.int64) for batch in ([7, 0, 10], [], [3]))
    stream = torch.Generator().manual_seed(0)
    for augment in (None, Augment(crop=0, flip=False, rotation=0.0)):
        found = list(batches(pictures, size=2, device="cpu", order=given, augment=augment, generator=stream))
        assert [y.tolist() for _, y in found] == [[7, 0, 10], [], [3]]
        for (x, _), batch in zip(found, given, strict=True):
            assert np.array_equal((x * 255).round().to(torch.uint8).numpy(), PIXELS[batch.numpy()])
    turned = list(batches(pictures, size=2, device="cpu", order=given, augment=Augment(rotation=5.0), generator=stream))
    assert [len(x) for x, _ in turned] == [3, 0, 1]


def test_batches_do_not_touch_the_stored_pixels(pictures: Pictures) -> None:
    before = pictures.fingerprint
    for x, _ in batches(pictures, size=4, device="cpu"):
        x.zero_()
    assert pictures.read(torch.arange(11)).numpy().tobytes() == PIXELS.tobytes()
    assert pictures.fingerprint == before


def test_augmented_batches_repeat_with_the_seed(pictures: Pictures) -> None:
    def run(seed: int) -> torch.Tensor:
        stream = torch.Generator().manual_seed(seed)
        found = batches(pictures, size=4, device="cpu", augment=Augment(crop=1), generator=stream)
        return torch.cat([x for x, _ in found])

    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))


def test_consumer_may_stop_early(pictures: Pictures) -> None:
    found = batches(pictures, size=1, device="cpu")
    next(found)
    found.close()  # type: ignore[attr-defined]
    assert loader_threads() == []


def test_error_of_the_reader_reaches_the_consumer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = collect([(PIXELS, LABELS)], count=11, shape=(3, 4, 4), reading=Reading(budget=10, spool=tmp_path))
    read = type(pictures).read

    def failing(self: Pictures, index: torch.Tensor) -> torch.Tensor:
        if 6 in index:
            raise StorageError("the disk is gone")
        return read(self, index)

    monkeypatch.setattr(type(pictures), "read", failing)
    found = batches(pictures, size=2, device="cpu")
    seen = []
    with pytest.raises(StorageError, match="the disk is gone"):
        seen.extend(y for _, y in found)
    assert len(seen) == 3
    assert loader_threads() == []


def test_only_a_few_batches_are_read_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = collect([(PIXELS, LABELS)], count=11, shape=(3, 4, 4), reading=Reading(budget=10, spool=tmp_path))
    read, calls = type(pictures).read, []
    monkeypatch.setattr(type(pictures), "read", lambda self, index: (calls.append(index), read(self, index))[1])
    found = batches(pictures, size=1, device="cpu")
    next(found)
    assert len(calls) <= 3
    found.close()  # type: ignore[attr-defined]


def test_shuffled_is_a_permutation_by_seed() -> None:
    order = shuffled(50, torch.Generator().manual_seed(0))
    assert order.dtype == torch.int64
    assert sorted(order.tolist()) == list(range(50))
    assert torch.equal(order, shuffled(50, torch.Generator().manual_seed(0)))


def test_as_images_divides_exactly() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert np.array_equal(as_images(levels, "cpu").numpy(), np.arange(256, dtype=np.float32) / np.float32(255))


def test_bad_arguments(pictures: Pictures) -> None:
    with pytest.raises(ConfigError, match="at least 1 picture, got 0"):
        batches(pictures, size=0, device="cpu")
    with pytest.raises(ConfigError, match="pass generator="):
        batches(pictures, size=1, device="cpu", augment=Augment())


@pytest.mark.gpu
def test_batches_on_cuda(pictures: Pictures) -> None:
    moved = pictures.to("cuda")
    order = torch.tensor([5, 1, 9])
    x, y = next(batches(moved, size=3, device="cuda", order=order))
    assert x.is_cuda
    assert y.tolist() == [5, 1, 9]
    assert np.array_equal((x.cpu() * 255).round().to(torch.uint8).numpy(), PIXELS[order])
