# SPDX-License-Identifier: Apache-2.0
"""What was found of the weights comes back from JSON exactly, pictures included, and another record is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings

from example_audits import (
    assert_same_gallery,
    audit,
    exhibit,
    inversion,
    inversions,
    inverted,
    pixels,
    rebuilt,
    weighed,
)
from sfumato.errors import ConfigError
from sfumato.inversion_record import (
    inversion_from_json,
    inversion_result_from_json,
    inversion_result_to_json,
    inversion_to_json,
)
from sfumato.inversion_types import Inversion, InversionExhibit, InversionResult
from sfumato.record import from_json, to_json


@given(inversions)
@settings(max_examples=30, deadline=None)
def test_json_comes_back_exactly(written: Inversion) -> None:
    read = inversion_from_json(json.loads(json.dumps(inversion_to_json(written), allow_nan=False)))
    assert repr(read) == repr(written)  # repr, since NaN differs from itself; it leaves out classes and gallery
    assert repr([one.classes for one in read.results]) == repr([one.classes for one in written.results])
    assert_same_gallery(read, written)


@given(inverted)
@settings(max_examples=20, deadline=None)
def test_one_result_comes_back_exactly(written: InversionResult) -> None:
    text = json.dumps(inversion_result_to_json(written), allow_nan=False)
    assert repr(inversion_result_from_json(json.loads(text))) == repr(written)


def test_json_has_the_keys_that_others_read() -> None:
    record: dict[str, Any] = inversion_to_json(inversion(rebuilt()))
    assert list(record) == [
        "format", "surface", "title", "identities", "outputs", "attacks", "evaluator", "floor", "ceiling", "priors", "overlap",
        "untested", "seeds", "versions", "hardware", "gallery",
    ]  # fmt: skip
    assert (record["format"], record["surface"], record["identities"], record["outputs"]) == (1, "weights", 20, 40)
    (attack,) = record["attacks"]
    assert attack["top1"] == pytest.approx({"value": 0.3, "low": 0.27, "high": 0.33})
    assert (attack["face"], attack["factors"], attack["prior"]) == (None, None, "gan")
    assert attack["classes"][0]["name"] == "anna"
    assert record["evaluator"]["gate"] == 0.8
    shown = record["gallery"][0]
    assert (shown["name"], shown["shape"], shown["private"]) == ("anna", [3, 4, 5], None)
    assert [len(one["png"]) for one in shown["rebuilt"]] == [2, 2]


def test_an_exhibit_without_attacks_comes_back() -> None:
    written = inversion(gallery=(InversionExhibit("anna", None, ()),))
    assert inversion_from_json(inversion_to_json(written)).gallery == written.gallery


def test_the_record_of_an_audit_holds_the_same_object() -> None:
    record = to_json(weighed())
    assert record["inversion"] == inversion_to_json(inversion())
    read = from_json(json.loads(json.dumps(record))).inversion
    assert repr(read) == repr(inversion())
    assert to_json(audit())["inversion"] is None


def test_a_record_from_before_there_were_weights_is_read() -> None:
    record = to_json(audit())
    del record["inversion"]
    assert from_json(record).inversion is None


def test_keys_of_a_later_version_are_passed_over() -> None:
    assert repr(inversion_from_json({**inversion_to_json(inversion()), "later": 1})) == repr(inversion())


@pytest.mark.parametrize("change", [{"surface": "predictions"}, {"format": 2}, {"attacks": [{}]}, {"identities": "many"}])
def test_another_record_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"expected the record of an inversion audit, format 1; found: .*; make one with"):
        inversion_from_json({**inversion_to_json(inversion()), **change})


@pytest.mark.parametrize("missing", ["png", "confidence", "right"])
def test_a_picture_without_a_verdict_is_refused(missing: str) -> None:
    record: dict[str, Any] = inversion_to_json(inversion(gallery=(exhibit("ben", pixels(3)),)))
    record["gallery"][0]["rebuilt"][0][missing].pop()
    with pytest.raises(ConfigError, match=r"one confidence and one verdict for each picture of 'ben' by kedmi, found .* again"):
        inversion_from_json(record)
