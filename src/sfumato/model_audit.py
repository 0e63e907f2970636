# SPDX-License-Identifier: Apache-2.0
"""A model and examples in, a `Membership` out: the audit of the predictions of a model that is there to be asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sfumato.attacks.naming import Named, named_attacks
from sfumato.attacks.predictions.base import Evidence, MembershipAttack, References
from sfumato.audit import hardware
from sfumato.data.base import Pictures
from sfumato.data.game import Game, repeated, require_disjoint
from sfumato.data.known import draw_known
from sfumato.data.loader import as_images
from sfumato.data.resident import ResidentPictures
from sfumato.data.tensors import from_tensors
from sfumato.defenses.compose import Compose
from sfumato.errors import ConfigError, DataError
from sfumato.membership import audit_evidence, default_attacks
from sfumato.membership_types import Membership
from sfumato.models.resolve import check_model
from sfumato.modules import probe
from sfumato.reference import answer, oracle
from sfumato.seeds import generator
from sfumato.split import Split, whole
from sfumato.target import Target
from sfumato.trials import Slices

WITH_REFERENCES = ("lira", "rmia", "shokri")
"""Attacks that join the default ones where there are reference models."""

Examples = Pictures | tuple[Tensor, Tensor]
"""Pictures with labels, or the user's own tensors (x, y), see `from_tensors`."""


def audit_membership(
    target: Target | Split | nn.Module,
    members: Examples | Game,
    nonmembers: Examples | None = None,
    *,
    attacks: Named[MembershipAttack] | None = None,
    references: References | None = None,
    views: int = 1,
    known: float = 0.5,
    seed: int = 0,
    seeds: Sequence[int] | None = None,
    slices: Slices | None = None,
    title: str = "",
) -> Membership:
    """Ask a model about examples, and attack what it answers.

    Args:
        target: any classifier from x to logits, as deployed: a module, a split model, or a target with its defenses.
        members: examples that it was trained on; or a game, whose members and non-members are asked about.
        nonmembers: as many others, from the same distribution; None with a game.
        attacks: names in the registry, attacks of your own making, or attacks by the name that they get in the report. None takes
            those of `default_attacks`, and with reference models those of `WITH_REFERENCES`.
        references: reference models' answers about the examples of the game, as `train_references` returns them.
        views: how many views of each example the target is asked about, as the references were.
        known: share of the examples whose membership the adversary knows, [0, 1), for attacks that learn from them.
        seed: of everything random, where `seeds` is None.
        seeds: run every attack with each of these.
        slices: examples to measure by themselves, (N,), bool, by name, beside each class: members first, and of a game in the
            order of its `pool`.
        title: a line for people; the model's name where empty.

    Returns:
        The audit.

    Raises:
        ConfigError: a game with nonmembers or neither of them, references without a game or of other examples, an attack that
            needs what is not there, or numbers out of range.
        DataError: an example is a member and a non-member, or tensors cannot be used.
        ModelError: the model does not take the examples.

    Example:
        >>> import sfumato as sf
        >>> x, y = torch.rand(40, 1, 8, 8), torch.arange(40) % 2
        >>> net = sf.build_model("lenet5", classes=2, shape=(1, 8, 8))
        >>> found = audit_membership(net, (x[:20], y[:20]), (x[20:], y[20:]), attacks=["loss", "gap"])
        >>> [(result.name, result.members, result.nonmembers) for result in found.results]
        [('loss', 20, 20), ('gap', 20, 20)]
    """
    asked, made = _asked(members, nonmembers), as_target(target)
    pool = asked.pool
    _require_answers(made, pool)
    _require_references(references, members, views)
    seeds = tuple(seeds if seeds is not None else (seed,))
    named = None if attacks is None else named_attacks(attacks, MembershipAttack)
    moved = any("sensitivity" in attack.needs for attack in (named or {}).values())
    answers = answer(made, pool, views=views, sensitivity=moved, seed=seeds[0])
    evidence = Evidence(
        target=answers,
        labels=pool.labels,
        references=references,
        known=draw_known(asked.member, pool.labels, known, generator(seeds[0], "known")),
        oracle=oracle(made, pool, classes=answers.logits.shape[-1], seed=seeds[0]),
    )
    if named is None:
        named = default_attacks(evidence) | named_attacks(() if references is None else WITH_REFERENCES, MembershipAttack)
    return audit_evidence(
        evidence,
        asked.member,
        named,
        seeds=seeds,
        slices=slices,
        title=title or made.split.name,
        hardware=hardware(made.device),
        duplicates=asked.duplicates,
        shared=asked.shared,
    )


@dataclass(frozen=True)
class _Asked:
    """Examples, which of them are members, how many repeat one of their side, and how many are on both."""

    pool: Pictures
    member: Tensor
    duplicates: int
    shared: int = 0


def as_target(target: Target | Split | nn.Module) -> Target:
    """Return a model as a target: itself, or without a defense, and whole where it is not split."""
    if isinstance(target, Target):
        return target
    return Target(target if isinstance(target, Split) else whole(target), Compose())


def _asked(members: Examples | Game, nonmembers: Examples | None) -> _Asked:
    """Return what is asked about."""
    if isinstance(members, Game):
        if nonmembers is not None:
            raise ConfigError("a game has its own non-members; leave nonmembers out, or give members and nonmembers as examples")
        shared, own = repeated(members.data.part("private"), members.data.part("nonmembers"))
        return _Asked(members.pool, members.member, own, shared)
    if nonmembers is None:
        raise ConfigError("nonmembers is missing: give examples that the model was not trained on, or a game in place of members")
    inside, outside = _pictures(members), _pictures(nonmembers)
    if inside.shape != outside.shape:
        raise DataError(f"members and non-members must have one shape, got {inside.shape} and {outside.shape}; resize one side")
    duplicates = require_disjoint(inside, outside)
    # One collection in memory: what an adversary asks about in any order.
    sides = [side.read(torch.arange(len(side))).cpu() for side in (inside, outside)]
    if sides[0].dtype != sides[1].dtype:
        sides = [as_images(side, "cpu") for side in sides]
    pool = ResidentPictures(torch.cat(sides), torch.cat([inside.labels, outside.labels]))
    return _Asked(pool, torch.arange(len(pool)) < len(inside), duplicates)


def _pictures(examples: Examples) -> Pictures:
    """Return examples as pictures. Floats are kept as they are, whatever the range: the model was trained on them."""
    if isinstance(examples, Pictures):
        return examples
    x, y = examples
    if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
        raise DataError(f"examples must be tensors (x, y), got {type(x).__name__} and {type(y).__name__}; see torch.from_numpy")
    if x.is_floating_point() and x.ndim == 4:
        if bad := int((~x.isfinite()).sum()):
            raise DataError(f"examples must be finite, found {bad} numbers that are not; leave such examples out")
        from_tensors(
            torch.zeros(len(x), 1, 1, 1), y, test=(torch.zeros(len(x), 1, 1, 1), y)
        )  # what is wrong with y is said there
        return ResidentPictures(x.float(), y)
    return from_tensors(x, y, test=examples).part("train")  # the test part is the same again, so that nothing is split off


def _require_answers(target: Target, pool: Pictures) -> None:
    """Raise unless a model answers about the examples, with a logit for each class."""
    classes = int(pool.labels.max()) + 1
    try:
        found = probe(target.split, torch.zeros(2, *pool.shape, device=target.device))
    except (RuntimeError, ValueError, TypeError, IndexError):
        found = None
    wide = isinstance(found, Tensor) and found.ndim == 2 and found.shape[1] > classes
    check_model(target.split, classes=found.shape[1] if wide and isinstance(found, Tensor) else classes, shape=pool.shape)


def _require_references(references: References | None, members: Examples | Game, views: int) -> None:
    """Raise unless references are of the examples that are asked about."""
    if references is None:
        return
    if not isinstance(members, Game):
        raise ConfigError("references are of the examples of a game: give that game in place of members and nonmembers")
    found, expected = tuple(references.answers[0].logits.shape[:2]), (len(members.pool), views)
    if found != expected or not torch.equal(references.keep, members.keep(len(references))):
        raise ConfigError(
            f"references must be of {expected[0]} examples of this game in {expected[1]} views, found {found[0]} in {found[1]}, "
            "or others' halves; train them with this game, or load those of it"
        )
