# SPDX-License-Identifier: Apache-2.0
"""Time that stands still until a test moves it."""

from __future__ import annotations


class Clock:
    """Stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now
