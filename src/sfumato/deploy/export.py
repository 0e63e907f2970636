# SPDX-License-Identifier: Apache-2.0
"""Export a target: both halves as ONNX, checked against PyTorch, measured in each format, written as one bundle or not at all.

export(target, data, "bundle", wire="uint8")

bundle/
  manifest.json   what it is, and the hash of every other file
  head.onnx       for the device, with every `protect`
  head.pte        the same for ExecuTorch, where asked for
  tail.onnx       for the server, with every `release`
  recipe.toml     what was trained
  repository/     the tail once more, for Triton, KServe and MLServer
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from sfumato.audit import versions
from sfumato.data.base import Data
from sfumato.data.loader import as_images
from sfumato.defenses.compose import Compose
from sfumato.deploy import manifest as manifests
from sfumato.deploy.bundle import HEAD, RECIPE, TAIL
from sfumato.deploy.exporting.calibration import Wire
from sfumato.deploy.exporting.formats import WIRES, Auditor, Format, measure_format, wire_for
from sfumato.deploy.exporting.halves import ANSWER, FEATURES, PICTURES, Halves, halve, head_file, tail_file
from sfumato.deploy.exporting.mobile import PROGRAM, head_program, require_executorch
from sfumato.deploy.exporting.onnx_files import require_onnx
from sfumato.deploy.exporting.parity import Exported, check_parity
from sfumato.deploy.manifest import Manifest, Parity, TensorFacts, WireFormat
from sfumato.deploy.repository import write_repository
from sfumato.errors import ExportError
from sfumato.files import disk_errors
from sfumato.models.resolve import check_model
from sfumato.split import Split
from sfumato.target import Target

_COMPARED = 64
"""Test pictures that the export is compared with PyTorch on."""


@dataclass(frozen=True)
class Export:
    """A bundle that was written.

    Attributes:
        folder: of the bundle.
        manifest: what it is.
        formats: what was measured of each format.
    """

    folder: Path
    manifest: Manifest
    formats: tuple[Format, ...]

    def __str__(self) -> str:
        """Return what was written where, and what leaks, in two lines."""
        size = f"{self.manifest.bytes_per_picture:,} bytes of {self.manifest.wire} for each picture"
        return f"bundle: {self.folder}, model {self.manifest.name}, {size}\n{self.manifest.leak}"


def export(
    target: Target | Split,
    data: Data,
    to: str | Path,
    *,
    name: str = "target",
    wire: WireFormat = "float32",
    only: bool = False,
    executorch: bool = False,
    force: bool = False,
    seed: int = 0,
    audited: Auditor | None = None,
    recipe: str = "",
) -> Export:
    """Write a bundle.

    Args:
        target: trained; left as it is found. A split model without a defense is one too.
        data: its pictures: a format is calibrated on training pictures, all else is measured on test pictures.
        to: folder of the bundle.
        name: of what is exported; that of the model in the protocol begins with it.
        wire: format of z.
        only: measure this format alone.
        executorch: write the head for ExecuTorch too.
        force: replace a bundle that is there.
        seed: of the defense's random numbers in what is measured, the ranges of uint8 too. No noise of a device depends on it.
        audited: attacks the target with a format on its wire; None says nothing of what leaks.
        recipe: what was trained, TOML.

    Returns:
        What was written.

    Raises:
        ExportError: the target cannot be exported, or its export computes something else, or there is something at `to`; nothing
            is written.
        ModelError: the model does not take the pictures, or has another number of outputs than the data has classes.
        StorageError: the bundle cannot be written.

    Example:
        >>> import tempfile
        >>> import sfumato as sf
        >>> data = sf.load_data((torch.rand(40, 1, 8, 8), torch.arange(40) % 2))
        >>> split = sf.split(sf.build_model("lenet5", classes=2, shape=(1, 8, 8)), at="c1")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     made = export(split, data, Path(folder) / "bundle", wire="uint8", only=True)
        >>> made.manifest.sent
        TensorFacts(name='z', type='uint8', shape=(6, 4, 4))
    """
    folder = require_free(Path(to), force=force)
    require_onnx()  # before seconds of work
    if executorch:
        require_executorch()
    if not isinstance(target, Target | Split):
        raise ExportError(
            f"expected a split model, or a target, got {type(target).__name__}; cut it with sf.split(model, at=...)"
        )
    target = target if isinstance(target, Target) else Target(target, Compose())
    check_model(target.split, classes=len(data.classes), shape=data.shape, name="the target")
    packed = wire_for(wire, target, data, seed=seed)
    halves = halve(target, packed, data.shape, data.task)
    files = {HEAD: head_file(halves), TAIL: tail_file(halves), RECIPE: (recipe or _said_of(target)).encode()}
    parity = check_parity(halves, Exported(files[HEAD], files[TAIL]), _pictures(data), seed=seed)
    if executorch:
        files[PROGRAM] = head_program(halves)
    wires = [packed if one == wire else wire_for(one, target, data, seed=seed) for one in WIRES if one == wire or not only]
    formats = tuple(measure_format(target, data, one, seed=seed, audited=audited) for one in wires)
    manifest = replace(_manifest(halves, data, parity, formats), name=_model_name(name, files), run=name)
    with _writing(require_free(folder, force=force)) as part:  # again: minutes have passed
        written = _write(part, files, manifest)
    return Export(folder, written, formats)


def require_free(folder: Path, *, force: bool) -> Path:
    """Return a folder that a bundle may be written to: one that is not there, an empty one, or by force one with a bundle.

    Args:
        folder: where the bundle shall be.
        force: whether a bundle there may be replaced.

    Raises:
        ExportError: there is something else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return folder
    if not ((folder / manifests.FILE).is_file() and (folder / TAIL).is_file()):
        found = "a folder of something else" if folder.is_dir() else "a file"
        raise ExportError(f"expected a new folder for the bundle, found {found} at {folder}; give another one")
    if not force:
        raise ExportError(f"expected a new folder for the bundle, found another bundle at {folder}; --force replaces it")
    return folder


def _said_of(target: Target) -> str:
    defense = " ".join(str(target.defense).split())
    return f"# No recipe: {target.split.name} cut at '{target.split.at}', {defense}, exported from Python.\n"


def _pictures(data: Data) -> Tensor:
    """Return test pictures, spread over all, (N, C, H, W), [0, 1], on the CPU."""
    part = data.part("test")
    return as_images(part.read(torch.linspace(0, len(part) - 1, min(_COMPARED, len(part))).long()), "cpu")


def _model_name(run: str, files: Mapping[str, bytes]) -> str:
    """Return a name that no other export has: digits of the hash of both halves end it."""
    plain = re.sub(r"[^A-Za-z0-9_.]+", "-", run).strip("-.") or "target"
    return f"{plain}-{hashlib.sha256(files[HEAD] + files[TAIL]).hexdigest()[:8]}"


def _manifest(halves: Halves, data: Data, parity: Parity, formats: tuple[Format, ...]) -> Manifest:
    """Return the manifest of an export, without its names and files."""
    wire: Wire = halves.head.wire
    with torch.no_grad():
        answer = halves.tail(wire.pack(torch.zeros(1, *halves.feature_shape)))
    return Manifest(
        name="",
        run="",
        task=data.task,
        wire=wire.wire,
        picture=TensorFacts(PICTURES, "float32", halves.picture_shape),
        draws=halves.draws,
        sent=TensorFacts(FEATURES, wire.wire, halves.feature_shape),
        answer=TensorFacts(ANSWER, "float32", tuple(answer.shape[1:])),
        labels=tuple(data.classes) if data.task == "classification" else (),
        leak=next(one.leak for one in formats if one.wire is wire),
        formats=tuple(one.facts for one in formats),
        parity=parity,
        files={},
        versions={**versions(), "onnx": version("onnx")},
    )


@contextmanager
def _writing(folder: Path) -> Iterator[Path]:
    """Write a folder inside a `with` block: beside it, to take its place whole when the block is over."""
    folder = folder.resolve()  # "." has no name, and a link is not what is replaced
    part, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{ending}") for ending in ("part", "old"))
    try:
        with disk_errors(folder, "write"):
            part.mkdir(parents=True)
            yield part
            if folder.exists():
                folder.replace(old)
            part.replace(folder)
    finally:
        if old.exists() and not folder.exists():
            old.replace(folder)  # what was there stays where the new one could not take its place
        for left in (part, old):
            shutil.rmtree(left, ignore_errors=True)


def _write(folder: Path, files: Mapping[str, bytes], manifest: Manifest) -> Manifest:
    """Write the files of a bundle, and last the manifest, which is returned with their hashes."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    names = (*files, *write_repository(folder, manifest))
    hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    whole = replace(manifest, files=hashes)
    (folder / manifests.FILE).write_bytes(manifests.to_bytes(whole))
    return whole
