# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from sfumato.errors import ConfigError
from sfumato.quantity import read_bytes, read_count, show_bytes, show_count


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1234, 1234.0),
        (0.25, 0.25),
        ("0.25", 0.25),
        ("700", 700.0),
        ("700 B", 700.0),
        ("4.8MB", 4.8e6),
        (" 4.8 mb ", 4.8e6),
        ("2kB", 2e3),
        ("1GB", 1e9),
        ("3KiB", 3 * 1024.0),
        ("3MiB", 3 * 1024.0**2),
        ("0.5GiB", 2.0**29),
        ("1e6", 1e6),
    ],
)
def test_bytes_are_read(value: float | str, expected: float) -> None:
    assert read_bytes(value, "memory") == expected


@pytest.mark.parametrize(("value", "expected"), [(5, 5.0), ("5", 5.0), ("1.5k", 1500.0), ("300M", 3e8), ("2 G", 2e9)])
def test_counts_are_read(value: float | str, expected: float) -> None:
    assert read_count(value, "macs") == expected


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "", "MB", "4.8 XB", "-3MB", "1.2.3MB", "three", "4,8MB"])
def test_what_is_no_amount_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r'memory must be a positive number, or a text such as "4.8MB"'):
        read_bytes(value, "memory")  # type: ignore[arg-type]


def test_a_count_has_no_bytes() -> None:
    with pytest.raises(ConfigError, match='macs must be a positive number, or a text such as "300M" or "1.5k", got \'4.8MB\''):
        read_count("4.8MB", "macs")


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (999, "999 B"), (999.6, "1 kB"), (4_800_000, "4.8 MB"), (44_800_000, "44.8 MB"), (2e12, "2,000 GB")],
)
def test_bytes_are_written_for_people(count: float, shown: str) -> None:
    assert show_bytes(count) == shown


@pytest.mark.parametrize(
    ("count", "shown"), [(17, "17"), (683_072, "683 k"), (3e8, "300 M"), (1.8e9, "1.8 G"), (1.2e12, "1,200 G")]
)
def test_counts_are_written_for_people(count: float, shown: str) -> None:
    assert show_count(count) == shown
