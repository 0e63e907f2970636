# SPDX-License-Identifier: Apache-2.0
"""The head on a device: pictures in, what crosses the wire out, with ONNX Runtime and NumPy alone.

The bundle's hashes are checked before anything of it runs, and what was hashed is what runs. Noise comes from the operating
system's entropy, so that neither the run's seed nor an earlier picture tells what it was.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from sfumato.deploy.bundle import HEAD, Bundle, open_bundle
from sfumato.deploy.draws import Fresh, Source, Sticky, fill
from sfumato.deploy.manifest import Manifest, TensorFacts
from sfumato.deploy.sessions import session_of
from sfumato.errors import BundleError, ConfigError, DataError

_ORT_TYPES = {"float32": "tensor(float)", "float16": "tensor(float16)", "uint8": "tensor(uint8)"}
_THREADS_MOST = 1024  # more are a slip of the hand, which takes all of the memory
_AT_ONCE = 64  # pictures that the head runs on, whose intermediate features a small device must hold


class Edge:
    """The head of a bundle, ready to run. Threads may share it.

    Args:
        bundle: folder with at least manifest.json and head.onnx.
        sticky: give byte-identical pictures identical noise, as long as this object lives; else every picture gets new noise.
        threads: that ONNX Runtime uses for one picture.

    Attributes:
        manifest: of the bundle.

    Raises:
        BundleError: the bundle is damaged, of another version or unsafe, or its head is not the one that the manifest tells of.
        ConfigError: `threads` is below 1 or above 1024.

    Example:
        >>> Edge("no/such/bundle")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        sfumato.errors.BundleError: expected a bundle with manifest.json at no/such/bundle: ...
    """

    def __init__(self, bundle: str | Path, *, sticky: bool = False, threads: int = 1) -> None:
        if not 1 <= threads <= _THREADS_MOST:
            raise ConfigError(f"threads must be from 1 to {_THREADS_MOST}, got {threads}")
        opened = open_bundle(bundle, "head")
        self.manifest: Manifest = opened.manifest
        self._source: Source = Sticky() if sticky else Fresh()
        self._session = _session(opened, threads)

    def features(self, pictures: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return what is sent for pictures. Each call draws its noise anew: send again what was returned, never call again.

        Args:
            pictures: (N, C, H, W), N at least 1, uint8, or float32 in [0, 1].

        Returns:
            z, (N, *shape), of the wire's type: float32, float16 or uint8.

        Raises:
            DataError: the pictures have another shape, another type, or values outside of [0, 1].
        """
        x = as_input(pictures, self.manifest.picture)
        return np.concatenate([self._run(x[at : at + _AT_ONCE]) for at in range(0, len(x), _AT_ONCE)])

    def _run(self, x: NDArray[np.float32]) -> NDArray[np.generic]:
        facts = self.manifest
        given = {facts.picture.name: x, **fill(facts.draws, x, self._source)}
        z: NDArray[np.generic] = self._session.run([facts.sent.name], given)[0]
        return z


def as_input(pictures: NDArray[np.generic], facts: TensorFacts) -> NDArray[np.float32]:
    """Return pictures as a head takes them, or say what is wrong with them.

    Args:
        pictures: (N, C, H, W), uint8, or float32 in [0, 1].
        facts: of the head's input.

    Returns:
        (N, C, H, W), float32 in [0, 1].

    Raises:
        DataError: they have another shape, another type, or values outside of [0, 1].

    Example:
        >>> as_input(np.full((1, 1, 1, 1), 51, np.uint8), TensorFacts("x", "float32", (1, 1, 1))).item()
        0.20000000298023224
    """
    if pictures.ndim != len(facts.shape) + 1 or pictures.shape[1:] != facts.shape or not len(pictures):
        expected = ", ".join(map(str, facts.shape))
        raise DataError(
            f"expected pictures of shape (N, {expected}) with N from 1, got {pictures.shape}; bring them to that shape first"
        )
    if pictures.dtype == np.uint8:
        return pictures.astype(np.float32) / np.float32(255)
    if pictures.dtype != np.float32:
        raise DataError(
            f"expected pictures of uint8, or float32 in [0, 1], got {pictures.dtype}; use pictures.astype('uint8') for whole "
            "numbers from 0 to 255"
        )
    require_unit(pictures, "expected pictures")
    return np.ascontiguousarray(pictures, np.float32)


def require_unit(pixels: NDArray[np.generic], expected: str) -> None:
    """Refuse fractions outside of [0, 1].

    Args:
        pixels: of any shape.
        expected: how the message begins.

    Raises:
        DataError: there are some, or NaN.

    Example:
        >>> require_unit(np.full(2, 1.5), "expected numbers")
        Traceback (most recent call last):
        sfumato.errors.DataError: expected numbers in [0, 1], got 1.5 to 1.5; divide by 255, or undo a normalization
    """
    if not (pixels.min() >= 0 and pixels.max() <= 1):  # false for NaN too
        raise DataError(f"{expected} in [0, 1], got {pixels.min():g} to {pixels.max():g}; divide by 255, or undo a normalization")


def _session(bundle: Bundle, threads: int) -> onnxruntime.InferenceSession:
    """Make a session of a head, which must take and return what the manifest says."""
    try:
        session = session_of(bundle.model, threads=threads)
    except Exception as error:  # its errors have no common base but this one
        raise BundleError(
            f"expected {bundle.folder / HEAD} to be a head that ONNX Runtime {onnxruntime.__version__} runs: {error}; export the "
            "run again, or use a newer ONNX Runtime"
        ) from error
    facts = bundle.manifest
    draws = [TensorFacts(draw.name, "float32", draw.shape) for draw in facts.draws]
    _require_same("takes", session.get_inputs(), [facts.picture, *draws])
    _require_same("returns", session.get_outputs(), [facts.sent])
    return session


def _require_same(verb: str, found: list[onnxruntime.NodeArg], facts: list[TensorFacts]) -> None:
    said = [(one.name, _ORT_TYPES[one.type], ("N", *one.shape)) for one in facts]
    real = [(one.name, one.type, tuple(size if isinstance(size, int) else "N" for size in one.shape)) for one in found]
    if real != said:
        raise BundleError(f"the manifest says that the head {verb} {said}, but it {verb} {real}; export the run again")
