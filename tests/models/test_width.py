# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sfumato.models.width import scaled


@given(st.integers(1, 2048), st.floats(0.01, 8.0), st.sampled_from([1, 8]))
def test_scaled_channels_are_sane(channels: int, width: float, multiple: int) -> None:
    count = scaled(channels, width, multiple)
    assert count >= 1
    if width != 1.0:
        assert count % multiple == 0
        assert 0.9 * channels * width <= count <= max(multiple, channels * width + multiple)


@given(st.integers(1, 2048))
def test_width_one_changes_nothing(channels: int) -> None:
    assert scaled(channels, 1.0) == channels
