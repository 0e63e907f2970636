# SPDX-License-Identifier: Apache-2.0
"""`load_data`: from a name, a path, tensors or a source to a data set with all its parts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import cast

from torch import Tensor

from sfumato import registry
from sfumato.data.base import Data, Reading
from sfumato.data.folder import Folder
from sfumato.data.parquet import Parquet
from sfumato.data.partition import Auxiliary, partition
from sfumato.data.source import Source
from sfumato.data.tensors import from_tensors
from sfumato.errors import ConfigError, UnknownNameError

Tensors = tuple[Tensor, Tensor]
"""Pictures and labels, as `from_tensors` takes them."""


def load_data(
    source: str | Path | Tensors | Source,
    *,
    test: str | Path | Tensors | None = None,
    size: int | None = None,
    options: Mapping[str, object] | None = None,
    root: str | Path | None = None,
    budget: int = 2 << 30,
    skip_bad: bool = False,
    public: float = 0.0,
    reference: float = 0.0,
    auxiliary: Auxiliary = "private",
    seed: int = 0,
) -> Data:
    """Load a data set and partition it.

    Args:
        source: a name of the registry ("digits"), else the path of a folder of class folders or of a parquet file, the user's own
            tensors (x, y), or a source. A path that has the name of a data set is written "./digits".
        test: the test part, a path or tensors as `source` is; None takes the published test part, else splits 20 % off.
        size: side of the square that pictures are brought to; None keeps them.
        options: further arguments of a data set that is named, such as {"path": "parcels"} for "reid-folder".
        root: the folder that holds data sets; None takes it from the environment variable SFUMATO_DATA.
        budget: bytes of decoded pixels that may stay in memory; a larger part is streamed from disk.
        skip_bad: go on without the pictures that cannot be decoded; `Data.skipped` lists them.
        public: share of the training pictures that is public, [0, 1).
        reference: share that is kept for a defense to compare with, such as Min-Max, [0, 1).
        auxiliary: where the adversary's pictures come from, see `partition`.
        seed: of all splits.

    Returns:
        Data with all the parts of `PARTS`.

    Raises:
        UnknownNameError: `source` is neither a name of the registry nor an existing path.
        ConfigError: the source does not take `test`, `size` or an option, or is no name and has options.
        DataError: the files or tensors are missing or not what they should be.
        StorageError: the disk has not enough space for streamed pictures.

    Example:
        >>> import torch
        >>> data = load_data((torch.rand(20, 1, 8, 8), torch.arange(20) % 2))
        >>> len(data.part("private")), len(data.part("inference"))
        (16, 4)
    """
    if options and not isinstance(source, str):
        raise ConfigError(f"options= are for a data set that is named, got {dict(options)} with a {type(source).__name__}")
    if isinstance(source, tuple):
        data = _from_tensors(source, test, size, seed)
    else:
        folder = root if root is not None else os.environ.get("SFUMATO_DATA") or None
        reading = Reading(root=None if folder is None else Path(folder), budget=budget, skip_bad=skip_bad)
        data = _configured(source, options or {}, test, size, seed).load(reading)
    return partition(data, public=public, reference=reference, auxiliary=auxiliary, seed=seed)


def _from_tensors(source: Tensors, test: str | Path | Tensors | None, size: int | None, seed: int) -> Data:
    if len(source) != 2 or not all(isinstance(item, Tensor) for item in source):
        raise ConfigError(
            f"expected two tensors (x, y), got {[type(item).__name__ for item in source]}; see torch.from_numpy for arrays"
        )
    if isinstance(test, str | Path):
        raise ConfigError(f"the test part of tensors must be tensors (x, y), got the path {test}")
    if size is not None:
        raise ConfigError(f"size= applies to encoded pictures, got size={size} with tensors; resize x first")
    return from_tensors(*source, test=test, seed=seed)


def _resolve(source: str | Path, options: Mapping[str, object]) -> Source:
    if isinstance(source, str):
        try:
            return cast(Source, registry.create("datasets", source, options))
        except UnknownNameError as error:
            if options:
                raise
            if not Path(source).exists():
                raise UnknownNameError(f"{error}; there is no file or folder of this name either") from None
    path = Path(source)
    if path.suffix == ".parquet" or (path / "train.parquet").exists():
        return Parquet(path=path)
    return Folder(path=path)


def _configured(
    source: str | Path | Source, options: Mapping[str, object], test: str | Path | Tensors | None, size: int | None, seed: int
) -> Source:
    """Give a source the arguments that it has keys for; one that came as an object keeps its own seed."""
    if isinstance(test, tuple):
        raise ConfigError("tensors as the test part need tensors as the source, got test=(x, y) with files; give a path")
    found = source if isinstance(source, Source) else _resolve(source, options)
    known = {key.name for key in fields(found)}  # type: ignore[arg-type]  # every source is a dataclass
    wanted = {name: value for name, value in (("test", test), ("size", size)) if value is not None}
    if foreign := [name for name in wanted if name not in known]:
        raise ConfigError(f"{type(found).__name__} takes no {' or '.join(foreign)}=: its pictures are as published; leave it out")
    seeded = {"seed": seed} if "seed" in known - set(options) and found is not source else {}
    return replace(found, **wanted, **seeded)  # type: ignore[type-var]
