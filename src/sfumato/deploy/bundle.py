# SPDX-License-Identifier: Apache-2.0
"""A bundle on the disk: opened whole and checked, or refused before anything of it is run.

    bundle/
      manifest.json   what it is, and the hash of every other file
      head.onnx       for the device: pictures and random numbers in, z out
      tail.onnx       for the server: z in, answers out
      recipe.toml     what was trained
      repository/     the tail once more, for Triton, KServe and MLServer

A device needs the manifest and the head alone: what is not there of the other half is not missed, what is there must be right.
Files are read once, and what was hashed is what is loaded.
"""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Literal

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from sfumato.deploy import manifest as manifests
from sfumato.deploy.manifest import Manifest
from sfumato.errors import BundleError

Half = Literal["head", "tail"]

HEAD = "head.onnx"
TAIL = "tail.onnx"
RECIPE = "recipe.toml"
REPOSITORY = "repository"
LARGEST = 2 << 30
"""Bytes of a file of a bundle that are read at most: what one protobuf message may have."""

# Where tensors can hide in an ONNX file: for each message its number fields that hold messages. All else is skipped unread.
_ONNX: dict[str, dict[str, tuple[int, str]]] = {
    "Model": {"graph": (7, "Graph"), "training": (20, "Training"), "functions": (25, "Function")},
    "Training": {"initialization": (1, "Graph"), "algorithm": (2, "Graph")},
    "Function": {"nodes": (7, "Node"), "attributes": (11, "Attribute")},
    "Graph": {"nodes": (1, "Node"), "initializers": (5, "Tensor"), "sparse": (15, "Sparse")},
    "Node": {"attributes": (5, "Attribute")},
    "Attribute": {
        "tensor": (5, "Tensor"),
        "graph": (6, "Graph"),
        "tensors": (10, "Tensor"),
        "graphs": (11, "Graph"),
        "sparse": (22, "Sparse"),
        "sparses": (23, "Sparse"),
    },
    "Sparse": {"values": (1, "Tensor"), "indices": (2, "Tensor")},
    "Tensor": {"external": (13, "Entry")},
    "Entry": {},
}
_LOCATION = 14  # of TensorProto.data_location, a number, where 1 is "somewhere else"


@dataclass(frozen=True)
class Bundle:
    """A bundle that was checked.

    Attributes:
        folder: where it is.
        manifest: what it is.
        model: the ONNX file of the half that was asked for, its bytes.
    """

    folder: Path
    manifest: Manifest
    model: bytes


def open_bundle(folder: str | Path, half: Half) -> Bundle:
    """Read a bundle and check every file of it that is there.

    Args:
        folder: of the bundle.
        half: that will be run, and must be there.

    Returns:
        The bundle, with the bytes of that half.

    Raises:
        BundleError: the folder is no bundle, or one of another version; the half is missing; a file is not what the manifest
            says; a path leads out of the bundle; or an ONNX file keeps tensors outside of itself.
    """
    folder = Path(folder)
    manifest = _manifest(folder)
    wanted = {"head": HEAD, "tail": TAIL}[half]
    if wanted not in manifest.files:
        raise BundleError(f"expected {wanted} among the files of {folder / manifests.FILE}; export the run again")
    model = b""
    for name, expected in manifest.files.items():
        _require_inside(folder, name)
        if name != wanted and not (folder / name).exists():
            continue
        content = _read(folder, name)
        if (found := hashlib.sha256(content).hexdigest()) != expected:
            raise BundleError(
                f"expected {folder / name} to have the SHA-256 {expected[:16]}..., found {found[:16]}...: it is damaged or was "
                "changed; copy the bundle again"
            )
        if name.endswith(".onnx"):
            _require_whole(content, folder / name)
        model = content if name == wanted else model
    return Bundle(folder, manifest, model)


def _manifest(folder: Path) -> Manifest:
    content = _read(folder, manifests.FILE)
    try:
        return manifests.from_bytes(content)
    except BundleError as error:
        raise BundleError(f"{folder / manifests.FILE}: {error}") from error


def _read(folder: Path, name: str) -> bytes:
    """Read a file of a bundle."""
    path = folder / name
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > LARGEST:
            raise BundleError(
                f"expected {path} to be a file of at most {LARGEST} bytes, found {stat.filemode(facts.st_mode)} with "
                f"{facts.st_size}; export the run again"
            )
        return path.read_bytes()
    except OSError as error:
        advice = "make one with: sfumato export RUN --to BUNDLE" if name == manifests.FILE else "copy the bundle again"
        raise BundleError(f"expected a bundle with {name} at {folder}: {error.strerror or error}; {advice}") from error


def _require_inside(folder: Path, name: str) -> None:
    """Refuse a path that is not one of a file below the folder, links followed."""
    path = PurePosixPath(name)
    plain = bool(path.parts) and not path.is_absolute() and str(path) == name and "\\" not in name and "\0" not in name
    try:
        inside = plain and ".." not in path.parts and (folder / path).resolve().is_relative_to(folder.resolve())
        (folder / path).exists()
    except (OSError, RuntimeError, ValueError):  # a name too long for the disk, links in a circle
        inside = False
    if not inside:
        raise BundleError(f"expected paths inside of the bundle {folder}, found {name[:80]!r}; do not use this bundle")


def _require_whole(content: bytes, path: Path) -> None:
    """Refuse an ONNX file that takes tensors from other files."""
    try:
        model = _reader().FromString(content)
    except (DecodeError, RecursionError) as error:
        raise BundleError(f"expected an ONNX file at {path}, found something else: {error}; export the run again") from error
    if _outside(model):
        raise BundleError(
            f"expected {path} to hold all its tensors, found some that are in other files; do not use this bundle, or export the "
            "run again"
        )


def _outside(message: Message) -> bool:
    """Return whether a tensor somewhere in a message is said to be elsewhere."""
    for described, value in message.ListFields():
        if described.name in ("external", "location"):
            if value:
                return True
        elif any(_outside(one) for one in (value if described.is_repeated else [value])):
            return True
    return False


@cache
def _reader() -> type[Message]:
    """Return a class that parses as much of an ONNX file as tells where its tensors are: devices do not have the package onnx."""
    file = descriptor_pb2.FileDescriptorProto(name="sfumato/onnx_places.proto", package="sfumato.onnx_places", syntax="proto2")
    kinds = descriptor_pb2.FieldDescriptorProto
    for message, places in _ONNX.items():
        made = file.message_type.add(name=message)
        for name, (number, kind) in places.items():
            made.field.add(
                name=name,
                number=number,
                label=kinds.LABEL_REPEATED,
                type=kinds.TYPE_MESSAGE,
                type_name=f".sfumato.onnx_places.{kind}",
            )
    tensor = next(made for made in file.message_type if made.name == "Tensor")
    tensor.field.add(name="location", number=_LOCATION, label=kinds.LABEL_OPTIONAL, type=kinds.TYPE_INT32)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made_class: type[Message] = message_factory.GetMessageClass(pool.FindMessageTypeByName("sfumato.onnx_places.Model"))
    return made_class
