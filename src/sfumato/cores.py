# SPDX-License-Identifier: Apache-2.0
"""The processor as this process has it."""

from __future__ import annotations

import os


def cores() -> int:
    """Return how many cores this process may use; macOS does not say, and has as many as the machine.

    Example:
        >>> cores() >= 1
        True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
