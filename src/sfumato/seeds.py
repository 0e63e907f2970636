# SPDX-License-Identifier: Apache-2.0
"""One seed for a run, and from it a named stream of random numbers for each purpose.

A stream depends on the seed and on its name only, never on what was drawn before it. A run that resumes at epoch 7 asks for the
stream of epoch 7 and gets the bits of an uninterrupted run; an attack that is added to an audit does not change the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive(seed: int, *names: str | int) -> int:
    """Derive a seed of 63 bits from a seed and the name of a purpose.

    Args:
        seed: the seed of the run.
        names: the purpose, such as ``"order", 3`` for the order of pictures in epoch 3.

    Returns:
        An integer in [0, 2**63), the same on every machine.

    Example:
        >>> derive(0, "order", 1) == derive(0, "order", 1)
        True
        >>> derive(0, "order", 1) == derive(0, "order", 2)
        False
    """
    text = "\x1f".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Make the generator of a named stream.

    Args:
        seed: the seed of the run.
        names: the purpose.
        device: where the numbers are drawn; the bits differ between CPU and CUDA.

    Returns:
        A generator on `device`, at the start of its stream.

    Example:
        >>> a, b = generator(0, "noise"), generator(0, "noise")
        >>> bool((torch.rand(3, generator=a) == torch.rand(3, generator=b)).all())
        True
    """
    return torch.Generator(device=device).manual_seed(derive(seed, *names))


@contextmanager
def ambient(seed: int, *names: str | int) -> Iterator[None]:
    """Seed PyTorch's ambient stream inside a `with` block, and put it back afterwards.

    Weight initialization and `nn.Dropout` of a user's model draw from the ambient stream and take no generator: this is the one
    place in the library that touches it.

    Args:
        seed: the seed of the run.
        names: the purpose.

    Yields:
        Nothing.

    Example:
        >>> with ambient(0, "weights"):
        ...     a = torch.rand(1)
        >>> with ambient(0, "weights"):
        ...     b = torch.rand(1)
        >>> bool(a == b)
        True
    """
    with torch.random.fork_rng():
        torch.manual_seed(derive(seed, *names))
        yield
