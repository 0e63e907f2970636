# SPDX-License-Identifier: Apache-2.0
"""The tables of a report: every number stands where its heading says, and a missing one is named."""

from __future__ import annotations

from dataclasses import replace

from example_audits import audit, before_and_after, certificate, result
from sfumato.tables import ATTACK_COLUMNS, attack_table, columns, show_value, table


def test_columns() -> None:
    first, second = before_and_after()
    assert columns([first, second]) == ["before", "after"]
    assert columns([second, replace(second, title="other")]) == ["digits", "other"]
    assert columns([first, first]) == ["digits (1)", "digits (2)"]


def test_table_holds_the_strongest_attack_and_the_cost() -> None:
    rows = dict(table(before_and_after()))
    assert rows["Accuracy"] == ("98.0 % (97.9 to 98.1)", "96.0 % (95.9 to 96.1)")
    assert rows["Strongest attack"] == ("decoder, best epoch, seed 0 (512 pictures)",) * 2
    assert rows["MSE"] == ("0.0100 (0.00990 to 0.0101)", "0.0410 (0.0406 to 0.0414)")
    assert rows["PSNR"][0] == "20.00 dB (19.80 to 20.20)"
    assert rows["SSIM"][0] == "0.800 (0.792 to 0.808)"
    assert rows["Bytes sent per picture (float32)"] == ("12,345",) * 2
    assert (rows["Head parameters"][0], rows["Head MACs"][0]) == ("67,890", "4,321")


def test_table_without_attacks_says_so() -> None:
    assert dict(table([audit(attacks=())]))["MSE"] == ("not scored",)


def test_table_names_the_strongest_attack_and_its_pictures() -> None:
    rows = dict(table([audit(attacks=(result(0.02), result(0.01, name="likelihood", selection="only", pictures=1)))]))
    assert rows["Strongest attack"] == ("likelihood, seed 0 (1 picture)",)


def test_table_shows_certified_bits_where_there_are_any() -> None:
    plain, certified, beaten = (audit(certificates=some) for some in ((), (certificate(),), (certificate(0.02),)))
    assert "Certified leak" not in dict(table([plain, audit(certificates=(certificate(values={"dfil": 1.0}),))]))
    assert dict(table([plain, certified, beaten]))["Certified leak"] == (
        "not certified",
        "at most 811 bits per picture",
        "refuted (an attack got below its floor)",
    )


def test_values_are_shown_with_the_unit_of_their_name() -> None:
    assert show_value("entropy_of_x_nats", -2000.4) == ("entropy of x", "−2,000 nats")
    assert show_value("bits", 3.0) == ("bits", "3")
    assert show_value("dfil", float("inf")) == ("dfil", "∞")


def test_attack_table_puts_the_strongest_at_inference_first() -> None:
    rows = attack_table(audit(attacks=(result(0.001, part="train"), result(0.5, seed=1), result(0.2, seed=2))))
    assert [(row.cells[0], row.cells[2]) for row in rows] == [("inference", "2"), ("inference", "1"), ("train", "0")]
    assert all(len(row.cells) + 1 == len(ATTACK_COLUMNS) for row in rows)


def test_table_shows_what_knowing_nothing_reaches_where_it_was_measured() -> None:
    blind = audit(attacks=(result(), result(0.07, name="mean", selection="only")))
    assert dict(table([blind, audit()]))["MSE of the mean picture"] == ("0.0700 (0.0693 to 0.0707)", "not run")
    assert "MSE of the mean picture" not in dict(table([audit()]))


def test_table_says_how_many_releases_an_attack_saw() -> None:
    often = replace(result(0.02, name="averaging"), releases=16)
    assert dict(table([audit(attacks=(often,))]))["Strongest attack"] == (
        "averaging, best epoch, seed 0 (512 pictures, 16 releases of each)",
    )
