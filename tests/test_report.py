# SPDX-License-Identifier: Apache-2.0
"""The report: what it writes can be read back, shows every number, and neither runs nor fetches anything."""

from __future__ import annotations

import errno
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings

from example_audits import (
    Page,
    assert_same,
    audit,
    audits,
    before_and_after,
    certificate,
    pixels,
    private,
    result,
    searched,
    target,
)
from sfumato import report
from sfumato.errors import ConfigError, StorageError
from sfumato.types import Audit, DataFacts, Exhibit

HOSTILE = """</title><script>alert("1")</script> | <img src=x onerror=alert(2)> `a` [b](javascript:c) 画 "'"""


@given(audits)
@settings(max_examples=15, deadline=None)
def test_any_record_can_be_shown(shown: Audit) -> None:
    assert Page(report.to_html([shown, audit()])).all("table")
    assert report.to_markdown([shown]).startswith("# ")


def test_a_file_name_that_is_not_unicode_can_be_written(tmp_path: Path) -> None:
    odd = audit(title="a\udcff", data=DataFacts("digits", "ab", {}, skipped=("b\udcff.png",)))
    for ending in ("html", "md", "json"):
        assert rb"\udcff" in report.save([odd], tmp_path / f"audit.{ending}").read_bytes()


@pytest.mark.parametrize("count", [1, 2])
def test_save_and_load_json(tmp_path: Path, count: int) -> None:
    written = before_and_after()[:count]
    path = report.save(written, tmp_path / "new" / "audit.json")
    assert ("audits" in json.loads(path.read_text(encoding="utf-8"))) == (count == 2)
    for one, other in zip(report.load(path), written, strict=True):
        assert_same(one, other)


def test_an_audit_saves_itself(tmp_path: Path) -> None:
    assert audit().save(tmp_path / "audit.HTML").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert audit().save(tmp_path / "audit.md").read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("name", ["audit.pdf", "audit", "json"])
def test_another_ending_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"\.html, \.md, \.json"):
        report.save([audit()], tmp_path / name)


@pytest.mark.parametrize("ending", ["html", "md", "json"])
def test_no_audit_is_refused_and_writes_nothing(tmp_path: Path, ending: str) -> None:
    with pytest.raises(ConfigError, match="got none"):
        report.save([], tmp_path / f"audit.{ending}")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = report.save([audit()], tmp_path / "audit.json")
    old = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="no space left on the disk"):
        report.save([audit(0.5)], path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        report.save([audit()], tmp_path / "file" / "audit.json")


def test_load_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        report.load(tmp_path / "audit.json")
    for content in (b"{", b"\xff\xfe", b"[" * 100_000, b'{"audits": 3}', b"{}", b'{"audits": [{}]}'):
        (tmp_path / "bad.json").write_bytes(content)
        with pytest.raises(ConfigError, match=r"bad\.json"):
            report.load(tmp_path / "bad.json")


def test_markdown_shows_every_number_in_tables_of_even_width() -> None:
    text = report.to_markdown(before_and_after())
    for expected in (
        "| MSE | 0.0100 (0.00990 to 0.0101) | 0.0410 (0.0406 to 0.0414) |",
        "mirror",
        "12,345",
        "abab",
        "epochs = 50",
    ):
        assert expected in text
    assert "- attacks with a generative prior" in text
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert all(len({line.count("|") for line in block}) == 1 for block in blocks)


def test_markdown_says_what_is_certified_and_what_is_refuted() -> None:
    old, new = before_and_after()
    text = report.to_markdown([old, replace(new, certificates=(certificate(0.05), certificate(name="fisher")))])
    verdict, certified = text.split("## Headline numbers")[0], text.split("## What is certified")[1].split("\n## ")[0]
    assert "**⚠ The assumption failed: decoder" in verdict
    assert "No certificate; nothing is claimed" in certified
    assert "- information: 811 bits" in certified
    assert "It assumes:\n\n- The features follow the mixture." in certified
    assert certified.count("**⚠ The assumption failed") == 1


def test_markdown_escapes_what_a_record_says() -> None:
    text = report.to_markdown([audit(title=HOSTILE + "\n\n# heading")])
    assert "\\<script\\>" in text
    assert not re.search(r"(?<!\\)[<>]", text)
    assert not any(mark in text for mark in ("\n# heading", "[b](", " | \\<img"))


def test_html_escapes_what_a_record_says() -> None:
    hostile = replace(target(HOSTILE), model=HOSTILE, cut=HOSTILE)
    data = DataFacts(HOSTILE, HOSTILE, {HOSTILE: 1}, (HOSTILE,), HOSTILE)
    attack = result(name=HOSTILE, settings={HOSTILE: HOSTILE})
    exhibits = (Exhibit("inference", pixels()), Exhibit("inference", pixels(), HOSTILE, "best"))
    claimed = tuple(certificate(floor, name=HOSTILE, statement=HOSTILE, assumptions=(HOSTILE,)) for floor in (None, 1.0))
    shown = audit(
        certificates=claimed, title=HOSTILE, target=hostile, data=data, attacks=(attack,), exhibits=exhibits, untested=(HOSTILE,),
        versions={HOSTILE: HOSTILE}, hardware=HOSTILE,
    )  # fmt: skip
    page = Page(report.to_html([shown, shown]))
    assert not page.all("script")
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in page.all("img"))
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.text.count(HOSTILE) > 10


def test_every_form_shows_what_is_private() -> None:
    shown = [audit(attacks=(private(),)), audit()]
    page = Page(report.to_html(shown))
    for text in (page.text, report.to_markdown(shown)):
        assert text.count("MSE inside") >= 2
        assert "Of the reconstructions of “digits (1)”, 50.0 % show the right driver" in text
    assert "Driver named rightby a classifier, in the reconstructions that show most" in page.text
    headings = [line.count("|") for line in report.to_markdown(shown).splitlines() if line.startswith("| Attack |")]
    assert headings[0] == headings[1] + 5


def test_html_fetches_nothing() -> None:
    text = report.to_html(before_and_after()).replace('xmlns="http://www.w3.org/2000/svg"', "")  # a name, not an address
    page = Page(text)
    assert not any(mark in text for mark in ("http://", "https://", "@import", "url("))
    assert not any(page.all(tag) for tag in ("link", "script", "iframe", "object"))
    references = [value for _, attributes in page.tags for name, value in attributes.items() if name in {"src", "href", "srcset"}]
    assert all(str(value).startswith(("data:image/png;base64,", "#")) for value in references)


def test_html_can_be_read_without_eyes() -> None:
    page = Page(report.to_html(before_and_after()))
    names = {str(attributes["id"]) for _, attributes in page.tags if "id" in attributes}
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1
    assert {str(link["href"])[1:] for link in page.all("a")} <= names
    assert len(page.all("caption")) == len(page.all("table")) == 6
    assert all(heading.get("scope") in {"col", "row"} for heading in page.all("th"))
    alts = [str(image.get("alt", "")) for image in page.all("img")]
    assert all(alts)
    assert "Picture 1 of 2, as the user sent it" in alts
    assert "Picture 2 of 2, as the adversary rebuilds it (after), with the attack decoder, best epoch, seed 0" in alts


def test_html_warns_of_a_refuted_certificate_in_words_and_with_a_sign() -> None:
    old, new = before_and_after()
    page = Page(report.to_html([old, replace(new, certificates=(certificate(0.05),))]))
    assert page.text.count("The assumption failed: decoder") == 2
    assert [mark["aria-label"] for mark in page.all("span") if mark.get("role") == "img"] == ["Warning:"] * 2
    assert "before: no certificate; nothing is claimed" in page.text
    assert "The features follow the mixture." in page.text


def test_html_without_a_refuted_certificate_warns_of_nothing() -> None:
    page = Page(report.to_html([audit(certificates=(certificate(),))]))
    assert "811 bits" in page.text
    assert "failed:" not in page.text
    assert not [mark for mark in page.all("p") if mark.get("class") == "alarm"]


def test_html_draws_the_trade_off_of_several_audits() -> None:
    assert not Page(report.to_html([audit()])).all("svg")
    assert not Page(report.to_html([audit(attacks=()), audit(attacks=())])).all("svg")
    page = Page(report.to_html(before_and_after()))
    assert [drawing["width"] for drawing in page.all("svg")] == ["760", "360"]
    assert "The points as a table" in page.text


def test_a_search_is_drawn_and_told_by_its_rank() -> None:
    page = Page(report.to_html([searched(), searched(0.8, "Noise()", mse=0.04)]))
    assert "Rank-1 against privacy" in page.text
    assert "90.0 % (89.9 to 90.1)" in page.text
    assert "Accuracy" not in page.text
    assert "Accuracy or rank-1 against privacy" in Page(report.to_html([audit(), searched()])).text


def _luminance(color: str) -> float:
    six = "".join(2 * digit for digit in color[1:]) if len(color) == 4 else color[1:]
    channels = (int(six[place : place + 2], 16) / 255 for place in (0, 2, 4))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(("prefix", "names"), [("--", ["ink", "soft", "accent", "alarm"]), ("--c-", ["ink", "soft", *"012345"])])
def test_every_color_of_text_stands_out_from_the_paper_by_day_and_by_night(prefix: str, names: list[str]) -> None:
    page = report.to_html(before_and_after())
    palettes = re.findall(rf"{prefix}\w+: #[^{{}}]*{prefix}paper: #[^}}]*|{prefix}paper: #[^}}]*", page)
    assert len(palettes) >= 2
    for palette in palettes:
        colors = dict(re.findall(rf"(?<![-\w]){prefix}(\w+): (#[0-9a-f]+)", palette))
        for name in names:
            dark, light = sorted(_luminance(colors[shade]) for shade in (name, "paper"))
            assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{name} in {palette}"


def test_html_without_pictures_or_attacks_says_so() -> None:
    page = Page(report.to_html([audit(attacks=(), exhibits=(), untested=())]))
    assert not page.all("img")
    for expected in ("hold no pictures", "no attack was run", "says nothing about what leaks"):
        assert expected in page.text


def test_html_counts_and_lists_the_pictures_left_out() -> None:
    page = Page(report.to_html([audit(data=DataFacts("folder", "ab", {"test": 1}, ("bad/1.png", "bad/2.png")))]))
    assert "the 2 pictures that could not be decoded" in page.text
    assert "bad/2.png" in page.text
