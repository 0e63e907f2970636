# SPDX-License-Identifier: Apache-2.0
"""The manifest of a bundle: what the head takes and sends, what the tail answers, what leaks, and the hash of every file.

It is read on devices, without PyTorch, and before anything else of a bundle is. The file is one particular spelling of its
content and ends in a hash of it: whatever byte is flipped, it is refused. That finds accidents; whoever can write a bundle
can write another hash.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np

from sfumato.deploy.reading import read_record, wrong
from sfumato.errors import BundleError

FORMAT = 1
"""The version of the manifest; raised when a reader of before would misread it."""
FILE = "manifest.json"

WireFormat = Literal["float32", "float16", "uint8"]
TYPES = {"float32": "FP32", "float16": "FP16", "uint8": "UINT8"}
"""The serving protocol's names of number types."""
VERSION = "1"
"""The version of every served model: what changes has another name."""
Distribution = Literal["normal", "uniform", "exponential"]
Task = Literal["classification", "reidentification"]


@dataclass(frozen=True)
class TensorFacts:
    """An input or output of a half, for one picture.

    Attributes:
        name: in the ONNX file and in the protocol.
        type: of its numbers, as NumPy names it.
        shape: without the first dimension, which is that of the batch.
    """

    name: str
    type: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Draw:
    """Random numbers that the head is given: an input of it, (N, *shape), float32.

    Attributes:
        name: of the input.
        distribution: "normal" is N(0, 1), "uniform" is [0, 1), "exponential" has mean 1.
        shape: for one picture.
    """

    name: str
    distribution: Distribution
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Leak:
    """What the strongest attack recovered from what one head sends.

    Attributes:
        attack: its name in the registry.
        part: the pictures that were attacked, "train" or "inference".
        metrics: by name, such as "ssim", the mean over pictures.
    """

    attack: str
    part: str
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class FormatFacts:
    """What was measured with numbers of one format on the wire.

    Attributes:
        wire: the format.
        bytes_per_picture: of one z.
        utility: by name, the headline first, such as {"accuracy": 0.958}.
        leak: None where no attack on features was run.
    """

    wire: WireFormat
    bytes_per_picture: int
    utility: Mapping[str, float]
    leak: Leak | None


@dataclass(frozen=True)
class Parity:
    """How the exported halves compared with PyTorch on real pictures, given the same random numbers.

    Attributes:
        pictures: how many were compared.
        features: the largest difference of z, less what rounding for the wire explains, in units of the number itself or of the
            root mean square of all, the larger of them.
        answers: the largest difference of an answer, in such units.
        draws: how many releases of each picture the noise was compared over; 0 where none is random.
        noise_p: the least p of the tests of its mean and spread, corrected for their number; 1 where none is random.
    """

    pictures: int
    features: float
    answers: float
    draws: int
    noise_p: float


@dataclass(frozen=True)
class Manifest:
    """All that is said of a bundle.

    Attributes:
        name: of the model in the protocol; it ends in hexadecimal digits of the hash of both halves.
        run: that was exported, for people.
        task: what the answers are for.
        wire: the format of z.
        picture: what the head takes, float32.
        draws: the random numbers that it takes beside, in the order of its inputs.
        sent: z, as it crosses the wire.
        answer: what the tail returns, float32: logits, or an embedding.
        labels: the names of the classes; none for an embedding.
        leak: one sentence for people on what leaks through this very head.
        formats: what was measured of each format on the wire, the exported one among them.
        parity: how the export compared with PyTorch.
        files: SHA-256 of each file but the manifest, by its path in the bundle, with forward slashes.
        picture_range: the least and the greatest number of a picture, [0, 1].
        versions: that it was made with.
        format: of the manifest.
    """

    name: str
    run: str
    task: Task
    wire: WireFormat
    picture: TensorFacts
    draws: tuple[Draw, ...]
    sent: TensorFacts
    answer: TensorFacts
    labels: tuple[str, ...]
    leak: str
    formats: tuple[FormatFacts, ...]
    parity: Parity
    files: Mapping[str, str]
    picture_range: tuple[float, ...] = (0.0, 1.0)
    versions: Mapping[str, str] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def bytes_per_picture(self) -> int:
        """Bytes of one z on the wire."""
        return np.dtype(self.sent.type).itemsize * math.prod(self.sent.shape)


def to_bytes(manifest: Manifest) -> bytes:
    """Return a manifest as its file holds it: JSON, UTF-8, with the SHA-256 of all else at its end."""
    record = asdict(manifest)
    return _json({**record, "sha256": hashlib.sha256(_json(record)).hexdigest()})


def _json(record: Mapping[str, object]) -> bytes:
    return (json.dumps(record, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()


def from_bytes(content: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        BundleError: it is no manifest, one of another version, or a byte of it was changed.

    Example:
        >>> from_bytes(b'{"format": 7}')
        Traceback (most recent call last):
        sfumato.errors.BundleError: expected a manifest of format 1, found format 7; export the run again with this Sfumato
    """
    try:
        record = json.loads(content, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"expected a manifest in JSON, found something else: {error}; export the run again") from error
    found = record.get("format") if isinstance(record, dict) else None
    if found != FORMAT or isinstance(found, bool):
        raise BundleError(f"expected a manifest of format {FORMAT}, found format {found}; export the run again with this Sfumato")
    manifest = read_record(Manifest, {name: value for name, value in record.items() if name != "sha256"}, "manifest")
    if not _same(manifest, content):
        raise BundleError("the manifest is not as it was written: a byte of it was changed; copy the bundle again")
    _check(manifest)
    return manifest


def _check(manifest: Manifest) -> None:
    """Refuse a manifest that contradicts itself."""
    tensors: tuple[TensorFacts | Draw, ...] = (manifest.picture, manifest.sent, manifest.answer, *manifest.draws)
    for name, shape in [(one.name, one.shape) for one in tensors]:
        if min(shape, default=1) < 1:
            raise wrong(f"the shape of '{name}'", "of positive numbers", shape)
    for one, expected in ((manifest.picture, "float32"), (manifest.sent, manifest.wire), (manifest.answer, "float32")):
        if one.type != expected:
            raise wrong(f"the type of '{one.name}'", expected, one.type)
    if manifest.picture_range != (0.0, 1.0):
        raise wrong("manifest.picture_range", "[0, 1], which devices make of pictures", manifest.picture_range)
    if manifest.wire not in [one.wire for one in manifest.formats]:
        raise wrong("manifest.formats", f"measured for {manifest.wire} too", [one.wire for one in manifest.formats])


def _no_number(word: str) -> object:
    raise ValueError(f"{word} is no number of JSON")


def _same(manifest: Manifest, content: bytes) -> bool:
    try:
        return to_bytes(manifest) == content
    except ValueError:  # half a surrogate pair, which UTF-8 has no bytes for
        return False
