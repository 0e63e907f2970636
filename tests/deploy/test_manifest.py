# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from toy_bundles import write_bundle

from sfumato.deploy.manifest import Draw, FormatFacts, Leak, Manifest, TensorFacts, from_bytes, to_bytes
from sfumato.errors import BundleError

Record = dict[str, object]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return write_bundle(tmp_path_factory.mktemp("bundle"), sigma=0.5, wire="uint8")


def signed(record: Record) -> bytes:
    """Return a record as a manifest's file, with the right hash at its end, as somebody malicious would write it."""
    kept = {name: value for name, value in record.items() if name != "sha256"}
    text = (json.dumps(kept, indent=2, ensure_ascii=False) + "\n").encode()
    return (json.dumps({**kept, "sha256": hashlib.sha256(text).hexdigest()}, indent=2, ensure_ascii=False) + "\n").encode()


def test_a_manifest_comes_back_as_it_was(made: Manifest) -> None:
    full = replace(
        made,
        run="Größe 写真 \U0001f642",
        draws=(Draw("draw_0", "normal", (1, 4, 4)), Draw("draw_1", "exponential", ())),
        formats=(*made.formats, FormatFacts("float32", 64, {"accuracy": 0.1 + 0.2}, Leak("gan", "train", {"ssim": 1e-300}))),
    )
    assert from_bytes(to_bytes(full)) == full
    assert signed(json.loads(to_bytes(full))) == to_bytes(full)


def test_every_byte_counts(made: Manifest) -> None:
    content = to_bytes(made)
    for at in range(len(content)):
        flipped = bytearray(content)
        flipped[at] ^= 1 << at % 8
        with pytest.raises(BundleError):
            from_bytes(bytes(flipped))


@pytest.mark.parametrize("mask", [1, 0x20, 0x80, 0xFF])
def test_every_byte_of_the_first_part_counts_whatever_is_flipped(made: Manifest, mask: int) -> None:
    content = to_bytes(made)
    for at in range(0, len(content), 5):
        flipped = bytearray(content)
        flipped[at] ^= mask
        with pytest.raises(BundleError):
            from_bytes(bytes(flipped))


@pytest.mark.parametrize("spelled", [b" %s", b"%s\n", b"%s ", b"\xef\xbb\xbf%s", b"%s%s", b"[%s]"])
def test_another_spelling_is_refused(made: Manifest, spelled: bytes) -> None:
    content = to_bytes(made)
    with pytest.raises(BundleError):
        from_bytes(spelled.replace(b"%s", content))
    with pytest.raises(BundleError):
        from_bytes(json.dumps(json.loads(content)).encode())


def test_half_a_manifest_is_none(made: Manifest) -> None:
    content = to_bytes(made)
    for end in (0, 1, len(content) // 2, len(content) - 1):
        with pytest.raises(BundleError):
            from_bytes(content[:end])


@pytest.mark.parametrize("version", [0, 2, -1, True, 1.5, "1", None, [1]])
def test_another_version_is_told(made: Manifest, version: object) -> None:
    with pytest.raises(BundleError, match="expected a manifest of format 1, found format .*; export the run again"):
        from_bytes(signed({**json.loads(to_bytes(made)), "format": version}))


def change(**fields: object) -> Callable[[Record], Record]:
    return lambda record: {**record, **fields}


def inner(name: str, **fields: object) -> Callable[[Record], Record]:
    return lambda record: {**record, name: {**record[name], **fields}}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (change(name=7), "manifest.name must be of type str, found 7"),
        (change(name=None), "found None"),
        (change(task="ranking"), "manifest.task must be one of classification, reidentification, found 'ranking'"),
        (change(wire="int4"), "manifest.wire must be one of"),
        (change(wire=["uint8"]), "manifest.wire must be one of"),
        (change(wire="float32"), "the type of 'z' must be float32, found 'uint8'"),
        (change(draws=None), "manifest.draws must be a list"),
        (change(draws=[7]), r"manifest.draws\[0\] must be an object with name, distribution, shape"),
        (change(draws=[{"name": "d", "distribution": "cauchy", "shape": [1]}]), "must be one of normal, uniform, exponential"),
        (change(draws=[{"name": "d", "distribution": "normal", "shape": [0]}]), "the shape of 'd' must be of positive numbers"),
        (change(draws=[{"shape": [1], "distribution": "normal", "name": "d"}]), "an object with name, distribution, shape"),
        (change(labels=[1]), r"manifest.labels\[0\] must be of type str"),
        (change(labels="ab"), "manifest.labels must be a list"),
        (change(formats=[]), "measured for uint8 too"),
        (change(files=[]), "manifest.files must be an object"),
        (change(files={"head.onnx": 1}), "manifest.files.head.onnx must be of type str"),
        (change(picture_range=[0.0, 255.0]), r"manifest.picture_range must be \[0, 1\].*found \(0.0, 255.0\)"),
        (change(picture_range=[0.0]), "manifest.picture_range must be"),
        (change(extra=1), "an object with name, run"),
        (lambda record: {name: value for name, value in record.items() if name != "leak"}, "an object with name, run"),
        (inner("picture", shape=[1, -4, 4]), "the shape of 'x' must be of positive numbers"),
        (inner("picture", shape=[1, 4.0, 4]), r"manifest.picture.shape\[1\] must be of type int"),
        (inner("picture", shape=[True, 4, 4]), r"manifest.picture.shape\[0\] must be of type int"),
        (inner("picture", type="uint8"), "the type of 'x' must be float32"),
        (inner("sent", type="object"), "the type of 'z' must be uint8"),
        (inner("answer", type="float64"), "the type of 'answer' must be float32"),
        (inner("parity", pictures=16.0), "manifest.parity.pictures must be of type int"),
        (inner("parity", answers="0"), "manifest.parity.answers must be of type float"),
    ],
)
def test_what_a_manifest_must_not_say(made: Manifest, changed: Callable[[Record], Record], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        from_bytes(signed(changed(json.loads(to_bytes(made)))))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none(made: Manifest, number: str) -> None:
    content = to_bytes(made).replace(b'"accuracy": 1.0', f'"accuracy": {number}'.encode())
    assert content != to_bytes(made)
    with pytest.raises(BundleError):
        from_bytes(content)


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"7", b'"format"', b"[" * 100_000, b"\xff\xfe", b'{"format": 1}'])
def test_files_that_are_no_manifest(content: bytes) -> None:
    with pytest.raises(BundleError):
        from_bytes(content)


def test_a_name_in_half_a_letter_is_refused(made: Manifest) -> None:
    with pytest.raises(BundleError, match="a byte of it was changed"):
        from_bytes(to_bytes(made).replace(b'"run": "toy"', b'"run": "\\ud800"'))


def test_the_bytes_of_a_picture(tmp_path: Path) -> None:
    assert [write_bundle(tmp_path, wire=wire).bytes_per_picture for wire in ("float32", "float16", "uint8")] == [64, 32, 16]
    assert TensorFacts("x", "uint8", ()) != TensorFacts("x", "uint8", (1,))
