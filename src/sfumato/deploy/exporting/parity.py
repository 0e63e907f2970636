# SPDX-License-Identifier: Apache-2.0
"""Decide whether an export counts: both halves in ONNX Runtime beside PyTorch, on real pictures.

Given the same random numbers, features and answers must agree to rounding. Then the noise that a device makes, from the operating
system's entropy, is tested against that of PyTorch.

Source: none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sfumato.deploy.draws import Fresh, fill
from sfumato.deploy.exporting.halves import FEATURES, PICTURES, Halves
from sfumato.deploy.exporting.welch import NoiseTest, compare_noise
from sfumato.deploy.manifest import Draw, Parity
from sfumato.errors import ExportError
from sfumato.seeds import generator

TOLERANCE = 1e-4
"""Largest difference that counts as equal, in units of a number itself or of the root mean square of all, the larger of them."""
ALPHA = 1e-6
"""Chance that noise of the same distribution is refused, over all tests of an export."""

_BATCHES = (1, 7)  # before all the others at once: the batch of a file is dynamic
_QUIET, _NOISY = 8, 32  # pictures that noise is compared on
_NUMBERS = 40_000  # of each channel: 5 % of sigma are then 10 standard errors of the spread
_FEWEST, _MOST = 4, 64  # releases of a picture
_NUDGE = 1e-5
_NUDGES = 4
_REPORT = (
    "the export computes something else than the target and was not written; look in the model and its defenses for what depends "
    "on values or keeps something from one call to the next"
)


@dataclass(frozen=True)
class Exported:
    """Both halves as files.

    Attributes:
        head: an ONNX file.
        tail: an ONNX file.
    """

    head: bytes
    tail: bytes


class Runtime:
    """An ONNX file in ONNX Runtime, on one thread of the CPU.

    Args:
        file: the file.

    Raises:
        ExportError: ONNX Runtime does not take the file, or fails to run it.
    """

    def __init__(self, file: bytes) -> None:
        from sfumato.deploy.sessions import session_of

        with _runtime_errors():
            self._session = session_of(file)

    def __call__(self, **given: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return the one output for inputs given by name."""
        with _runtime_errors():
            found: NDArray[np.generic] = self._session.run(None, given)[0]
        return found


@contextmanager
def _runtime_errors() -> Iterator[None]:
    """Say of whatever ONNX Runtime raises inside a `with` block that the export is at fault."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 -- its errors share no other base
        raise ExportError(f"expected a file that ONNX Runtime runs, found that {error}: {_REPORT}") from error


def check_parity(halves: Halves, exported: Exported, x: Tensor, *, seed: int = 0) -> Parity:
    """Compare an export with PyTorch.

    Args:
        halves: in PyTorch.
        exported: both as files.
        x: real pictures, (N, C, H, W), float32, [0, 1], on the CPU; 64 or more say something.
        seed: of PyTorch's noise.

    Returns:
        How they compared.

    Raises:
        ExportError: something differs; the message says what and by how much.
    """
    head, tail = Runtime(exported.head), Runtime(exported.tail)
    draws = fill(halves.draws, x.numpy(), Fresh())
    sent = _in_batches(head, {PICTURES: x.numpy(), **draws})
    with torch.no_grad():
        features = _compare_features(halves, x, draws, sent)
        answers = _compare_answers(halves, torch.from_numpy(sent), _in_batches(tail, {FEATURES: sent}))
        if not halves.draws:
            return Parity(len(x), features, answers, 0, 1.0)
        count, test = _compare_noise(halves, head, x, seed)
    return Parity(len(x), features, answers, count, test.p)


def _in_batches(run: Runtime, given: dict[str, NDArray[np.generic]]) -> NDArray[np.generic]:
    """Run a file in batches of one, a few, and all the others."""
    ends = np.cumsum([0, *_BATCHES])
    edges = [*ends, max(len(value) for value in given.values())]
    parts = [{name: value[low:high] for name, value in given.items()} for low, high in zip(edges, edges[1:], strict=False)]
    return np.concatenate([run(**part) for part in parts if len(next(iter(part.values())))])


def _compare_features(halves: Halves, x: Tensor, draws: dict[str, NDArray[np.float32]], sent: NDArray[np.generic]) -> float:
    """Return the largest difference of z that rounding for the wire does not explain."""
    wire = halves.head.wire
    wanted = wire.clipped(halves.head.features(x, tuple(torch.from_numpy(draw) for draw in draws.values())))
    found = torch.from_numpy(sent)
    if found.shape != wanted.shape or found.dtype != wire.dtype:
        raise ExportError(
            f"expected exported features {tuple(wanted.shape)} of {wire.dtype}, found {tuple(found.shape)} of {found.dtype}; "
            "export again"
        )
    excess = _in_units((wire.unpack(found) - wanted).abs() - wire.half_step(wanted), wanted)
    worst = float(excess.max())
    if worst > TOLERANCE:
        channel = int(excess.transpose(0, 1).flatten(1).amax(1).argmax())
        raise ExportError(
            f"expected the exported head to send what PyTorch does, to {TOLERANCE:g} beyond rounding to {wire.wire}, found a "
            f"difference of {worst:.3g} in channel {channel}: {_REPORT}"
        )
    return max(worst, 0.0)


def _units(wanted: Tensor) -> Tensor:
    """Return what differences of each number are told in: its own size, or the root mean square of all if that is larger."""
    sizes = wanted.double().abs()  # a square may overflow float32
    return sizes.maximum(sizes.square().mean().sqrt()).clamp(min=torch.finfo(torch.float32).tiny)


def _in_units(difference: Tensor, wanted: Tensor) -> Tensor:
    """Return differences in the units of `TOLERANCE`; what is not finite differs by more than any tolerance."""
    return (difference / _units(wanted)).nan_to_num(nan=math.inf)


def _compare_answers(halves: Halves, sent: Tensor, found: NDArray[np.generic]) -> float:
    """Return the largest difference of an answer to the same features."""
    raw = halves.tail.raw(sent)
    wanted, got = halves.tail.released(raw), torch.from_numpy(found)
    if (wanted.shape, wanted.dtype) != (got.shape, got.dtype):
        raise ExportError(
            f"expected answers {tuple(wanted.shape)} of {wanted.dtype}, found {tuple(got.shape)} of {got.dtype}; export again"
        )
    steady = _steady(halves, raw, wanted)
    if 2 * int(steady.sum()) < len(raw):
        raise ExportError(
            f"expected answers that changes of {_NUDGE:g} in the logits leave as they are, found {int(steady.sum())} of "
            f"{len(raw)}: too few to compare; leave out the defense that makes answers jump, or train the target again"
        )
    worst = float(_in_units((got - wanted).abs(), wanted)[steady].max())
    if worst > TOLERANCE:
        raise ExportError(
            f"expected the exported tail to answer as PyTorch does, to {TOLERANCE:g}, found a difference of {worst:.3g}: "
            f"{_REPORT}"
        )
    wrong = int((got.argmax(1) != wanted.argmax(1))[steady].sum())
    if wrong and halves.tail.embedding is None:
        raise ExportError(f"expected the labels of PyTorch, found {wrong} others of {int(steady.sum())}: {_REPORT}")
    return worst


def _steady(halves: Halves, raw: Tensor, wanted: Tensor) -> Tensor:
    """Return whose released answers do not jump when logits move as little as rounding moves them, (N,), bool.

    What rounds posteriors, or orders them, jumps at some places: there both sides may be right.
    """
    steady = torch.ones(len(raw), dtype=torch.bool)
    stream = generator(0, "nudge")
    for _ in range(_NUDGES):
        nudge = _NUDGE * _units(raw) * (2 * torch.rand(raw.shape, generator=stream) - 1)
        moved = halves.tail.released(raw + nudge.to(raw.dtype))
        same = _in_units((moved - wanted).abs(), wanted) <= TOLERANCE
        steady &= same.all(1) & (moved.argmax(1) == wanted.argmax(1))
    return steady


def _compare_noise(halves: Halves, head: Runtime, x: Tensor, seed: int) -> tuple[int, NoiseTest]:
    """Compare the noise of the exported head, with the draws of a device, with that of PyTorch."""
    places = math.prod(halves.feature_shape[1:])
    x = x[: min(max(math.ceil(_NUMBERS / (places * _FEWEST)), _QUIET), _NOISY)]  # large maps say enough of few pictures
    count = min(max(math.ceil(_NUMBERS / (places * len(x))), _FEWEST), _MOST)
    mine, theirs = _by_device(halves.draws, head, x, count), _by_torch(halves, x, count, seed)
    test = compare_noise(halves.head.wire.unpack(mine.flatten(0, 1)).view(theirs.shape), theirs)
    if test.p < ALPHA:
        raise ExportError(
            f"expected the noise of PyTorch, found another on {len(x)} pictures released {count} times: p = {test.p:.2g} for "
            f"{test.of}: {_REPORT}"
        )
    return count, test


def _by_device(draws: tuple[Draw, ...], head: Runtime, x: Tensor, count: int) -> Tensor:
    """Return what a device sends for the same pictures at several times, (count, P, C, ...)."""
    pictures = x.numpy()
    sent = [head(**{PICTURES: pictures, **fill(draws, pictures, Fresh())}) for _ in range(count)]
    return torch.from_numpy(np.stack(sent))


def _by_torch(halves: Halves, x: Tensor, count: int, seed: int) -> Tensor:
    """Return what PyTorch does, packed for the wire and unpacked, (count, P, C, ...)."""
    target, stream = halves.head.target, generator(seed, "parity")
    clean = target.split.head(x.clone())  # which may work in place
    return torch.stack([halves.head.wire(target.protection.protect(clean.clone(), stream)) for _ in range(count)])
