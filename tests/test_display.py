# SPDX-License-Identifier: Apache-2.0
"""What the terminal shows of audits."""

from __future__ import annotations

import json

import pytest

import sfumato.display
from example_audits import asked, audit, inference, inversion, judge, membership, rebuilt, turned, weighed
from sfumato.display import print_audits, print_inversion, print_json, print_membership


def test_audits_of_the_predictions_show_their_attacks_in_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sfumato.display, "_FILE_WIDTH", 80)
    print_audits([asked(membership(inference(adaptive=False), inference("boundary-augmentation", 0.6)))])
    shown, said = capsys.readouterr().out.split("The strongest attack (lira) finds")
    assert max(map(len, shown.splitlines())) <= 80
    for expected in (
        "Strongest attack on predictions",
        "the predictions of digits",
        "0.679–0.721",
        "5.0–9.2",
        "500 + 500",
        "NOT",
    ):
        assert expected in shown, expected
    assert "…" not in shown
    assert "NOT ADAPTIVE: lira." in said
    assert "the largest of several does not." in " ".join(shown.split())


def test_models_in_turn_are_called_so_in_80_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sfumato.display, "_FILE_WIDTH", 80)
    print_membership(membership(turned("boundary-augmentation", 0.6), inference("boundary-augmentation", 0.6)))
    shown, said = capsys.readouterr().out.split("500 members and 500 non-members.")
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.index("500 + 500") < shown.index("16 models in") < shown.index("8,000 +")
    assert "Over 16 models in turn boundary-augmentation finds" in said


def test_audits_of_features_show_no_attacks_on_predictions(capsys: pytest.CaptureFixture[str]) -> None:
    print_audits([audit()])
    assert "redictions" not in capsys.readouterr().out


def test_a_table_of_answers_shows_what_was_asked(capsys: pytest.CaptureFixture[str]) -> None:
    print_membership(membership())
    out = capsys.readouterr().out
    assert out.index("a table of logits") < out.index("lira") < out.index("500 members and 500 non-members.")
    assert out.rstrip().endswith("lira reaches 60.0 % (58.2 to 61.8).")


def test_a_record_is_printed_in_plain_letters(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"title": "画"})
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {"title": "画"}


def test_audits_of_the_weights_show_their_attacks_in_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sfumato.display, "_FILE_WIDTH", 80)
    print_audits([weighed(inversion(rebuilt("mirror-black-box"), rebuilt("kedmi", 0.6, prior="inversion", unreached=3)))])
    shown, said = capsys.readouterr().out.split("The strongest attack on the weights (kedmi")
    assert max(map(len, shown.splitlines())) <= 80
    for expected in ("the weights of portraits", "54.0–66.0", "3 of 20", "mirror-black-box", "as the evaluator sees"):
        assert expected in shown, expected
    assert "…" not in shown
    assert "is right on 96.2 % (95.2 to 97.2) of held-out pictures" in said


def test_what_was_found_of_the_weights_alone_says_who_judged(capsys: pytest.CaptureFixture[str]) -> None:
    print_inversion(inversion(evaluator=judge(0.5)))
    out = capsys.readouterr().out
    warned = out.index("below its gate of 80.0 %: nothing is concluded from top-1")
    assert warned < out.index("kedmi") < out.index("Nothing is concluded about the weights.")
