# SPDX-License-Identifier: Apache-2.0
"""The tokens that a server accepts: a file of lines "name token", kept in memory as digests and compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sfumato.deploy.private_file import require_private
from sfumato.errors import ConfigError

SHORTEST = 32
"""Characters of a token at least: those of 128 bits in hexadecimal."""
LONGEST = 512
"""Characters of a token at most: more would not fit into the metadata of a request beside everything else."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TOKEN = re.compile(rf"[!-~]{{{SHORTEST},{LONGEST}}}")  # what a header may carry, without blanks
_MAKE = "python -c 'import secrets; print(secrets.token_urlsafe(32))' makes one"


@dataclass(frozen=True)
class Tokens:
    """Who may ask, by the digest of a token.

    Attributes:
        names: of the clients, by SHA-256.

    Example:
        >>> tokens = Tokens({hashlib.sha256(b"0123456789abcdef0123456789abcdef").digest(): "gate"})
        >>> tokens.name_of("0123456789abcdef0123456789abcdef")
        'gate'
        >>> tokens.name_of("another") is None
        True
    """

    names: Mapping[bytes, str]

    def name_of(self, token: str) -> str | None:
        """Return whose token it is, or None. How long it takes does not tell how much of it was right."""
        offered = hashlib.sha256(token.encode(errors="surrogateescape")).digest()
        found = None
        for known, name in self.names.items():
            if hmac.compare_digest(known, offered):
                found = name
        return found


def read_tokens(path: Path) -> Tokens:
    """Read a file of tokens. Lines are "name token"; what follows a # at the start of a line is a comment.

    Raises:
        ConfigError: the file cannot be read, or others than its owner can; a line is something else; a token is too short; there
            is one twice, or none. The message holds no token.
    """
    names: dict[bytes, str] = {}
    for number, line in enumerate(_lines(path), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, token = _entry(line, f"--tokens {path}, line {number}")
        digest = hashlib.sha256(token.encode()).digest()
        if digest in names or name in names.values():
            raise ConfigError(
                f"--tokens {path}, line {number}: expected another name and another token than before, found {name!r} or its "
                "token twice; give every client its own"
            )
        names[digest] = name
    if not names:
        raise ConfigError(f'--tokens {path}: expected lines "name token", found none; {_MAKE}')
    return Tokens(names)


def _lines(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8") as file:
            require_private(os.fstat(file.fileno()), f"--tokens {path}")
            return file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise ConfigError(f'--tokens {path}: expected a file of lines "name token": {said}; write one') from error


def _entry(line: str, place: str) -> tuple[str, str]:
    parts = line.split()
    if len(parts) != 2 or not _NAME.fullmatch(parts[0]):
        raise ConfigError(f'{place}: expected "name token", the name of letters, digits, ".", "_" and "-"; correct the line')
    if not _TOKEN.fullmatch(parts[1]):
        raise ConfigError(
            f"{place}: expected a token of {SHORTEST} to {LONGEST} printable characters, found {len(parts[1])}; {_MAKE}"
        )
    return parts[0], parts[1]
