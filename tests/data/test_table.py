# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import sfumato as sf
from sfumato.data.base import Reading
from sfumato.data.table import Table
from sfumato.errors import DataError, MissingDataError
from sfumato.split import whole

X = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
Y = np.arange(40) % 4


@pytest.mark.parametrize(("names", "labels"), [(("x", "y"), Y), (("features", "labels"), np.eye(4)[Y])], ids=["x", "one-hot"])
def test_a_table_is_read_in_both_forms(tmp_path: Path, names: tuple[str, str], labels: np.ndarray) -> None:
    np.savez(tmp_path / "a.npz", **{names[0]: X, names[1]: labels})
    data = Table(path=tmp_path / "a.npz", test=tmp_path / "a.npz").load(Reading())
    assert data.shape == (6, 1, 1)
    assert torch.equal(data.part("train").read(torch.arange(40)).flatten(1), torch.from_numpy(X))
    assert torch.equal(data.part("test").labels, torch.from_numpy(Y))


def test_a_table_is_trained_on(tmp_path: Path) -> None:
    x = X + 3 * np.eye(6, dtype=np.float32)[Y]
    np.savez(tmp_path / "a.npz", x=x, y=Y)
    data = sf.load_data("table", options={"path": str(tmp_path / "a.npz")})
    net = sf.build_model("mlp", classes=4, shape=data.shape, options={"hidden": (16,)})
    train = sf.Train(epochs=60, batch_size=8, optimizer=sf.Optimizer(name="adam", learning_rate=0.01))
    target = sf.harden(whole(net), data, train=train)
    with torch.no_grad():
        found = target(data.part("private").read(torch.arange(32))).argmax(1)
    assert (found == data.part("private").labels).float().mean() > 0.9


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "expected the arrays x and y, or features and labels, found x"),
        ({"x": X[0], "y": Y}, r"expected x of shape \(N, F\) with numbers"),
        ({"x": X.astype(str), "y": Y}, r"expected x of shape \(N, F\) with numbers"),
        ({"x": X, "y": Y[:3]}, "one label for each of 40"),
        ({"x": np.array([{}], dtype=object), "y": Y}, "Python objects are refused"),
    ],
    ids=["no labels", "one row", "texts", "few labels", "pickles"],
)
def test_what_is_no_table_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        Table(path=tmp_path / "a.npz").load(Reading())


def test_a_file_that_is_missing_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="expected a table at"):
        Table(path=tmp_path / "a.npz").load(Reading())
    (tmp_path / "a.npz").write_bytes(b"x,y")
    with pytest.raises(DataError, match="expected a whole .npz file, found another kind"):
        Table(path=tmp_path / "a.npz").load(Reading())
    np.save(tmp_path / "b.npy", X)
    with pytest.raises(DataError, match="expected a whole .npz file, found another kind"):
        Table(path=tmp_path / "b.npy").load(Reading())
    np.savez(tmp_path / "c.npz", z=X)
    with pytest.raises(DataError, match="expected the arrays x and y, or features and labels, found z"):
        Table(path=tmp_path / "c.npz").load(Reading())
