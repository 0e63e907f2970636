# SPDX-License-Identifier: Apache-2.0
"""Tables of answers: what a model said of its members and of other examples, from two .npz files, where nothing else is there.

Each file has `logits`, (N, C) or (N, V, C) for several views of each example, and `labels`, (N,). A file may have `probabilities`
instead of logits; their logarithms then stand for the logits, of which they are one choice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sfumato.data.npz import read_arrays
from sfumato.errors import DataError

FLOOR = 1e-30
"""What a smaller probability counts as, so that every logarithm is finite; only rounding makes one so small."""
FEWEST = 2
"""Members, and non-members, that every class must have."""
COARSE = 0.01
"""Share of rows that repeat one of their own side, above which equal rows on both sides are taken for a coincidence."""

_ROUNDING = 0.005  # of a probability with two decimals
_NAMES = ("logits", "probabilities")
_SHOWN = 5


@dataclass(frozen=True)
class AnswerTable:
    """What a model answered about N examples, members first.

    Attributes:
        logits: (N, V, C), float32, finite: of V views of each example.
        labels: (N,), int64: 0 to C - 1.
        member: (N,), bool: which examples the model was trained on.
        duplicates: how many rows repeat one of their own side, label included.
        shared: how many rows of the non-members equal one of the members; more than 0 only where answers are so coarse that rows
            repeat anyway.
    """

    logits: Tensor
    labels: Tensor
    member: Tensor
    duplicates: int = 0
    shared: int = 0


def read_answers(members: str | Path, nonmembers: str | Path) -> AnswerTable:
    """Read what a model answered about its members and about others.

    Args:
        members: an .npz file about examples that the model was trained on.
        nonmembers: an .npz file about others, with as many classes and views.

    Returns:
        Both, one after the other.

    Raises:
        MissingDataError: a file is not there.
        DataError: a file is no .npz, or lacks an array; an array is of Python objects, of another shape or kind, or not finite;
            labels are no classes; the files differ in classes or views; a class has fewer than `FEWEST` examples on a side;
            rows are on both sides; or, however coarse answers are, every row of one side is found on the other, as often.

    Example:
        >>> from tempfile import mkdtemp
        >>> paths = [Path(mkdtemp()) / name for name in ("members.npz", "nonmembers.npz")]
        >>> for seed, path in enumerate(paths):
        ...     np.savez(path, logits=np.random.default_rng(seed).normal(size=(6, 3)), labels=np.arange(6) % 3)
        >>> read_answers(*paths).logits.shape
        torch.Size([12, 1, 3])
    """
    files = Path(members), Path(nonmembers)
    sides = [_read(path) for path in files]
    shapes = [logits.shape[1:] for logits, _ in sides]
    if shapes[0] != shapes[1]:
        said = " and ".join(f"{views} views of {classes} classes" for views, classes in shapes)
        raise DataError(
            f"{files[0]} and {files[1]} must be answers of one model, found {said}; ask the same model, in the same way"
        )
    _require_classes([labels for _, labels in sides], shapes[0][1])
    duplicates, shared = _repeats(files, sides)
    logits, labels = (torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*sides, strict=True))
    member = torch.arange(len(labels)) < len(sides[0][1])
    return AnswerTable(logits, labels, member, duplicates, shared)


def _read(path: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return logits, (N, V, C), and labels, (N,), of one file."""
    names, arrays = read_arrays(path, (*_NAMES, "labels"), what="a table of answers")
    present = [name for name in _NAMES if name in arrays]
    if len(present) != 1 or "labels" not in arrays:
        found = ", ".join(names) or "none"
        raise DataError(
            f"{path}: expected the arrays logits (or probabilities, not both) and labels, found {found}; name them so"
        )
    answers = _numbers(path, present[0], arrays[present[0]])
    labels = _labels(path, arrays["labels"], answers.shape)
    logits = _log(path, answers) if present[0] == "probabilities" else _checked(path, answers)
    return np.ascontiguousarray(logits, dtype=np.float32), labels


def _numbers(path: Path, name: str, answers: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return answers as (N, V, C)."""
    if answers.dtype.kind not in "fiub" or answers.ndim not in (2, 3) or 0 in answers.shape or answers.shape[-1] < 2:
        raise DataError(
            f"{path}: {name} must be real numbers of shape (N, C), or (N, V, C) for V views of each example, with C > 1, "
            f"found {answers.dtype} of shape {answers.shape}"
        )
    wide = answers.astype(np.float64).reshape(len(answers), -1, answers.shape[-1])
    with np.errstate(over="ignore"):
        bad = np.flatnonzero(~np.isfinite(wide.astype(np.float32)).all(axis=(1, 2)))
    if len(bad):
        raise DataError(
            f"{path}: {name} must be finite as float32, found others in {len(bad)} of {len(wide)} rows, first in row {bad[0]}; "
            "leave such examples out, on both sides alike"
        )
    return wide


def _labels(path: Path, labels: npt.NDArray[Any], shape: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return labels that are classes of the answers."""
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DataError(
            f"{path}: labels must be integers of shape (N,), found {labels.dtype} of shape {labels.shape}; convert them"
        )
    if len(labels) != shape[0]:
        raise DataError(f"{path}: there must be a label for each answer, found {len(labels)} labels and {shape[0]} answers")
    if labels.min() < 0 or labels.max() >= shape[-1]:
        raise DataError(
            f"{path}: labels must be 0 to {shape[-1] - 1}, as answers have {shape[-1]} classes, found {labels.min()} to "
            f"{labels.max()}; number the classes from 0"
        )
    return labels.astype(np.int64)


def _checked(path: Path, logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return logits, unless they are probabilities under a wrong name: all of these would look like unsure answers."""
    if _distributions(logits).all():
        raise DataError(
            f"{path}: every row of logits lies in [0, 1] and sums to 1, so they are probabilities; name the array probabilities"
        )
    return logits


def _log(path: Path, probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the logarithms of probabilities."""
    bad = ~_distributions(probabilities)
    if bad.any():
        raise DataError(
            f"{path}: rows of probabilities must lie in [0, 1] and sum to 1, found {int(bad.sum())} of {len(bad)} that do not, "
            f"first row {int(bad.argmax())}; answers before the softmax are logits: name the array so"
        )
    return np.log(np.maximum(probabilities, FLOOR))


def _distributions(answers: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Tell which rows are probabilities, (N,), as far as they may have been rounded to two decimals."""
    inside = ((answers >= -1e-3) & (answers <= 1 + 1e-3)).all(axis=(1, 2))
    off = np.abs(answers.sum(axis=2) - 1).max(axis=1)
    close: npt.NDArray[np.bool_] = inside & (off <= min(0.5, 1e-3 + _ROUNDING * answers.shape[2]))
    return close


def _require_classes(sides: Sequence[npt.NDArray[np.int64]], classes: int) -> None:
    """Raise where a class has too few members or non-members."""
    counts = np.stack([np.bincount(labels, minlength=classes) for labels in sides], axis=1)
    few = [(place, *row) for place, row in enumerate(counts.tolist()) if sum(row) and min(row) < FEWEST]
    if few:
        said = "; ".join(f"class {place} has {inside} and {outside}" for place, inside, outside in few[:_SHOWN])
        more = f"; and {len(few) - _SHOWN} more classes" if len(few) > _SHOWN else ""
        raise DataError(
            f"every class must have at least {FEWEST} members and {FEWEST} non-members, found too few: {said}{more}; add "
            "examples of these classes, or leave them out on both sides"
        )


def _repeats(files: Sequence[Path], sides: Sequence[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]) -> tuple[int, int]:
    """Count rows that repeat one of their own side, and non-members that equal a member: these only where answers are coarse.

    A side that is part of the other is refused all the same: that cannot be told from examples that are on both sides.
    """
    inside, outside = (Counter(_hashes(*side)) for side in sides)
    own = [counts.total() - len(counts) for counts in (inside, outside)]
    shared = sum(count for row, count in outside.items() if row in inside)
    coarse = any(count > COARSE * len(labels) for count, (_, labels) in zip(own, sides, strict=True))
    if shared and not coarse:
        raise DataError(
            f"members and non-members must be different examples, but {shared} of {outside.total()} rows of {files[1]} have the "
            f"answer and the label of a row of {files[0]}; take them out of one side"
        )
    if inside <= outside or outside <= inside:
        raise DataError(
            f"members and non-members must be different examples, but every row of one of {files[0]} ({inside.total()} rows) and "
            f"{files[1]} ({outside.total()}) is in the other, as often: they may be the same examples; give a file of each side, "
            "answers that are less coarse, and where they are labels alone as many of both sides"
        )
    return sum(own), shared


def _hashes(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> list[bytes]:
    """Return a hash of each row with its label."""
    positive = logits + np.float32(0)  # of the two zeros one is left
    return [
        blake2b(row.tobytes() + int(label).to_bytes(8, "little"), digest_size=16).digest()
        for row, label in zip(positive, labels, strict=True)
    ]
