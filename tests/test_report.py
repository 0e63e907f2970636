# SPDX-License-Identifier: Apache-2.0
"""The report: what it writes can be read back, shows every number, and neither runs nor fetches anything."""

from __future__ import annotations

import errno
import json
import math
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato import report
from sfumato.errors import ConfigError, StorageError
from sfumato.types import AttackResult, Audit, DataFacts, Exhibit, Interval, TargetFacts

HOSTILE = """</title><script>alert("1")</script> | <img src=x onerror=alert(2)> `a` [b](javascript:c) 画 "'"""


def near(value: float, width: float = 0.01) -> Interval:
    return Interval(value, value * (1 - width), value * (1 + width))


def result(mse: float = 0.01, **changes: object) -> AttackResult:
    plain = AttackResult(
        "decoder",
        "inference",
        "best",
        0,
        "features",
        512,
        near(mse),
        near(20.0),
        near(21.0),
        near(0.8),
        None,
        1.5,
        4000,
        {"epochs": 50},
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def target(*defenses: str) -> TargetFacts:
    return TargetFacts("vgg11", "c2", defenses, 10, (1, 4, 5), (8, 2, 2), {"float32": 12345, "uint8": 32}, 67890, 4321, 100, 200)


def pixels(channels: int = 1, count: int = 2, seed: int = 0) -> torch.Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, 4, 5), generator=stream, dtype=torch.uint8)


def audit(mse: float = 0.01, accuracy: float = 0.98, *defenses: str, **changes: object) -> Audit:
    plain = Audit(
        title="digits",
        target=target(*defenses),
        data=DataFacts("digits", "ab" * 32, {"test": 1000}),
        accuracy=near(accuracy, 0.001),
        attacks=(result(mse), result(2 * mse, name="mirror", selection="last"), result(mse, part="train")),
        exhibits=(
            Exhibit("inference", pixels()),
            Exhibit("inference", pixels(seed=1), "decoder", "best"),
            Exhibit("inference", pixels(seed=2), "mirror", "last"),
            Exhibit("train", pixels(seed=3)),
            Exhibit("train", pixels(seed=4), "decoder", "best"),
        ),
        untested=("attacks with a generative prior",),
        seeds=(0, 1),
        versions={"torch": "2.13.0"},
        hardware="2 CPU cores",
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def before_and_after(mse: float = 0.041, accuracy: float = 0.96) -> list[Audit]:
    return [audit(), audit(mse, accuracy, "Noise(sigma=0.025)")]


class Page(HTMLParser):
    """Every tag of a page with its attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def without_pixels(record: Audit) -> Audit:
    return replace(record, exhibits=())


def assert_same(read: Audit, written: Audit) -> None:
    assert repr(without_pixels(read)) == repr(without_pixels(written))  # repr, since NaN differs from itself
    assert len(read.exhibits) == len(written.exhibits)
    for one, other in zip(read.exhibits, written.exhibits, strict=True):
        assert (one.part, one.attack, one.selection, one.seed) == (other.part, other.attack, other.selection, other.seed)
        assert one.pixels.dtype == torch.uint8
        assert torch.equal(one.pixels, other.pixels)


intervals = st.builds(Interval, st.floats(), st.floats(), st.floats())
values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
attacks = st.builds(
    AttackResult,
    name=st.text(),
    part=st.sampled_from(["train", "inference"]),
    selection=st.sampled_from(["only", "best", "last"]),
    seed=st.integers(),
    access=st.sampled_from(["labels", "logits", "features", "weights"]),
    pictures=st.integers(),
    mse=intervals,
    psnr=intervals,
    psnr_mean=intervals,
    ssim=intervals,
    lpips=st.none() | intervals,
    seconds=st.floats(),
    queries=st.integers(),
    settings=st.dictionaries(st.text(), values | st.lists(values), max_size=3),
)
audits = st.builds(
    audit,
    title=st.text(),
    accuracy=st.just(0.5),
    attacks=st.lists(attacks, max_size=3).map(tuple),
    untested=st.lists(st.text(), max_size=3).map(tuple),
    seeds=st.lists(st.integers(), max_size=3).map(tuple),
    versions=st.dictionaries(st.text(), st.text(), max_size=3),
    hardware=st.text(),
)


@given(audits)
@settings(max_examples=50, deadline=None)
def test_json_comes_back_exactly(written: Audit) -> None:
    text = json.dumps(report.to_json(written), allow_nan=False)
    assert_same(report.from_json(json.loads(text)), written)


@given(audits)
@settings(max_examples=15, deadline=None)
def test_any_record_can_be_shown(shown: Audit) -> None:
    assert Page(report.to_html([shown, audit()])).all("table")
    assert report.to_markdown([shown]).startswith("# ")


def test_json_has_the_keys_that_others_read() -> None:
    record = report.to_json(audit())
    assert list(record) == [
        "format", "title", "accuracy", "accuracy_interval", "target", "data", "attacks", "exhibits", "untested", "seeds",
        "versions", "hardware",
    ]  # fmt: skip
    assert (record["format"], record["accuracy"]) == (1, 0.98)
    assert record["accuracy_interval"] == {"low": 0.98 * 0.999, "high": 0.98 * 1.001}
    assert record["attacks"][0]["mse"] == {"value": 0.01, "low": 0.0099, "high": 0.0101}  # type: ignore[index]


def test_json_writes_numbers_that_are_not_finite_as_words() -> None:
    record = report.to_json(audit(attacks=(result(psnr=Interval(math.inf, -math.inf, math.nan)),)))
    assert record["attacks"][0]["psnr"] == {"value": "Infinity", "low": "-Infinity", "high": "NaN"}  # type: ignore[index]


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("count", [0, 3])
def test_pictures_of_any_channels_are_lossless(channels: int, count: int) -> None:
    written = audit(exhibits=(Exhibit("train", pixels(channels, count), "decoder", "last", 7),))
    assert_same(report.from_json(report.to_json(written)), written)


def test_a_setting_without_a_json_form_becomes_text() -> None:
    read = report.from_json(report.to_json(audit(attacks=(result(settings={"widths": (8, 16), "device": torch.device("cpu")}),))))
    assert read.attacks[0].settings == {"widths": [8, 16], "device": "cpu"}


@pytest.mark.parametrize("record", [None, 3, [], {}, {"format": 1}, {**report.to_json(audit()), "format": 2}])
def test_another_record_is_refused(record: object) -> None:
    with pytest.raises(ConfigError, match=r"expected the record of an audit, format 1; found: .*; make one with"):
        report.from_json(record)


@pytest.mark.parametrize("png", ["", "no base64 é", "aGVsbG8=", "{other}"])
def test_a_picture_that_is_none_is_refused(png: str) -> None:
    record = report.to_json(audit())
    other = report.to_json(audit(exhibits=(Exhibit("train", pixels(3)),)))["exhibits"][0]["png"][0]  # type: ignore[index]
    record["exhibits"][0]["png"][0] = png.format(other=other)  # type: ignore[index]
    with pytest.raises(ConfigError, match="in exhibits"):
        report.from_json(record)


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


def test_columns() -> None:
    first, second = before_and_after()
    assert report.columns([first, second]) == ["before", "after"]
    assert report.columns([second, replace(second, title="other")]) == ["digits", "other"]
    assert report.columns([first, first]) == ["digits (1)", "digits (2)"]


def test_table_holds_the_strongest_attack_and_the_cost() -> None:
    rows = dict(report.table(before_and_after()))
    assert rows["Accuracy"] == ("98.0 % (97.9 to 98.1)", "96.0 % (95.9 to 96.1)")
    assert rows["Strongest attack"] == ("decoder, best epoch, seed 0",) * 2
    assert rows["MSE"] == ("0.0100 (0.00990 to 0.0101)", "0.0410 (0.0406 to 0.0414)")
    assert rows["PSNR"][0] == "20.00 dB (19.80 to 20.20)"
    assert rows["SSIM"][0] == "0.800 (0.792 to 0.808)"
    assert rows["Bytes sent per picture (float32)"] == ("12,345",) * 2
    assert (rows["Head parameters"][0], rows["Head MACs"][0]) == ("67,890", "4,321")


def test_table_without_attacks_says_so() -> None:
    assert dict(report.table([audit(attacks=())]))["MSE"] == ("not scored",)


def test_attack_table_puts_the_strongest_at_inference_first() -> None:
    rows = report.attack_table(audit(attacks=(result(0.001, part="train"), result(0.5, seed=1), result(0.2, seed=2))))
    assert [(row.cells[0], row.cells[2]) for row in rows] == [("inference", "2"), ("inference", "1"), ("train", "0")]
    assert all(len(row.cells) + 1 == len(report.ATTACK_COLUMNS) for row in rows)


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
    shown = audit(
        title=HOSTILE, target=hostile, data=data, attacks=(attack,), exhibits=exhibits, untested=(HOSTILE,),
        versions={HOSTILE: HOSTILE}, hardware=HOSTILE,
    )  # fmt: skip
    page = Page(report.to_html([shown, shown]))
    assert not page.all("script")
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in page.all("img"))
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.text.count(HOSTILE) > 10


def test_html_fetches_nothing() -> None:
    text = report.to_html(before_and_after())
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
    assert len(page.all("caption")) == len(page.all("table")) == 5
    assert all(heading.get("scope") in {"col", "row"} for heading in page.all("th"))
    alts = [str(image.get("alt", "")) for image in page.all("img")]
    assert all(alts)
    assert "Picture 1 of 2, as the user sent it" in alts
    assert "Picture 2 of 2, as the adversary rebuilds it (after), with the attack decoder, best epoch, seed 0" in alts


def gallery(page: Page) -> list[str]:
    """What each picture of the gallery is, up to the folded sheets."""
    end = next((place for place, (tag, _) in enumerate(page.tags) if tag == "details"), None)
    return [str(attributes["alt"]).split(", with")[0] for tag, attributes in page.tags[:end] if tag == "img"]


def test_gallery_sets_before_and_after_beside_what_was_sent() -> None:
    seen = [f"as the adversary rebuilds it ({name})" for name in ("before", "after")]
    cards = [f"Picture {number} of 2, {what}" for number in (1, 2) for what in ("as the user sent it", *seen)]
    assert gallery(Page(report.to_html(before_and_after()))) == cards


def test_gallery_shows_the_strongest_attack_that_has_pictures() -> None:
    changed = audit(attacks=(result(0.5), result(0.1, name="mirror", selection="last"), result(0.01, name="unseen")))
    page = Page(report.to_html([changed]))
    assert str(page.all("img")[1]["alt"]).endswith("with the attack mirror, last epoch, seed 0")


def test_audits_of_other_pictures_get_a_gallery_each() -> None:
    first, second = before_and_after()
    other = replace(
        second, exhibits=(Exhibit("inference", pixels(3, seed=9)), Exhibit("inference", pixels(3), "decoder", "best"))
    )
    page = Page(report.to_html([first, other]))
    assert len([attributes for attributes in page.all("ol") if attributes.get("class") == "gallery"]) == 2
    assert [alt.split(", ")[1] for alt in gallery(page)[:2]] == ["as the user sent it", "as the adversary rebuilds it (before)"]


def test_html_without_pictures_or_attacks_says_so() -> None:
    page = Page(report.to_html([audit(attacks=(), exhibits=(), untested=())]))
    assert not page.all("img")
    for expected in ("hold no pictures", "no attack was run", "says nothing about what leaks"):
        assert expected in page.text


def test_html_counts_and_lists_the_pictures_left_out() -> None:
    page = Page(report.to_html([audit(data=DataFacts("folder", "ab", {"test": 1}, ("bad/1.png", "bad/2.png")))]))
    assert "the 2 pictures that could not be decoded" in page.text
    assert "bad/2.png" in page.text


def test_verdict_when_it_got_better() -> None:
    assert report.verdict(before_and_after()) == [
        "Hardening raises the adversary's error 4.1 times (MSE 0.0100 → 0.0410) and costs 2.0 points of accuracy."
    ]


def test_verdict_when_it_got_worse() -> None:
    (sentence,) = report.verdict(before_and_after(mse=0.005, accuracy=0.985))
    assert sentence.startswith("Hardening makes it worse: the adversary's error is 2.0 times lower (MSE 0.0100 → 0.00500)")
    assert sentence.endswith("gains 0.5 points of accuracy.")


def test_verdict_when_intervals_overlap() -> None:
    (sentence,) = report.verdict(before_and_after(mse=0.0101, accuracy=0.979))
    assert "makes no difference to the adversary's error that these pictures can show (MSE 0.0100 → 0.0101)" in sentence
    assert sentence.endswith("costs 0.1 points of accuracy (the intervals overlap).")


def test_verdict_names_a_doubt_of_ssim() -> None:
    old, new = before_and_after()
    (sentence,) = report.verdict([old, replace(new, attacks=(result(0.041, ssim=near(0.95)),))])
    assert sentence.endswith("SSIM says the opposite: look at the pictures before you trust either.")


def test_verdict_without_attacks_or_with_other_data() -> None:
    old, new = before_and_after()
    assert "What leaks cannot be compared" in report.verdict([old, replace(new, attacks=())])[0]
    other = replace(new, data=replace(new.data, fingerprint="cd"))
    assert report.verdict([old, other])[1].startswith("The two audits used different data")


def test_verdict_of_a_perfect_reconstruction_gives_no_factor() -> None:
    (sentence,) = report.verdict([audit(0.0), audit(0.04, 0.98, "Noise()")])
    assert sentence == "Hardening raises the adversary's error (MSE 0.00 → 0.0400) and leaves accuracy at 98.0 %."


def test_verdict_of_one_audit() -> None:
    (sentence,) = report.verdict([audit()])
    assert "decoder, which sees the features" in sentence
    assert "MSE 0.0100, PSNR 20.0 dB and SSIM 0.80" in sentence
