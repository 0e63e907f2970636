# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from example_pairs import FACTS
from sfumato.errors import ConfigError, StorageError
from sfumato.studies.answers import Answer, AnswerBook, open_answers, read_answers

SAID = [
    Answer("anna", 2, "first", "second", 4.5, "2026-01-02T03:04:05+00:00"),
    Answer("björn", 0, "skip", "first", 9.0, "2026-01-02T03:04:06+00:00"),
    Answer("anna", 0, "time", "first", 60.0, "2026-01-02T03:05:05+00:00"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with three answers."""
    path = tmp_path / "deeper" / "pairs.jsonl"
    with open_answers(path, FACTS) as book:
        for answer in SAID:
            book.add(answer)
    return path


def test_what_is_stored_is_read(path: Path) -> None:
    assert read_answers(path) == (FACTS, SAID)
    assert len(path.read_bytes().splitlines()) == 4


def test_an_answer_is_on_the_disk_when_add_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, synced = tmp_path / "pairs.jsonl", []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(path.read_bytes()), real(file)))
    with open_answers(path, FACTS) as book:
        book.add(SAID[0])
        assert synced[-1] == path.read_bytes()
        assert len(synced) == 2
        assert read_answers(path)[1] == SAID[:1]


def test_lines_are_only_added(path: Path) -> None:
    before = path.read_bytes()
    with open_answers(path, FACTS) as book:
        assert book.answers == SAID
        book.add(replace(SAID[0], pair=1))
    assert path.read_bytes().startswith(before)


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_line_that_a_crash_cut_off_is_dropped(path: Path, cut: int) -> None:
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_answers(path)[1] == SAID[:2]
    with open_answers(path, FACTS) as book:
        assert book.answers == SAID[:2]
        book.add(SAID[2])
    assert read_answers(path)[1] == SAID


@pytest.mark.parametrize("start", [b"", b"{", b'{"format": 1, "finger'])
def test_a_first_line_that_a_crash_cut_off_is_written_again(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(start)
    with open_answers(path, FACTS) as book:
        book.add(SAID[0])
    assert read_answers(path) == (FACTS, SAID[:1])


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pairs.jsonl"
    with open_answers(path, FACTS) as book:
        book.add(SAID[0])

        def full(file: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(StorageError, match="no space left on the disk"):
                book.add(SAID[1])
        assert book.answers == SAID[:1]
        book.add(SAID[2])
    assert read_answers(path)[1] == [SAID[0], SAID[2]]


def test_a_second_server_is_refused_and_a_reader_is_not(path: Path) -> None:
    with open_answers(path, FACTS):
        with pytest.raises(StorageError, match="another server is storing answers in"), open_answers(path, FACTS):
            pass
        assert read_answers(path)[1] == SAID


def test_answers_on_other_pairs_are_refused_and_kept(path: Path) -> None:
    before = path.read_bytes()
    other = replace(FACTS, fingerprint="0" * 64, rows=("Plain", "TL-DMI"))
    with (
        pytest.raises(
            ConfigError, match=r"3 of gmi on 'Plain' and 'TL-DMI'.*answers on others: 3 of gmi on 'Plain' and 'Smoothed'"
        ),
        open_answers(path, other),
    ):
        pass
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("none", "expected an answer in line 5 of .*, found no JSON; name another file"),
        ('{"participant": "anna"}', "expected an answer in line 5 of .*; found: pair: Field required"),
        (json.dumps({**vars(SAID[0]), "outcome": "both"}), "outcome"),
        (json.dumps({**vars(SAID[0]), "pair": 3}), "expected a pair below 3 in line 5 of .*, found 3"),
    ],
)
def test_a_line_that_is_no_answer_is_named(path: Path, line: str, message: str) -> None:
    path.write_bytes(path.read_bytes() + line.encode() + b"\n")
    with pytest.raises(ConfigError, match=message):
        read_answers(path)


@pytest.mark.parametrize("content", [b"name,choice\nanna,left\n", b"hello", b"[1, 2]\n"])
def test_a_file_of_something_else_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="name another file with --answers"), open_answers(path, FACTS):
        pass
    assert path.read_bytes() == content


def test_answers_that_are_not_there_are_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="collect some with: sfumato study serve-pairs RUN"):
        read_answers(tmp_path / "pairs.jsonl")


def test_books_are_told_apart_by_their_file(path: Path) -> None:
    with open_answers(path, FACTS) as book, open_answers(path.with_name("other.jsonl"), FACTS) as other:
        assert isinstance(book, AnswerBook)
        assert other.answers == []
