# SPDX-License-Identifier: Apache-2.0
"""The command line of a device: `sfumato infer`, and word of where the other commands are."""

from __future__ import annotations

import sys

from sfumato.deploy.quiet import quiet_grpc

_HELP = """usage: sfumato infer BUNDLE --server HOST:PORT PICTURES...

This is the part of Sfumato for devices: it runs the head of a bundle, without
PyTorch. See: sfumato infer --help
"""


def main() -> int:
    """Run the command line of a device and return its exit status.

    Example:
        >>> sys.argv = ["sfumato", "train"]
        >>> main()
        2
    """
    arguments = sys.argv[1:]
    if arguments[:1] == ["infer"]:
        quiet_grpc()
        from sfumato.deploy import infer  # brings gRPC

        return infer.main(arguments[1:])
    if arguments in ([], ["-h"], ["--help"]):
        sys.stdout.write(_HELP)
        return 0
    print(
        f"sfumato: expected 'infer', the command of sfumato-edge, found {arguments[0][:40]!r}; the other commands come with the "
        "distribution sfumato, in an environment of its own",
        file=sys.stderr,
    )
    return 2
