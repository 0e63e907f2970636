# SPDX-License-Identifier: Apache-2.0
"""gRPC's own words on a terminal, which commands do without: they say in their own what went wrong."""

from __future__ import annotations

import os


def quiet_grpc() -> None:
    """Let gRPC print nothing, unless the environment says otherwise. It looks there once, when it is first imported.

    Example:
        >>> quiet_grpc()
        >>> "GRPC_VERBOSITY" in os.environ
        True
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
