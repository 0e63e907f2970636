# SPDX-License-Identifier: Apache-2.0
"""Attacks on predictions by name: those of the registry, and those that a user names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sfumato import registry
from sfumato.attacks.predictions.base import MembershipAttack
from sfumato.errors import ConfigError, UnknownNameError, nearest

Named = str | Sequence[str | MembershipAttack] | Mapping[str, MembershipAttack]
"""Attacks as a user names them."""
_HOME = "sfumato.attacks.predictions."


def membership_attacks() -> tuple[str, ...]:
    """Return the names in the registry of attacks on predictions.

    Example:
        >>> "loss" in membership_attacks(), "decoder" in membership_attacks()
        (True, False)
    """
    return tuple(name for name, entry in registry.TABLE["attacks"].items() if entry.path.startswith(_HOME))


def named_attacks(attacks: Named) -> dict[str, MembershipAttack]:
    """Return attacks by the names that they get in the report.

    Args:
        attacks: a name in the registry, several, attacks of your own making among them, or attacks by name.

    Raises:
        UnknownNameError: the registry knows no attack on predictions of this name.
        ConfigError: one is no attack on predictions, or two have one name.

    Example:
        >>> named_attacks(["loss", "gap"])["gap"]
        Gap()
    """
    if isinstance(attacks, Mapping):
        pairs: list[tuple[str, object]] = list(attacks.items())
    else:
        listed: Sequence[str | MembershipAttack] = [attacks] if isinstance(attacks, str) else attacks
        pairs = [(one, _created(one)) if isinstance(one, str) else (type(one).__name__.lower(), one) for one in listed]
    named: dict[str, MembershipAttack] = {}
    for name, attack in pairs:
        if not isinstance(attack, MembershipAttack):
            raise ConfigError(f"expected attacks on predictions, found '{name}': {attack!r}; subclass MembershipAttack")
        if name in named:
            raise ConfigError(f"two attacks named '{name}'; name them: attacks={{'first': ..., 'second': ...}}")
        named[name] = attack
    return named


def _created(name: str) -> object:
    """Return the attack of a name. One on something else is as unknown here as a word of no meaning."""
    known = membership_attacks()
    if name not in known:
        raise UnknownNameError(f"no attack on predictions named '{name}'{nearest(name, known)}; known: {', '.join(known)}")
    return registry.create("attacks", name, {})
