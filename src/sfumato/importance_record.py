# SPDX-License-Identifier: Apache-2.0
"""Which layers of a model matter to naming people and to rebuilding them, and where to freeze it: a record, and its JSON.

Source: ho2024tldmi, sections 4.2 and 4.3.
Equations: none.
Departures: none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sfumato.analysis.fisher import Distance
from sfumato.analysis.fisher_profile import FisherProfile
from sfumato.analysis.freezing_advice import Considered, FreezeAdvice
from sfumato.inversion_types import EvaluatorFacts
from sfumato.plain import plain
from sfumato.types import Interval

Norms = Literal["frozen", "track"]
"""What is done with the norms of a frozen part, as `TLDMI` takes it."""


@dataclass(frozen=True)
class Rebuilding:
    """What each layer matters to rebuilding people, measured on the pictures of one attack.

    Attributes:
        attack: its label.
        top1: share of its pictures that the evaluator takes for the class, all classes counted.
        profiles: by the distance to private pictures; no perceptual one where no layer gives a map.
    """

    attack: str
    top1: Interval
    profiles: Mapping[Distance, FisherProfile]


@dataclass(frozen=True)
class FreezeSearch:
    """Where to freeze, and what that rests on.

    Attributes:
        advice: the suggestion, among all freeze points.
        attack: label of the attack whose profile was used.
        bn: what is done with the norms of the frozen part.
    """

    advice: FreezeAdvice
    attack: str
    bn: Norms = "frozen"


@dataclass(frozen=True)
class Importance:
    """What Fisher information says of the layers of a model of which nothing is frozen.

    Attributes:
        title: a line for people.
        model: name of the model.
        data: name of the data set.
        pictures: SHA-256 of the pictures that the model was trained on.
        defenses: of the target that was measured, as they print themselves.
        accuracy: of that target, on held-out pictures.
        evaluator: who judged the pictures of the attacks.
        naming: information for naming people.
        rebuilding: information for rebuilding them, of each attack that reached a class.
        unreached: labels of the attacks that reached none.
        freezing: where to freeze; None where nobody asked.
        seed: of the recipe.
        recipe: SHA-256 of its text.
        versions: of the software.
        hardware: a line about the machine.
    """

    title: str
    model: str
    data: str
    pictures: str
    defenses: tuple[str, ...]
    accuracy: Interval
    evaluator: EvaluatorFacts
    naming: FisherProfile
    rebuilding: tuple[Rebuilding, ...]
    unreached: tuple[str, ...]
    freezing: FreezeSearch | None
    seed: int
    recipe: str
    versions: Mapping[str, str]
    hardware: str

    @property
    def profiles(self) -> dict[str, FisherProfile]:
        """All profiles: "naming", and those of rebuilding as "ATTACK, DISTANCE"."""
        own = {f"{one.attack}, {distance}": profile for one in self.rebuilding for distance, profile in one.profiles.items()}
        return {"naming": self.naming, **own}


def importance_to_json(found: Importance) -> dict[str, object]:
    """Turn what was found of the layers into plain values that `json.dumps` takes.

    Args:
        found: the record.

    Returns:
        The keys `format` (1), `kind` ("fisher"), `title`, `model`, `data`, `pictures`, `defenses`, `accuracy`, `evaluator`,
        `naming`, `rebuilding`, `unreached`, `freezing`, `seed`, `recipe`, `versions` and `hardware`. `naming` and each of the
        `profiles` in `rebuilding` have `task`, `samples`, `layers`, `first_third` and `rank_with_depth`, and the last two also
        under `encoder`, of the layers before the embedding; each of `layers` has `name`, `parameters`, `information` and
        `share`. `freezing` is null, or has `wanted`, `freeze` (the suggestion, "" for nothing), `bn`, `attack` and `points`.
        Shares and accuracies are in [0, 1], intervals have `value`, `low` and `high`; a number that is not finite is the string
        "NaN", "Infinity" or "-Infinity".
    """
    record = {
        "format": 1,
        "kind": "fisher",
        "title": found.title,
        "model": found.model,
        "data": found.data,
        "pictures": found.pictures,
        "defenses": found.defenses,
        "accuracy": found.accuracy,
        "evaluator": found.evaluator,
        "naming": _profile(found.naming),
        "rebuilding": [
            {"attack": one.attack, "top1": one.top1, "profiles": {name: _profile(own) for name, own in one.profiles.items()}}
            for one in found.rebuilding
        ],
        "unreached": found.unreached,
        "freezing": None if found.freezing is None else _freezing(found.freezing),
        "seed": found.seed,
        "recipe": found.recipe,
        "versions": found.versions,
        "hardware": found.hardware,
    }
    return {name: plain(value) for name, value in record.items()}


def _profile(profile: FisherProfile) -> dict[str, object]:
    columns = zip(profile.layers, profile.parameters, profile.values, profile.shares, strict=True)
    return {
        "task": profile.task,
        "samples": profile.samples,
        "layers": [
            {"name": name, "parameters": count, "information": value, "share": share} for name, count, value, share in columns
        ],
        **_summary(profile),
        "encoder": {"layers": profile.before, **_summary(profile.encoder)},
    }


def _summary(profile: FisherProfile) -> dict[str, object]:
    return {"first_third": profile.first_third, "rank_with_depth": profile.rank_with_depth}


def _freezing(search: FreezeSearch) -> dict[str, object]:
    return {
        "wanted": search.advice.wanted,
        "freeze": search.advice.chosen.point.name,
        "bn": search.bn,
        "attack": search.attack,
        "points": [_considered(one) for one in search.advice.table],
    }


def _considered(one: Considered) -> dict[str, object]:
    return {
        "freeze": one.point.name,
        "frozen": one.point.frozen,
        "trainable": one.point.trainable,
        "accuracy": one.accuracy,
        "measured": one.measured,
        "rebuilding_frozen": one.rebuilding_frozen,
        "naming_kept": one.naming_kept,
    }
