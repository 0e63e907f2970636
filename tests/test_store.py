# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nets import small_net
from sfumato.errors import StorageError, WeightsError
from sfumato.files import load_into, read_tensors, write_atomic, write_tensors
from sfumato.store import Store, digest


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_stage_is_keyed_by_its_definition_and_kind(tmp_path: Path) -> None:
    store = Store(tmp_path)
    a = store.stage("target", {"seed": 0, "model": "vgg11"})
    assert a.key == store.stage("target", {"model": "vgg11", "seed": 0}).key
    assert a.key != store.stage("target", {"seed": 1, "model": "vgg11"}).key
    assert a.key != store.stage("audit", {"seed": 0, "model": "vgg11"}).key
    assert digest({"a": (1, 2)}) == digest({"a": [1, 2]})


def test_a_stage_is_done_when_it_says_so_last(tmp_path: Path) -> None:
    stage = Store(tmp_path).stage("target", {"seed": 0})
    with stage.claim():
        stage.checkpoint.write_bytes(b"x")
        assert not stage.done
        stage.finish({"accuracy": 1.0})
    assert stage.done
    assert not stage.checkpoint.exists()
    assert stage.facts() == {"accuracy": 1.0}


def test_a_stage_is_held_by_one_process_and_freed_by_its_death(tmp_path: Path) -> None:
    stage = Store(tmp_path).stage("target", {"seed": 0})
    code = (
        "import sys, time; from pathlib import Path; from sfumato.store import Store\n"
        "with Store(Path(sys.argv[1])).stage('target', {'seed': 0}).claim():\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    with other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StorageError, match="another process is computing"), stage.claim():
            pass
        other.kill()
        other.wait()
    with stage.claim():
        pass


def test_facts_that_cannot_be_read_name_the_file(tmp_path: Path) -> None:
    stage = Store(tmp_path).stage("target", {})
    stage.folder.mkdir(parents=True)
    (stage.folder / "done.json").write_text("{")
    with pytest.raises(StorageError, match="done.json"):
        stage.facts()


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_atomic(tmp_path / "a" / "file", b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"cannot write .*file: no space left on the disk; free some"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_run_that_cannot_be_published_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(StorageError, match="no space left"):
        Store(tmp_path).publish("run", {"weights": source})
    assert list((tmp_path / "run").iterdir()) == []


def test_other_failures_of_the_disk_say_what_the_system_says(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Not a directory|File exists"):
        write_atomic(tmp_path / "file" / "below", b"")


def test_tensors_come_back_with_their_facts_though_they_share_memory(tmp_path: Path) -> None:
    a = torch.rand(3, 2)
    path = write_tensors(tmp_path / "t.safetensors", {"a": a, "b": a, "t": a.t()}, {"k": "v"})
    tensors, facts = read_tensors(path)
    assert facts == {"k": "v"}
    assert torch.equal(tensors["a"], a)
    assert torch.equal(tensors["b"], a)
    assert torch.equal(tensors["t"], a.t())


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"x" * 1000])
def test_what_is_not_safetensors_is_refused_and_never_unpickled(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="expected a whole safetensors file.*loads no pickles"):
        read_tensors(path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = write_tensors(tmp_path / "weights.safetensors", small_net().state_dict())
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(WeightsError, match="truncated or of another format"):
        read_tensors(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="found none"):
        read_tensors(tmp_path / "none")


def test_the_weights_of_another_model_are_refused_and_nothing_is_loaded() -> None:
    net, other = small_net(), small_net(classes=3)
    tensors = {name: value + 1 for name, value in other.state_dict().items() if name != "0.bias"} | {"extra": torch.zeros(1)}
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(
        WeightsError, match=r"1 missing \(0.bias\); 1 not of this model \(extra\); 2 of another shape \(6.weight \(3,"
    ):
        load_into(net, tensors, source="w")
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
