# SPDX-License-Identifier: Apache-2.0
"""An audit as JSON comes back exactly, pictures included; what is no audit is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings

from example_audits import assert_same, audit, audits, pixels, result
from sfumato.errors import ConfigError
from sfumato.record import findings_from_json, findings_to_json, from_json, to_json
from sfumato.types import Audit, Exhibit, Findings, Interval


@given(audits)
@settings(max_examples=50, deadline=None)
def test_json_comes_back_exactly(written: Audit) -> None:
    text = json.dumps(to_json(written), allow_nan=False)
    assert_same(from_json(json.loads(text)), written)


@given(audits)
@settings(max_examples=20, deadline=None)
def test_what_one_attack_came_to_comes_back_exactly(written: Audit) -> None:
    findings = Findings(written.attacks, written.exhibits, written.hardware)
    read = findings_from_json(json.loads(json.dumps(findings_to_json(findings), allow_nan=False)))
    assert read.hardware == findings.hardware
    assert_same(replace(written, attacks=read.results, exhibits=read.exhibits), written)


def test_json_has_the_keys_that_others_read() -> None:
    record = to_json(audit())
    assert list(record) == [
        "format", "title", "accuracy", "accuracy_interval", "target", "data", "attacks", "exhibits", "untested", "seeds",
        "versions", "hardware", "certificates", "task", "utility", "membership", "inversion",
    ]  # fmt: skip
    assert (record["format"], record["accuracy"]) == (1, 0.98)
    assert record["accuracy_interval"] == {"low": 0.98 * 0.999, "high": 0.98 * 1.001}
    assert record["attacks"][0]["mse"] == {"value": 0.01, "low": 0.0099, "high": 0.0101}  # type: ignore[index]


def test_a_record_of_before_there_were_tasks_is_read() -> None:
    record = to_json(audit())
    del record["task"], record["utility"]
    assert_same(from_json(record), audit())


def test_json_writes_numbers_that_are_not_finite_as_words() -> None:
    record = to_json(audit(attacks=(result(psnr=Interval(math.inf, -math.inf, math.nan)),)))
    assert record["attacks"][0]["psnr"] == {"value": "Infinity", "low": "-Infinity", "high": "NaN"}  # type: ignore[index]


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("count", [0, 3])
def test_pictures_of_any_channels_are_lossless(channels: int, count: int) -> None:
    written = audit(exhibits=(Exhibit("train", pixels(channels, count), "decoder", "last", 7),))
    assert_same(from_json(to_json(written)), written)


def test_a_record_from_before_regions_and_recognizers_is_read() -> None:
    record = to_json(audit(attacks=(result(),)))
    attack = record["attacks"][0]  # type: ignore[index]
    del attack["regions"], attack["recognized"]
    assert from_json(record).attacks == (result(),)


def test_a_record_from_before_sticky_devices_is_read() -> None:
    record = to_json(audit(attacks=(result(),)))
    del record["target"]["sticky"], record["attacks"][0]["gray_levels"]  # type: ignore[attr-defined, index]
    assert_same(from_json(record), audit(attacks=(result(),)))


def test_a_setting_without_a_json_form_becomes_text() -> None:
    read = from_json(to_json(audit(attacks=(result(settings={"widths": (8, 16), "device": torch.device("cpu")}),))))
    assert read.attacks[0].settings == {"widths": [8, 16], "device": "cpu"}


@pytest.mark.parametrize("record", [None, 3, [], {}, {"format": 1}, {**to_json(audit()), "format": 2}])
def test_another_record_is_refused(record: object) -> None:
    with pytest.raises(ConfigError, match=r"expected the record of an audit, format 1; found: .*; make one with"):
        from_json(record)


@pytest.mark.parametrize("png", ["", "no base64 é", "aGVsbG8=", "{other}"])
def test_a_picture_that_is_none_is_refused(png: str) -> None:
    record = to_json(audit())
    other = to_json(audit(exhibits=(Exhibit("train", pixels(3)),)))["exhibits"][0]["png"][0]  # type: ignore[index]
    record["exhibits"][0]["png"][0] = png.format(other=other)  # type: ignore[index]
    with pytest.raises(ConfigError, match="in exhibits"):
        from_json(record)
