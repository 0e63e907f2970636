# SPDX-License-Identifier: Apache-2.0
"""Files that are either whole or not there: atomic writes, and tensors that are read without unpickling anything."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from sfumato.errors import ConfigError, StorageError, WeightsError
from sfumato.packing import pack, unpack


@contextmanager
def disk_errors(path: Path, doing: str) -> Iterator[None]:
    """Turn an `OSError` inside a `with` block into a `StorageError` that says what to do.

    Args:
        path: the file or folder concerned.
        doing: what is done with it, such as "write".

    Raises:
        StorageError: an OSError was raised inside.
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"cannot {doing} {path}: no space left on the disk; free some, or choose another folder"
            ) from error
        raise StorageError(f"cannot {doing} {path}: {error.strerror or error}") from error


def write_atomic(path: str | Path, content: bytes) -> Path:
    """Write a file so that a reader finds the old content or the new, never a part.

    Args:
        path: the file; its folder is made when missing.
        content: what it shall hold.

    Returns:
        The path.

    Raises:
        StorageError: it cannot be written; what was there stays.
    """
    path = Path(path)
    with disk_errors(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not `mkstemp`: it makes files that nobody else may read, and a report is there to be read.
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    return path


def write_json(path: str | Path, record: Mapping[str, object]) -> Path:
    """Write a record as JSON, atomically.

    Args:
        path: the file.
        record: what it shall hold; NaN and infinity are refused.

    Returns:
        The path.
    """
    return write_atomic(path, (json.dumps(record, indent=2, allow_nan=False) + "\n").encode())


def tensor_bytes(tensors: Mapping[str, Tensor], facts: Mapping[str, str] | None = None, *, sparse: bool = True) -> bytes:
    """Return tensors and facts as one safetensors file.

    Args:
        tensors: by name; those that share memory are written once for each name.
        facts: strings to write beside them.
        sparse: write the tensors that get smaller by it without their zeros; else as any reader of safetensors knows them.

    Example:
        >>> import torch
        >>> len(tensor_bytes({"w": torch.eye(100)})) < 2_000, len(tensor_bytes({"w": torch.eye(100)}, sparse=False)) > 40_000
        (True, True)
    """
    # A copy for each name: safetensors refuses tensors that share memory, as the weights of a module that both halves call do.
    flat = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    packed, places = pack(flat) if sparse else (flat, {})
    return safetensors_bytes(packed, metadata={**(facts or {}), **places})


def read_json(path: str | Path, *, expected: str, advice: str) -> object:
    """Read a JSON file.

    Args:
        path: the file.
        expected: what it should hold, for messages.
        advice: what to do where it does not.

    Raises:
        ConfigError: it is not JSON.
        StorageError: it is missing or cannot be read.
    """
    try:
        record: object = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise StorageError(
            f"expected {expected} at {path}: {error.strerror or error}; give the path of a file that is"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"expected JSON in {path}, found something else: {error}; {advice}") from error
    return record


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str] | None = None) -> Path:
    """Write tensors and facts as one safetensors file, atomically.

    Args:
        path: the file.
        tensors: by name; those that share memory are written once for each name, those with many zeros without these.
        facts: strings to write beside them.

    Returns:
        The path.
    """
    return write_atomic(path, tensor_bytes(tensors, facts))


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file.

    Args:
        path: the file.

    Returns:
        Tensors by name, on the CPU, with the zeros that `write_tensors` left out, and the facts written beside them.

    Raises:
        WeightsError: the file is missing, truncated, damaged, or of another format.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"expected a safetensors file at {path}, found none; check the path")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- not a dict
            return unpack(tensors, file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"expected a whole safetensors file, found {path} ({path.stat().st_size} bytes): {error}. It is truncated or of "
            "another format; Sfumato loads no pickles: save it again with safetensors.torch.save_file(model.state_dict(), ...)"
        ) from error


def file_hash(path: Path | None) -> str | None:
    """Return the SHA-256 of a file, hexadecimal; None of none.

    Example:
        >>> file_hash(None) is None
        True
    """
    return None if path is None else hashlib.sha256(path.read_bytes()).hexdigest()


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names start with a prefix, without it.

    Example:
        >>> under({"a.b": Tensor(), "c.d": Tensor()}, "a.")
        {'b': tensor([])}
    """
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def of_model(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a model by its own names, of its target's where they are that: wherever it was cut.

    Example:
        >>> import torch
        >>> list(of_model({"split.head.c1.weight": torch.zeros(1), "split.tail.c2.weight": torch.zeros(1)}))
        ['c1.weight', 'c2.weight']
    """
    halves = {**under(tensors, "split.head."), **under(tensors, "split.tail.")}
    return halves or dict(tensors)


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], *, source: str | Path) -> None:
    """Load tensors into a module, all of them or none.

    Args:
        module: where they go.
        tensors: by the names of the module's state dict.
        source: where they come from, for the message.

    Raises:
        WeightsError: names or shapes are those of another model; nothing is loaded then.
    """
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in tensors]
    foreign = [name for name in tensors if name not in wanted]
    shaped = [
        f"{name} {tuple(tensors[name].shape)} for {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    if missing or foreign or shaped:
        found = [("missing", missing), ("not of this model", foreign), ("of another shape", shaped)]
        said = "; ".join(
            f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" for kind, names in found if names
        )
        raise WeightsError(f"{source} holds the weights of another model: {said}; check model, cut, classes and defenses")
    module.load_state_dict(dict(tensors))
