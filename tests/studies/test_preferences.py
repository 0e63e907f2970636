# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from example_pairs import FACTS
from sfumato.studies.answers import Answer, Choice, Outcome
from sfumato.studies.preferences import (
    PUBLISHED,
    binomial_p,
    preference,
    published,
    sentences,
    tally_table,
    to_json,
    to_markdown,
)


def said(participant: str, pair: int, outcome: Outcome, left: Choice = "first") -> Answer:
    return Answer(participant, pair, outcome, left, 3.0, "")


@pytest.mark.parametrize(("count", "total"), [(0, 1), (3, 4), (5, 10), (9, 10), (0, 12)])
def test_the_p_value_is_the_share_of_fair_coins_at_least_as_far_from_a_half(count: int, total: int) -> None:
    coins = [sum(sides) for sides in product((0, 1), repeat=total)]
    far = [abs(2 * heads - total) >= abs(2 * count - total) for heads in coins]
    assert binomial_p(count, total) == float(Fraction(sum(far), len(far)))


def test_the_p_value_of_the_papers_answers_is_a_number() -> None:
    assert 0.0 <= binomial_p(2613, 3000) < 1e-300


def test_answers_are_counted_and_those_without_a_choice_left_out() -> None:
    answers = [said("anna", 0, "first"), said("anna", 1, "skip"), said("anna", 2, "time"), said("ben", 0, "second", "second")]
    found = preference(FACTS, answers)
    assert [tuple(vars(tally).values()) for tally in found.tallies] == [("anna", 1, 0, 1, 1, 0), ("ben", 0, 1, 0, 0, 2)]
    assert (found.first, found.second, found.p_value) == (1, 1, 1.0)
    assert found.share is not None
    assert found.share.value == 0.5
    assert found.left is not None
    assert found.left.value == 1.0


def test_the_first_answer_on_a_pair_counts() -> None:
    found = preference(
        FACTS, [said("anna", 0, "first"), said("anna", 0, "second"), said("ben", 1, "skip"), said("ben", 1, "first")]
    )
    assert (found.first, found.second) == (1, 0)


def test_the_interval_over_classes_draws_classes_with_all_their_answers() -> None:
    """Ten people who all agree on each of three classes are three observations, not thirty."""
    answers = [said(f"p{person}", pair, "second" if pair == 2 else "first") for person in range(10) for pair in range(3)]
    found = preference(FACTS, answers)
    assert found.share is not None
    assert found.over_classes is not None
    assert found.over_classes.value == found.share.value == 2 / 3
    assert (found.over_classes.low, found.over_classes.high) == (0.0, 1.0)
    assert found.share.low > 0.4


def test_the_interval_over_classes_is_that_of_a_slow_bootstrap() -> None:
    rng = np.random.default_rng(0)
    facts = replace(FACTS, classes=tuple(range(40)))
    answers = [
        said(f"p{person}", pair, "first" if rng.random() < 0.3 + 0.4 * (pair % 2) else "second")
        for pair in range(40)
        for person in range(1 + pair % 3)
    ]
    found = preference(facts, answers).over_classes
    assert found is not None
    own = [[answer.outcome == "first" for answer in answers if answer.pair == pair] for pair in range(40)]
    drawn = []
    for _ in range(4000):
        again = [own[place] for place in rng.integers(0, 40, 40)]
        drawn.append(sum(map(sum, again)) / sum(map(len, again)))
    assert found.low == pytest.approx(np.quantile(drawn, 0.025), abs=0.015)
    assert found.high == pytest.approx(np.quantile(drawn, 0.975), abs=0.015)


def test_without_a_choice_there_is_no_share() -> None:
    found = preference(FACTS, [said("anna", 0, "skip")])
    assert found.share is found.over_classes is found.p_value is found.left is None
    assert "Nobody has chosen a picture yet." in sentences(found)
    assert preference(FACTS, []).tallies == ()
    assert "Nobody" in to_markdown(preference(FACTS, []))


def test_what_is_said_holds_numbers_and_reservations() -> None:
    found = preference(replace(FACTS, unreached=(0, 2)), [said("anna", pair, "first") for pair in range(3)])
    text = "\n".join(sentences(found))
    for part in (
        "3 of 3 answers, 100.0 % (29.2 to 100.0) (exact binomial)",
        "p-value of no preference: 0.250",
        "did not get to 2 of them on 'Smoothed'",
        "are not: with more than one, trust the interval over classes",
        "Pairs without an answer are left out.",
        "87.1 % of the answers for BiDO and 12.9 % for TL-DMI + BiDO, other rows than these",
    ):
        assert part in text


def test_the_paper_is_quoted_as_it_is() -> None:
    assert sum(PUBLISHED.values()) == 100.0
    assert "other rows" not in published(replace(FACTS, rows=("TL-DMI + BiDO", "BiDO")))


def test_the_table_has_a_line_for_each_and_one_for_all() -> None:
    headings, rows = tally_table(preference(FACTS, [said("anna", 0, "first"), said("ben", 1, "second")]))
    assert headings == ["participant", "Plain", "Smoothed", "can't tell", "time over", "not shown"]
    assert [(row.label, row.cells) for row in rows] == [
        ("anna", ("1", "0", "0", "0", "2")),
        ("ben", ("0", "1", "0", "0", "2")),
        ("all", ("1", "1", "0", "0", "4")),
    ]
    assert len(tally_table(preference(FACTS, [said("anna", 0, "first")]))[1]) == 1


def test_the_record_is_json_and_markdown_escapes_names() -> None:
    found = preference(FACTS, [said("a|b*", 0, "first")])
    record = json.loads(json.dumps(to_json(found)))
    assert record["first"] == 1
    assert record["facts"]["fingerprint"] == FACTS.fingerprint
    assert record["published_percent"] == PUBLISHED
    assert r"a\|b\*" in to_markdown(found)
