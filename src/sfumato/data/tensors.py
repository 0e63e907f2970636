# SPDX-License-Identifier: Apache-2.0
"""The user's own tensors as a data set: pictures, or the rows of a table."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sfumato.data.base import Data, Pictures
from sfumato.data.partition import split_test
from sfumato.data.resident import ResidentPictures
from sfumato.errors import DataError
from sfumato.types import Pixels


def from_tensors(
    x: Tensor,
    y: Tensor,
    *,
    test: tuple[Tensor, Tensor] | None = None,
    classes: Sequence[str] | None = None,
    name: str = "tensors",
    seed: int = 0,
) -> Data:
    """Make a data set of tensors; it stays on the device of `x`.

    Args:
        x: pictures, (N, C, H, W): uint8, which is not copied, or float in [0, 1], which is rounded to uint8. Or a table,
            (N, F), of any real dtype and range: its rows are kept as float32 and reach a model as (N, F, 1, 1).
        y: labels, (N,), any integer dtype, from 0.
        test: the test part, pictures and labels alike; None splits 20 % of every class off.
        classes: name of each class; None names them by their numbers.
        name: of the data set.
        seed: of the split.

    Returns:
        Data with the parts `train` and `test`.

    Raises:
        DataError: shapes, dtypes or ranges are others than these, a number of a table is not finite, or a label has no class.

    Example:
        >>> data = from_tensors(torch.rand(10, 1, 8, 8), torch.arange(10) % 2)
        >>> data.shape, data.classes, len(data.part("train"))
        ((1, 8, 8), ('0', '1'), 8)
        >>> from_tensors(torch.randn(10, 600), torch.arange(10) % 2).shape
        (600, 1, 1)
    """
    train = _pictures(x, y)
    parts = split_test(train, seed=seed) if test is None else {"train": train, "test": _pictures(*test)}
    if parts["test"].shape != train.shape:
        raise DataError(f"test pictures must have the shape of the training pictures, {train.shape}, got {parts['test'].shape}")
    highest = max(int(part.labels.max()) for part in parts.values() if len(part))
    names = tuple(classes) if classes is not None else tuple(str(number) for number in range(highest + 1))
    if highest >= len(names):
        raise DataError(
            f"{len(names)} classes allow labels from 0 to {len(names) - 1}, got {highest}; name every class in classes="
        )
    return Data(name=name, classes=names, parts=parts)


def _pictures(x: Tensor, y: Tensor) -> Pictures:
    if x.ndim not in (2, 4) or not x.numel():
        raise DataError(
            f"x must have four dimensions (N, C, H, W), or two (N, F) of a table, none of them 0, got {tuple(x.shape)}"
        )
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise DataError(f"y must hold integers, the class number of each picture, got {y.dtype}; for whole numbers use y.long()")
    if y.shape != (len(x),):
        raise DataError(f"y must have one label for each of {len(x)} pictures, shape ({len(x)},), got {tuple(y.shape)}")
    if int(y.min()) < 0:
        raise DataError(f"labels count from 0, got {int(y.min())}")
    return ResidentPictures(_pixels(x) if x.ndim == 4 else _rows(x), y)


def _rows(x: Tensor) -> Tensor:
    """Return the rows of a table as (N, F, 1, 1), float32."""
    if x.is_complex():
        raise DataError(f"the numbers of a table must be real, got {x.dtype}")
    if bad := int((~x.isfinite()).sum()):
        raise DataError(f"the numbers of a table must be finite, found {bad} that are not; fill or leave out those rows")
    return x.float()[:, :, None, None]


def _pixels(x: Tensor) -> Pixels:
    if x.dtype == torch.uint8:
        return x
    if not x.is_floating_point():
        raise DataError(
            f"x must be uint8, or float in [0, 1], got {x.dtype}; for whole numbers from 0 to 255 use x.to(torch.uint8)"
        )
    low, high = (float(bound) for bound in torch.aminmax(x))
    if not (low >= 0 and high <= 1):  # so written, NaN is refused too
        raise DataError(
            f"x of dtype {x.dtype} must lie in [0, 1], got {low:g} to {high:g}; divide by 255, or undo a normalization"
        )
    return (x * 255).round().to(torch.uint8)
