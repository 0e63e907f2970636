# SPDX-License-Identifier: Apache-2.0
"""Measure which layers of a recipe's model matter to naming people and to rebuilding them, and search where to freeze it.

The model is trained as the recipe says, but with nothing frozen, and attacked. Each profile is a stage of its own, as is each
training of the search, so that nothing is computed twice: not by another attack, another accuracy, or an audit.

Source: ho2024tldmi, sections 4.2 and 4.3.
Equations: none.
Departures: of several attacks, that whose pictures the evaluator takes for the class most often is what advice goes by; the paper
has one. It does not say on which of its models it measures; here on that of which nothing is frozen, or frozen layers would be
measured as they came.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import torch
from pydantic import TypeAdapter

from sfumato.analysis.freezing_advice import NOTHING, search_freeze
from sfumato.arguments import require_least
from sfumato.audit import hardware, versions
from sfumato.data.base import Data
from sfumato.defenses.tl_dmi import TLDMI
from sfumato.errors import ConfigError, UnknownNameError, nearest
from sfumato.fisher_stages import LayerProfiles
from sfumato.importance_record import FreezeSearch, Importance, Norms, Rebuilding
from sfumato.inversions import audit_weights, check_weights
from sfumato.models.freezing import freeze_points
from sfumato.models.layers import modules_in_order
from sfumato.plain import validate
from sfumato.recipe import Recipe
from sfumato.store import Stage
from sfumato.target import Target
from sfumato.targets import build_target, train_recipe
from sfumato.types import Interval
from sfumato.workplace import Workplace

_INTERVAL = TypeAdapter(Interval)


def measure_importance(
    recipe: Recipe,
    data: Data,
    workplace: Workplace,
    *,
    attack: str | None = None,
    wanted: float | None = None,
    trainings: int = 5,
) -> Importance:
    """Measure the Fisher information of each layer of a recipe's model, and search where to freeze it for a wanted accuracy.

    Args:
        recipe: what to train and how to attack its weights; `tl_dmi` among its defenses is left out.
        data: its pictures, as `read_data` gives them.
        workplace: where.
        attack: label of the attack to go by; None takes every attack on weights.
        wanted: the accuracy to keep on held-out pictures, in [0, 1]; None searches nothing.
        trainings: how many freeze points are trained at most.

    Raises:
        ConfigError: the recipe has no attack on weights; more is wanted than the model reaches with nothing frozen; there are
            no weights of others to freeze, or a defense cannot be composed with freezing; or as `check_weights`.
        UnknownNameError: no attack on weights has that label.
        DataError: no attack reached any class, or there are too few pictures.
        StorageError: what is stored cannot be read.
    """
    open_recipe = unfrozen(recipe, attack)
    require_least(1, trainings=trainings)
    if wanted is not None and not 0 <= wanted <= 1:
        raise ConfigError(f"wanted must be an accuracy in [0, 1], got {wanted}; divide percent by 100")
    draft = build_target(replace(open_recipe, pretraining=None), data, workplace)
    if wanted is not None:
        _require_freezable(open_recipe, draft, data, workplace, _bn(recipe))
    check_weights(open_recipe, draft, data, workplace)
    target, trained = train_recipe(open_recipe, data, workplace)
    accuracy = _accuracy(trained)
    if wanted is not None and accuracy.value < wanted:
        raise ConfigError(
            f"wanted an accuracy of {100 * wanted:.4g} %, and with nothing frozen {recipe.name} reaches "
            f"{100 * accuracy.value:.4g} %; want less, or train a better model first"
        )
    audited = audit_weights(open_recipe, target, trained, data, workplace)
    assert audited is not None  # noqa: S101 -- the recipe has an attack
    profiles = LayerProfiles(open_recipe, target, trained, data, workplace)
    found = profiles.rebuilding({result.name: result.top1 for result in audited.results})
    return Importance(
        title=recipe.name,
        model=recipe.model,
        data=data.name,
        pictures=data.part("private").fingerprint,
        defenses=tuple(defense.describe() for defense in open_recipe.defenses),
        accuracy=accuracy,
        evaluator=audited.evaluator,
        naming=profiles.naming,
        rebuilding=found,
        unreached=tuple(name for name in open_recipe.inverting if name not in {one.attack for one in found}),
        freezing=None if wanted is None else _search(found, profiles, wanted, trainings, _bn(recipe)),
        seed=recipe.seed,
        recipe=hashlib.sha256(recipe.text.encode()).hexdigest(),
        versions=versions(),
        hardware=hardware(workplace.device),
    )


def unfrozen(recipe: Recipe, attack: str | None = None) -> Recipe:
    r"""Return a recipe with nothing frozen, attacked on its weights alone, with the first of its seeds.

    Args:
        recipe: any.
        attack: label of the only attack to keep; None keeps all on weights.

    Raises:
        ConfigError: it has no attack on weights.
        UnknownNameError: none of them has that label.

    Example:
        >>> from sfumato.recipe import parse_recipe
        >>> unfrozen(parse_recipe('data.name = "digits"\nmodel.name = "lenet5"', name="plain"))
        Traceback (most recent call last):
        sfumato.errors.ConfigError: rebuilding people is measured on pictures that an attack on weights made, and ...
    """
    if not recipe.inverting:
        others = [*recipe.attacks, *recipe.inference]
        has = f"has attacks of other kinds alone, {', '.join(others)}" if others else "has no attack"
        raise ConfigError(
            f"rebuilding people is measured on pictures that an attack on weights made, and recipe '{recipe.name}' {has}; add a "
            'table [[attacks]] with the name of one, such as "gmi"'
        )
    if attack is not None and attack not in recipe.inverting:
        raise UnknownNameError(
            f"attack: recipe '{recipe.name}' has no attack on weights labeled '{attack}'{nearest(attack, recipe.inverting)}; it "
            f"has {', '.join(recipe.inverting)}"
        )
    return replace(
        recipe,
        defenses=tuple(defense for defense in recipe.defenses if not isinstance(defense, TLDMI)),
        attacks={},
        inference={},
        inverting={name: made for name, made in recipe.inverting.items() if attack in (None, name)},
        audit=replace(recipe.audit, seeds=recipe.audit.seeds[:1]),
    )


def frozen(recipe: Recipe, at: str, *, bn: Norms = "frozen") -> Recipe:
    r"""Return a recipe with its model frozen, before its other defenses.

    Args:
        recipe: as `unfrozen` returns it.
        at: name of the freeze point.
        bn: what is done with the norms of the frozen part.

    Example:
        >>> from sfumato.recipe import parse_recipe
        >>> made = frozen(parse_recipe('data.name = "digits"\nmodel.name = "lenet5"', name="plain"), "c1")
        >>> made.name, made.defenses
        ('plain frozen to c1', (TLDMI(freeze='c1', bn='frozen'),))
    """
    return replace(recipe, defenses=(TLDMI(freeze=at, bn=bn), *recipe.defenses), name=f"{recipe.name} frozen to {at}")


def _bn(recipe: Recipe) -> Norms:
    """Return what a recipe does with the norms of its frozen part."""
    return next((defense.bn for defense in recipe.defenses if isinstance(defense, TLDMI)), "frozen")


def _require_freezable(recipe: Recipe, draft: Target, data: Data, workplace: Workplace, bn: Norms) -> None:
    """Raise where a search would end in a refusal, before anything is trained.

    Args:
        recipe: with nothing frozen.
        draft: its target, not trained.
        data: its pictures.
        workplace: where.
        bn: what is done with the norms of a frozen part.
    """
    if recipe.pretraining is None and recipe.split.weights is None:
        raise ConfigError(
            "where to freeze is asked of layers that others' pictures have trained; add a table [pretrain] to recipe "
            f"'{recipe.name}', or weights under [model]"
        )
    example = torch.zeros(1, *data.shape, device=workplace.device)
    bare = build_target(replace(recipe, defenses=(), pretraining=None, device=None), data, workplace).split
    known, own = ([layer.name for layer in modules_in_order(model, example) if layer.weighs] for model in (draft.split, bare))
    if lost := [name for name in own[:-1] if name not in known]:  # the last is never frozen, and may be replaced
        raise ConfigError(
            f"where to freeze is asked of the model's own layers, and a defense of recipe '{recipe.name}' puts others in their "
            f"place: of {len(own)} layers {len(lost)} have another name, {lost[0]} the first; leave that defense out"
        )
    deepest = [point.name for point in freeze_points(bare, example)][-1:]
    for name in deepest:  # a search begins there
        try:
            build_target(replace(frozen(recipe, name, bn=bn), pretraining=None), data, workplace)
        except ConfigError as error:
            raise ConfigError(
                f"where to freeze is searched from the deepest point, {name}, and a defense of recipe '{recipe.name}' refuses "
                f"that: {error}; leave that defense out to search"
            ) from error


def _search(found: Sequence[Rebuilding], profiles: LayerProfiles, wanted: float, trainings: int, bn: Norms) -> FreezeSearch:
    """Search where to freeze, by the attack that did best."""
    recipe, data, workplace = profiles.recipe, profiles.data, profiles.workplace
    best = max(found, key=lambda one: one.top1.value)
    # Of the model as tl_dmi sees it, which is listed first: without what other defenses build into it.
    bare = build_target(replace(recipe, defenses=(), device=None), data, workplace)
    advice = search_freeze(
        lambda name: _accuracy(train_recipe(frozen(recipe, name, bn=bn), data, workplace)[1]).value,
        bare.split,
        torch.zeros(1, *data.shape, device=bare.device),
        classification=profiles.naming,
        inversion=best.profiles["l2"],
        wanted=wanted,
        trainings=trainings,
        measured={NOTHING: _accuracy(profiles.trained).value},
    )
    return FreezeSearch(advice, best.attack, bn)


def _accuracy(trained: Stage) -> Interval:
    """Return the accuracy that a trained target reached."""
    advice = f"remove {trained.folder} to train it again"
    return validate(_INTERVAL, trained.facts().get("accuracy"), f"an accuracy in {trained.folder / 'done.json'}", advice)
