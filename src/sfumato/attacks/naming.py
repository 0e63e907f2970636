# SPDX-License-Identifier: Apache-2.0
"""Attacks of one surface by name: those of the registry, and those that a user names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from sfumato import registry
from sfumato.errors import ConfigError, UnknownNameError, nearest

_Attack = TypeVar("_Attack")
Named = str | Sequence[str | _Attack] | Mapping[str, _Attack]
"""Attacks as a user names them."""


def names_of(base: type) -> tuple[str, ...]:
    """Return the names in the registry of the attacks on a surface.

    Args:
        base: the class of such attacks, in the file `base` of their folder.

    Example:
        >>> from sfumato.attacks.predictions.base import MembershipAttack
        >>> "loss" in names_of(MembershipAttack), "decoder" in names_of(MembershipAttack)
        (True, False)
    """
    home = base.__module__.removesuffix("base")
    return tuple(name for name, entry in registry.TABLE["attacks"].items() if entry.path.startswith(home))


def named_attacks(attacks: Named[_Attack], base: type[_Attack]) -> dict[str, _Attack]:
    """Return attacks by the names that they get in the report.

    Args:
        attacks: a name in the registry, several, attacks of your own making among them, or attacks by name.
        base: the class of attacks on the surface, such as `MembershipAttack`.

    Raises:
        UnknownNameError: the registry knows no attack on that surface of this name.
        ConfigError: one is no such attack, or two have one name.

    Example:
        >>> from sfumato.attacks.predictions.base import MembershipAttack
        >>> named_attacks(["loss", "gap"], MembershipAttack)["gap"]
        Gap()
    """
    if isinstance(attacks, Mapping):
        pairs: list[tuple[str, object]] = list(attacks.items())
    else:
        listed: Sequence[str | _Attack] = [attacks] if isinstance(attacks, str) else attacks
        pairs = [(one, _created(one, base)) if isinstance(one, str) else (type(one).__name__.lower(), one) for one in listed]
    named: dict[str, _Attack] = {}
    for name, attack in pairs:
        if not isinstance(attack, base):
            raise ConfigError(f"expected attacks on {_surface(base)}, found '{name}': {attack!r}; subclass {base.__name__}")
        if name in named:
            raise ConfigError(f"two attacks named '{name}'; name them: attacks={{'first': ..., 'second': ...}}")
        named[name] = attack
    return named


def _surface(base: type) -> str:
    return base.__module__.split(".")[-2]


def _created(name: str, base: type) -> object:
    """Return the attack of a name. One on something else is as unknown here as a word of no meaning."""
    known = names_of(base)
    if name not in known:
        raise UnknownNameError(f"no attack on {_surface(base)} named '{name}'{nearest(name, known)}; known: {', '.join(known)}")
    return registry.create("attacks", name, {})
