# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import sfumato as sf
from example_reid import street, street_split
from nets import small_net
from sfumato.deploy import export as exporting
from sfumato.deploy import manifest as manifests
from sfumato.deploy.bundle import open_bundle
from sfumato.deploy.draws import Fresh, fill
from sfumato.deploy.export import Export, export
from sfumato.deploy.exporting.formats import Format
from sfumato.deploy.manifest import Draw, TensorFacts
from sfumato.errors import ExportError, ModelError, StorageError
from sfumato.target import Target


def target(*defenses: sf.Defense) -> Target:
    return Target(sf.split(small_net(), at="2", name="small").eval(), sf.Compose(*defenses))


@pytest.fixture(scope="module")
def made(blobs: sf.Data, tmp_path_factory: pytest.TempPathFactory) -> Export:
    noisy = target(sf.Noise(sigma=0.1))
    return export(noisy, blobs, tmp_path_factory.mktemp("export") / "bundle", name="demo/after", wire="uint8")


@pytest.fixture(scope="module")
def plain(blobs: sf.Data, tmp_path_factory: pytest.TempPathFactory) -> Export:
    return export(target(), blobs, tmp_path_factory.mktemp("export") / "bundle", only=True)


@pytest.fixture
def bundle(plain: Export, tmp_path: Path) -> Path:
    """A copy of a bundle to write over."""
    return Path(shutil.copytree(plain.folder, tmp_path / "bundle"))


def test_a_bundle_is_what_its_manifest_says(made: Export, blobs: sf.Data) -> None:
    manifest = open_bundle(made.folder, "head").manifest
    assert manifest == made.manifest
    assert re.fullmatch(r"demo-after-[0-9a-f]{8}", manifest.name)
    halves = b"".join((made.folder / name).read_bytes() for name in ("head.onnx", "tail.onnx"))
    assert hashlib.sha256(halves).hexdigest().startswith(manifest.name[-8:])
    assert manifest.picture == TensorFacts("x", "float32", (1, 8, 8))
    assert manifest.draws == (Draw("draw_0", "normal", (4, 8, 8)),)
    assert manifest.sent == TensorFacts("z", "uint8", (4, 8, 8))
    assert manifest.answer == TensorFacts("answer", "float32", (2,))
    assert manifest.labels == blobs.classes
    assert [one.wire for one in manifest.formats] == ["float32", "float16", "uint8"]
    assert manifest.bytes_per_picture == 256
    assert manifest.parity.pictures == len(blobs.part("test"))
    assert manifest.picture_range == (0.0, 1.0)
    assert "No attack was run" in manifest.leak
    assert str(made) == f"bundle: {made.folder}, model {manifest.name}, 256 bytes of uint8 for each picture\n{manifest.leak}"
    files = {path.relative_to(made.folder).as_posix() for path in made.folder.rglob("*") if path.is_file()}
    assert files == {*manifest.files, "manifest.json"}
    for path in made.folder.rglob("*"):
        assert not path.is_file() or str(Path.cwd()).encode() not in path.read_bytes()


def test_head_then_tail_answer_what_the_target_does(made: Export, blobs: sf.Data) -> None:
    head, tail = (onnxruntime.InferenceSession(open_bundle(made.folder, half).model) for half in ("head", "tail"))
    x = blobs.part("test").read(torch.arange(len(blobs.part("test")))).float() / 255
    draws = fill(made.manifest.draws, x.numpy(), Fresh())
    (z,) = head.run(None, {"x": x.numpy(), **draws})
    (answer,) = tail.run(None, {"z": z})
    model = target().split
    with torch.no_grad():
        features = model.head(x) + 0.1 * torch.from_numpy(draws["draw_0"])
        expected, silent = model.tail(features).numpy(), model.tail(model.head(x)).numpy()
    step = float(features.max() - features.min()) / 255  # of uint8; the tail's small weights average its errors
    np.testing.assert_allclose(answer, expected, atol=3 * step)
    assert np.abs(silent - expected).max() > 10 * step  # without the noise it would be another answer


def test_a_head_can_only_be_answered_by_its_own_tail(made: Export, blobs: sf.Data, tmp_path: Path) -> None:
    other = export(target(sf.Noise(sigma=0.2)), blobs, tmp_path / "bundle", name="demo/after", wire="uint8", only=True)
    assert other.manifest.name != made.manifest.name
    assert other.manifest.name[:-8] == made.manifest.name[:-8]
    assert [one.wire for one in other.manifest.formats] == ["uint8"]


def test_the_same_target_gives_the_same_files(plain: Export, blobs: sf.Data, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()  # an empty folder is as good as none
    again = export(target(), blobs, tmp_path / "bundle", only=True, seed=5).manifest
    assert again.files == plain.manifest.files
    assert (again.wire, again.draws, again.parity.draws) == ("float32", (), 0)


def test_reidentification_has_an_embedding_and_no_labels(tmp_path: Path) -> None:
    found = export(street_split().eval(), street(), tmp_path / "bundle", only=True).manifest
    assert (found.task, found.labels, found.answer) == ("reidentification", (), TensorFacts("answer", "float32", (16,)))
    assert list(found.formats[0].utility)[0] == "rank-1"


def test_what_differs_from_pytorch_is_not_written(blobs: sf.Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = exporting.head_file
    monkeypatch.setattr(
        exporting,
        "head_file",
        lambda halves: right(replace(halves, head=type(halves.head)(target(sf.Dropout(p=0.5)), halves.head.wire))),
    )
    with pytest.raises(ExportError, match="send what PyTorch does"):
        export(target(sf.Dropout(p=0.4)), blobs, tmp_path / "bundle", only=True)
    assert list(tmp_path.iterdir()) == []


def test_only_a_bundle_is_written_over_and_only_by_force(bundle: Path, blobs: sf.Data) -> None:
    before = open_bundle(bundle, "tail").manifest
    with pytest.raises(ExportError, match="found another bundle.*--force replaces it"):
        export(target(), blobs, bundle, only=True)
    (bundle / "stale").touch()
    after = export(target(), blobs, bundle, wire="float16", only=True, force=True).manifest
    assert open_bundle(bundle, "tail").manifest == after != before
    assert not (bundle / "stale").exists()
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_nothing_but_a_bundle_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / manifests.FILE).touch()  # a manifest alone may be that of something else
    (tmp_path / "file").touch()
    for name, found in (("own", "a folder of something else"), ("file", "a file")):
        with pytest.raises(ExportError, match=f"found {found}"):
            exporting.require_free(tmp_path / name, force=True)


def test_what_comes_there_while_an_export_runs_is_not_written_over(
    blobs: sf.Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = exporting.measure_format

    def slow(*given: Any, **named: Any) -> Format:
        (tmp_path / "bundle").mkdir()
        (tmp_path / "bundle" / "precious").touch()
        return measure(*given, **named)

    monkeypatch.setattr(exporting, "measure_format", slow)
    with pytest.raises(ExportError, match="found a folder of something else"):
        export(target(), blobs, tmp_path / "bundle", only=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["bundle", "precious"]


@pytest.mark.parametrize("error", [OSError(28, "full"), KeyboardInterrupt()], ids=["full disk", "interrupted"])
def test_what_fails_leaves_the_bundle_of_before(error: BaseException, bundle: Path) -> None:
    before = open_bundle(bundle, "tail").manifest
    with (
        pytest.raises(StorageError if isinstance(error, OSError) else KeyboardInterrupt),
        exporting._writing(bundle) as part,
        (part / "half").open("w"),
    ):
        raise error
    assert open_bundle(bundle, "tail").manifest == before
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_a_bundle_that_cannot_take_its_place_leaves_that_of_before(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, right = open_bundle(bundle, "tail").manifest, Path.replace

    def replace_once(path: Path, to: Path) -> Path:
        if path.name.endswith(".part"):
            raise OSError(5, "broken")
        return right(path, to)

    monkeypatch.setattr(Path, "replace", replace_once)
    with pytest.raises(StorageError, match="broken|Input/output"), exporting._writing(bundle):
        pass
    assert open_bundle(bundle, "tail").manifest == before
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_a_link_and_the_folder_that_one_is_in_can_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with exporting._writing(tmp_path / "link") as part:
        (part / "file").touch()
    assert (tmp_path / "link").is_symlink()
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["file"]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with exporting._writing(Path()) as part:
        (part / "file").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "file", "here", "link", "real"]


def test_a_model_of_other_classes_is_refused(blobs: sf.Data, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the target must answer two pictures with float logits of shape \(2, 2\)"):
        export(sf.split(small_net(3), at="2"), blobs, tmp_path / "bundle", only=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("run", "stem"), [("demo/after", "demo-after"), ("../x y", "x-y"), ("///", "target"), ("ÄÖ", "target")])
def test_names_of_models_are_plain(run: str, stem: str) -> None:
    name = exporting._model_name(run, {"head.onnx": b"h", "tail.onnx": b"t"})
    assert re.fullmatch(rf"{stem}-[0-9a-f]{{8}}", name)


def test_a_model_that_is_not_split_is_refused(blobs: sf.Data, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="expected a split model, or a target, got Sequential; cut it with sf.split"):
        sf.export(torch.nn.Sequential(torch.nn.Flatten()), blobs, tmp_path / "bundle")  # type: ignore[arg-type]
