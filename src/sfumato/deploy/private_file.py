# SPDX-License-Identifier: Apache-2.0
"""Files that hold a secret, on a server and on a device: nobody but their owner may read them."""

from __future__ import annotations

import os
import stat

from sfumato.errors import ConfigError


def require_private(facts: os.stat_result, place: str) -> None:
    """Refuse a file that others than its owner can read or write.

    Args:
        facts: of the file.
        place: the option and the path, for the message.

    Raises:
        ConfigError: they can.
    """
    mode = stat.S_IMODE(facts.st_mode)
    if mode & 0o077:
        raise ConfigError(f"{place}: expected a file that its owner alone can read, found mode {mode:o}; chmod 600 mends that")
