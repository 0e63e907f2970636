# SPDX-License-Identifier: Apache-2.0
"""Pictures come back from text as they were, and what is no picture of that shape is refused."""

from __future__ import annotations

import base64

import pytest
import torch

from example_audits import pixels
from sfumato.errors import ConfigError
from sfumato.png import picture, png


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_a_picture_comes_back(channels: int) -> None:
    written = pixels(channels)[0]
    assert torch.equal(picture(png(written), (channels, 4, 5)), written)


@pytest.mark.parametrize("text", ["not base64!", base64.b64encode(b"no picture").decode(), ""])
def test_what_is_no_picture_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a PNG in base64, found something else in exhibits"):
        picture(text, (1, 4, 5))


def test_a_picture_of_another_size_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected a L picture of \(5, 5\), found L of \(5, 4\)"):
        picture(png(pixels()[0]), (1, 5, 5))
