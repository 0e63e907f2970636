# SPDX-License-Identifier: Apache-2.0
"""Tokens: who has one is known by name, and a file that is not safe is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfumato.deploy.serving.tokens import LONGEST, read_tokens
from sfumato.errors import ConfigError

GATE, YARD = "g" * 32, "y" * 40


def write(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "tokens"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_token_has_a_name(tmp_path: Path) -> None:
    tokens = read_tokens(write(tmp_path, f"# who\n\ngate {GATE}\nyard\t{YARD}\n"))
    assert [tokens.name_of(word) for word in (GATE, YARD, GATE[:-1], GATE + "g", "", "\udcff")] == ["gate", "yard", *[None] * 4]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "found none"),
        ("# nothing\n", "found none"),
        (f"gate {GATE[:-1]}", "line 1: expected a token of 32 to 512 printable characters, found 31"),
        (f"gate {'x' * (LONGEST + 1)}", "found 513"),
        (f"gate {GATE}é", "line 1"),
        (f"a {GATE}\nb {GATE}", "line 2: expected another name"),
        (f"a {GATE}\na {YARD}", "line 2: expected another name"),
        (f"{GATE}", 'line 1: expected "name token"'),
        (f"gate {GATE} more", 'line 1: expected "name token"'),
        (f"ga/te {GATE}", 'line 1: expected "name token"'),
        (f"{'n' * 65} {GATE}", 'line 1: expected "name token"'),
    ],
)
def test_a_wrong_file_is_refused_and_no_token_told(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_tokens(write(tmp_path, text))
    assert said in str(refused.value)
    assert "gggg" not in str(refused.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o620, 0o602])
def test_a_file_that_others_can_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match="chmod 600"):
        read_tokens(write(tmp_path, f"gate {GATE}", mode))


def test_a_missing_file_and_one_of_bytes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_tokens(tmp_path / "nothing")
    path = write(tmp_path, "")
    path.write_bytes(b"gate \xff\xfe")
    with pytest.raises(ConfigError, match="no text in UTF-8"):
        read_tokens(path)


def test_the_longest_name_and_the_longest_token_are_taken(tmp_path: Path) -> None:
    assert read_tokens(write(tmp_path, f"{'n' * 64} {'t' * LONGEST}")).name_of("t" * LONGEST) == "n" * 64
