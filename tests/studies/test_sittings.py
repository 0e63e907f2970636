# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clock import Clock
from example_pairs import telling_pairs
from sfumato.errors import ConfigError, StorageError
from sfumato.studies.answers import Answer, AnswerBook, open_answers
from sfumato.studies.sittings import Said, Shown, Sittings

PAIRS = telling_pairs(count=30)
KINDS = {200: "real", 20: "first", 90: "second"}


@pytest.fixture
def book(tmp_path: Path) -> Iterator[AnswerBook]:
    with open_answers(tmp_path / "pairs.jsonl", PAIRS.facts) as book:
        yield book


@pytest.fixture
def sittings(book: AnswerBook, clock: Clock) -> Sittings:
    return Sittings(PAIRS, book, seconds=10, clock=clock)


def look(sittings: Sittings, shown: Shown | None) -> tuple[int, list[str]]:
    """The class of a pair, and what its pictures are."""
    assert shown is not None
    pixels = []
    for name in shown.pictures:
        content = sittings.picture(name)
        assert content is not None
        pixels.append(np.asarray(Image.open(io.BytesIO(content)))[0, 0])
    (number,) = {int(pixel[1]) for pixel in pixels}
    return number, [KINDS[int(pixel[0])] for pixel in pixels]


def through(sittings: Sittings, name: str, said: Said = "left") -> list[tuple[int, list[str]]]:
    """Everything that somebody sees to the end."""
    seen = []
    while (shown := sittings.show(name)) is not None:
        seen.append(look(sittings, shown))
        assert sittings.answer(name, shown.key, said)
    return seen


@pytest.mark.parametrize("said", ["left", "right", "skip", "time"])
def test_what_is_stored_is_what_was_seen(sittings: Sittings, book: AnswerBook, clock: Clock, said: Said) -> None:
    name = sittings.enter("anna")
    shown = sittings.show(name)
    number, (real, left, right) = look(sittings, shown)
    assert (real, {left, right}) == ("real", {"first", "second"})
    clock.now += 2.5
    assert shown is not None
    sittings.answer(name, shown.key, said)
    outcome = {"left": left, "right": right}.get(said, said)
    assert book.answers == [Answer("anna", number, outcome, left, 2.5, book.answers[0].at)]  # type: ignore[arg-type]


def test_everybody_gets_all_pairs_in_an_order_and_with_sides_of_their_own(sittings: Sittings) -> None:
    seen = {name: through(sittings, sittings.enter(name)) for name in ("anna", "ben")}
    for own in seen.values():
        assert sorted(number for number, _ in own) == list(range(30))
        assert 5 <= sum(kinds[1] == "first" for _, kinds in own) <= 25
    assert [number for number, _ in seen["anna"]] != [number for number, _ in seen["ben"]]
    assert dict((number, kinds[1]) for number, kinds in seen["anna"]) != dict((number, kinds[1]) for number, kinds in seen["ben"])
    assert sittings.progress("anna") == (30, 30)


def test_another_server_goes_on_where_the_first_stopped(book: AnswerBook) -> None:
    first = Sittings(PAIRS, book)
    whole = Sittings(PAIRS, AnswerBook(book.path, [], book._file))
    order = []
    name = whole.enter("anna")
    for _ in range(4):
        shown = whole.show(name)
        order.append(look(whole, shown))
        assert shown is not None
        whole.answer(name, shown.key, "skip")
    name = first.enter("anna")
    for _ in range(2):
        shown = first.show(name)
        assert shown is not None
        first.answer(name, shown.key, "left")
    again = Sittings(PAIRS, book)
    assert again.progress(again.enter("anna")) == (2, 30)
    assert look(again, again.show("anna")) == order[2]


def test_a_page_that_is_loaded_again_shows_the_same_pair_and_no_longer(sittings: Sittings, clock: Clock) -> None:
    name = sittings.enter("anna")
    first = sittings.show(name)
    clock.now += 4
    sittings.enter("anna")
    second = sittings.show(name)
    assert first is not None
    assert second is not None
    assert (first.key, first.pictures, first.seconds) == (second.key, second.pictures, 10.0)
    assert second.seconds == 6.0


def test_a_pair_whose_time_is_over_is_not_shown_again(sittings: Sittings, book: AnswerBook, clock: Clock) -> None:
    name = sittings.enter("anna")
    first = sittings.show(name)
    clock.now += 10
    second = sittings.show(name)
    assert first is not None
    assert second is not None
    assert second.key != first.key
    assert [answer.outcome for answer in book.answers] == ["time"]
    assert not sittings.answer(name, first.key, "left")
    assert len(book.answers) == 1


@pytest.mark.parametrize(("late", "outcome"), [(11.5, "chosen"), (12.5, "time")])
def test_an_answer_may_arrive_a_little_late(
    sittings: Sittings, book: AnswerBook, clock: Clock, late: float, outcome: str
) -> None:
    shown = sittings.show(sittings.enter("anna"))
    clock.now += late
    assert shown is not None
    sittings.answer("anna", shown.key, "left")
    assert (book.answers[0].outcome == "time") == (outcome == "time")


def test_an_answer_that_is_sent_twice_counts_once(sittings: Sittings, book: AnswerBook) -> None:
    shown = sittings.show(sittings.enter("anna"))
    assert shown is not None
    assert sittings.answer("anna", shown.key, "left")
    assert not sittings.answer("anna", shown.key, "right")
    assert len(book.answers) == 1


def test_an_answer_that_cannot_be_stored_may_be_said_again(
    sittings: Sittings, book: AnswerBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = sittings.show(sittings.enter("anna"))
    assert shown is not None

    def full(answer: Answer) -> None:
        raise StorageError("full")

    with monkeypatch.context() as patch:
        patch.setattr(book, "add", full)
        with pytest.raises(StorageError):
            sittings.answer("anna", shown.key, "left")
    assert sittings.progress("anna") == (0, 30)
    assert sittings.answer("anna", shown.key, "left")
    assert len(book.answers) == 1


def test_who_gives_no_name_gets_a_number_that_nobody_has(sittings: Sittings) -> None:
    assert sittings.enter("participant 2") == "participant 2"
    assert [sittings.enter(" ") for _ in range(3)] == ["participant 1", "participant 3", "participant 4"]


@pytest.mark.parametrize("name", ["x" * 61, "a\x00b", "\u202eanna"])
def test_a_name_that_cannot_be_shown_is_refused(sittings: Sittings, name: str) -> None:
    with pytest.raises(ConfigError, match="a name must be at most 60 letters that can be printed"):
        sittings.enter(name)


def test_strangers_and_keys_of_others_are_refused(sittings: Sittings) -> None:
    with pytest.raises(ConfigError, match="a participant who came in"):
        sittings.show("anna")
    shown = sittings.show(sittings.enter("anna"))
    sittings.show(sittings.enter("ben"))
    assert shown is not None
    for key in ("", shown.key):
        with pytest.raises(ConfigError, match="the key of the pair that is shown"):
            sittings.answer("ben", key, "left")


def test_nothing_tells_the_rows_apart_but_the_pixels(sittings: Sittings) -> None:
    """Names are drawn anew for each participant, and all files are of one length."""
    names, lengths = [], set()
    for who in ("anna", "ben"):
        shown = sittings.show(sittings.enter(who))
        assert shown is not None
        names += [*shown.pictures, shown.key]
        lengths |= {len(sittings.picture(name) or b"") for name in shown.pictures}
    assert len(set(names)) == 8
    assert len(lengths) == 1


def test_pictures_are_gone_once_the_pair_is_through(sittings: Sittings) -> None:
    shown = sittings.show(sittings.enter("anna"))
    assert shown is not None
    sittings.answer("anna", shown.key, "left")
    assert [sittings.picture(name) for name in shown.pictures] == [None] * 3
