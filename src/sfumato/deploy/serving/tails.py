# SPDX-License-Identifier: Apache-2.0
"""The tail of a bundle, loaded from the bytes that were checked and run once before anybody is answered."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sfumato.deploy.bundle import Bundle
from sfumato.deploy.serving.batching import Run
from sfumato.deploy.sessions import session_of
from sfumato.errors import BundleError, ConfigError


def load_tail(bundle: Bundle, threads: int, *, most: int = 1) -> Run:
    """Load the tail of a bundle, and run it.

    Args:
        bundle: opened for its tail.
        threads: of ONNX Runtime; 0 for one for each core.
        most: pictures in the largest batch. So many are run: ONNX Runtime keeps what memory it ever needed, so that it is missing
            now, or there for good, and does not grow with the first bursts. A larger request, which is run alone, can need more.

    Raises:
        BundleError: it cannot be loaded, or takes or answers something else than the manifest says.
        ConfigError: the largest batch does not fit into the memory.
    """
    manifest = bundle.manifest
    names = [manifest.answer.name]
    try:
        session = session_of(bundle.model, threads=threads)

        def run(z: NDArray[np.generic]) -> NDArray[np.float32]:
            return np.asarray(session.run(names, {manifest.sent.name: z})[0])

        answer = run(np.zeros((2, *manifest.sent.shape), manifest.sent.type))
    except Exception as error:  # ONNX Runtime has errors without a common base
        raise BundleError(
            f"expected a tail in {bundle.folder} that takes {manifest.sent.name} {manifest.sent.shape} of {manifest.sent.type}, "
            f"found one that fails on it ({type(error).__name__}); export the run again"
        ) from error
    if answer.shape != (2, *manifest.answer.shape) or answer.dtype != manifest.answer.type:
        raise BundleError(
            f"expected the tail in {bundle.folder} to answer (2, {', '.join(map(str, manifest.answer.shape))}) of "
            f"{manifest.answer.type}, found {answer.shape} of {answer.dtype}; export the run again"
        )
    try:
        run(np.zeros((most, *manifest.sent.shape), manifest.sent.type))
    except Exception as error:
        raise ConfigError(
            f"--batch {most}: expected that the tail in {bundle.folder} runs on so many pictures, found that it fails on them "
            f"({type(error).__name__}), though not on two; give a smaller one"
        ) from error
    return run
