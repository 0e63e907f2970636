# SPDX-License-Identifier: Apache-2.0
"""What was found of the predictions comes back from JSON exactly, has the keys that others read, and says why it refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings

from example_audits import COMPRESSED, REFUSED, asked, audit, inference, inferences, membership, memberships, target
from sfumato.errors import ConfigError
from sfumato.membership_record import (
    membership_from_json,
    membership_result_from_json,
    membership_result_to_json,
    membership_to_json,
)
from sfumato.membership_types import Membership, MembershipResult
from sfumato.record import from_json, to_json


@given(memberships)
@settings(max_examples=40, deadline=None)
def test_json_comes_back_exactly(written: Membership) -> None:
    text = json.dumps(membership_to_json(written), allow_nan=False)
    assert repr(membership_from_json(json.loads(text))) == repr(written)  # repr, since NaN differs from itself


@given(inferences)
@settings(max_examples=20, deadline=None)
def test_one_result_comes_back_exactly(written: MembershipResult) -> None:
    text = json.dumps(membership_result_to_json(written), allow_nan=False)
    assert repr(membership_result_from_json(json.loads(text))) == repr(written)


def test_json_has_the_keys_that_others_read() -> None:
    record = membership_to_json(membership(inference()))
    assert list(record) == [
        "format", "surface", "title", "members", "nonmembers", "attacks", "duplicates", "accuracy", "references", "canaries",
        "untested", "seeds", "versions", "hardware",
    ]  # fmt: skip
    assert (record["format"], record["surface"], record["members"]) == (1, "predictions", 500)
    assert list(record["accuracy"]) == ["members", "nonmembers"]  # type: ignore[call-overload]
    (attack,) = record["attacks"]  # type: ignore[misc]
    assert attack["name"] == "lira"
    assert attack["tpr_at_1"] == pytest.approx({"value": 0.071, "low": 0.0497, "high": 0.0923, "missing": ""})
    for name in ("auc", "balanced_accuracy", "advantage"):
        assert list(attack[name]) == ["value", "low", "high"]
    assert attack["adaptive"] is True
    assert len(attack["roc"]["fpr"]) == len(attack["roc"]["tpr"]) == 51
    assert attack["slices"]["class 3"]["auc"]["value"] == 0.8


def test_a_refused_number_is_null_and_says_why() -> None:
    (attack,) = membership_to_json(membership(inference()))["attacks"]  # type: ignore[misc]
    assert attack["tpr_at_01"] == {"value": None, "low": None, "high": None, "missing": REFUSED.missing}


def test_the_record_of_an_audit_holds_the_same_object() -> None:
    shown = asked()
    record = to_json(shown)
    assert record["membership"] == membership_to_json(membership())
    assert from_json(json.loads(json.dumps(record))).membership == membership()
    assert to_json(audit())["membership"] is None


def test_what_pruning_left_comes_back() -> None:
    written = audit(target=replace(target(), compression=COMPRESSED))
    read = from_json(json.loads(json.dumps(to_json(written))))
    assert read.target.compression == COMPRESSED
    assert read.target.compression.ratio == pytest.approx(16.11, abs=0.01)


def test_a_record_from_before_there_were_predictions_is_read() -> None:
    record = to_json(audit())
    del record["membership"], record["target"]["compression"]  # type: ignore[attr-defined]
    assert from_json(record).membership is None


def test_keys_of_a_later_version_are_passed_over() -> None:
    assert membership_from_json({**membership_to_json(membership()), "later": 1}) == membership()


@pytest.mark.parametrize("change", [{"surface": "features"}, {"format": 2}, {"attacks": [{}]}, {"members": "many"}])
def test_another_record_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"expected the record of a membership audit, format 1; found: .*; make one with"):
        membership_from_json({**membership_to_json(membership()), **change})
