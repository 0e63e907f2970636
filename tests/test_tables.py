# SPDX-License-Identifier: Apache-2.0
"""The tables of a report: every number stands where its heading says, and a missing one is named."""

from __future__ import annotations

from dataclasses import replace

from example_audits import audit, before_and_after, certificate, private, result, searched
from sfumato.tables import attack_columns, attack_table, columns, show_value, table


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
    assert rows["Head parameters"] == ("67,890", "67,890")
    assert (rows["Head memory (bytes)"][0], rows["Head MACs"][0]) == ("271,560", "4,321")


def test_table_says_what_hardening_saves_on_the_device() -> None:
    before, after = before_and_after()
    pruned = replace(after, target=replace(after.target, head_parameters=22630, head_memory=None, head_macs=8642))
    rows = dict(table([before, pruned]))
    assert rows["Head parameters"] == ("67,890", "22,630 (66.7 % less)")
    assert rows["Head memory (bytes)"] == ("271,560", "not recorded")
    assert rows["Head MACs"] == ("4,321", "8,642 (100.0 % more)")
    assert dict(table([pruned, before]))["Head parameters"] == ("22,630", "67,890")
    deeper = replace(pruned, target=replace(pruned.target, cut="c4"))
    rows = dict(table([before, deeper]))
    assert (rows["Cut after"], rows["Head parameters"]) == (("c2", "c4"), ("67,890", "22,630"))


def test_table_of_a_search_has_every_rank() -> None:
    rows = table([searched()])
    assert [row.label for row in rows][:5] == ["Rank-1", "Rank-5", "Rank-10", "mAP", "Strongest attack"]
    assert rows[0].cells == ("90.0 % (89.9 to 90.1)",)


def test_table_of_different_tasks_compares_none_of_their_numbers() -> None:
    rows = dict(table([audit(), searched()]))
    assert rows["Accuracy"] == ("98.0 % (97.9 to 98.1)", "another task")
    assert rows["mAP"] == ("another task", "70.0 % (69.3 to 70.7)")


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
    shown = audit(attacks=(result(0.001, part="train"), result(0.5, seed=1), result(0.2, seed=2)))
    rows = attack_table(shown)
    assert [(row.cells[0], row.cells[2]) for row in rows] == [("inference", "2"), ("inference", "1"), ("train", "0")]
    assert all(len(row.cells) + 1 == len(attack_columns(shown)) for row in rows)


def test_table_shows_what_knowing_nothing_reaches_where_it_was_measured() -> None:
    blind = audit(attacks=(result(), result(0.07, name="mean", selection="only")))
    assert dict(table([blind, audit()]))["MSE of the mean picture"] == ("0.0700 (0.0693 to 0.0707)", "not run")
    assert "MSE of the mean picture" not in dict(table([audit()]))


def test_table_says_how_many_releases_an_attack_saw() -> None:
    often = replace(result(0.02, name="averaging"), releases=16)
    assert dict(table([audit(attacks=(often,))]))["Strongest attack"] == (
        "averaging, best epoch, seed 0 (512 pictures, 16 releases of each)",
    )


def test_table_says_how_near_duplicates_were_and_which_device_was_sticky() -> None:
    near = replace(result(0.02, name="averaging-near"), releases=16, gray_levels=2)
    fresh, sticky = audit(attacks=(near,)), audit(target=replace(audit().target, sticky=True))
    rows = dict(table([fresh, sticky]))
    assert rows["Strongest attack"][0] == (
        "averaging-near, best epoch, seed 0 (512 pictures, 16 near-duplicates of each, off by 2/255 at most)"
    )
    assert rows["Device"] == ("not sticky", "taken to be sticky: same bytes, same draw")
    assert "Device" not in dict(table([fresh]))


def test_what_is_private_has_rows_where_any_audit_measured_it() -> None:
    seen = audit(attacks=(private(), private(0.75, name="mirror", mse=0.02), private(1.0, part="train")))
    rows = dict(table([seen, audit()]))
    assert rows["MSE inside"] == ("0.0300 (0.0297 to 0.0303)", "not measured")
    assert rows["MSE outside"][0] == "0.00800 (0.00792 to 0.00808)"
    assert rows["Driver named right"] == ("75.0 % (67.5 to 82.5)", "not asked")
    assert rows["Driver named right as sent"] == ("90.0 % (81.0 to 99.0)", "not asked")
    assert rows["Driver guessed right"] == ("25.0 %", "not asked")
    assert not [label for label in dict(table([audit()])) if "named" in label or "side" in label]


def test_what_is_private_has_columns_in_the_table_of_its_attacks() -> None:
    seen = audit(attacks=(private(), result(0.02, name="mirror")))
    headings = attack_columns(seen)[-7:-2]
    assert headings == ("MSE inside", "MSE outside", "Driver named right", "Driver named right as sent", "Driver guessed right")
    first, second = (row.cells[-7:-2] for row in attack_table(seen))
    assert first[2:] == ("50.0 % (45.0 to 55.0)", "90.0 % (81.0 to 99.0)", "25.0 %")
    assert second == ("not measured", "not measured", "not asked", "not asked", "not asked")
    assert {len(row.cells) + 1 for row in attack_table(seen)} == {len(attack_columns(seen))}
