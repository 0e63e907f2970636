# SPDX-License-Identifier: Apache-2.0
"""What Fisher information says of the layers of a model, in sentences, and what it does not say. Nothing is measured here.

Source: ho2024tldmi, section 4.2 (the claim that is put to the test: first layers matter to rebuilding people).
Equations: none.
Departures: the paper compares profiles by eye; here two shares, each with its 95 % interval, and no difference is claimed where
these overlap.

Example:
    >>> compare(Interval(0.5, 0.4, 0.6), Interval(0.3, 0.2, 0.39))
    'more'
"""

from __future__ import annotations

from typing import Literal

from sfumato.analysis.freezing_advice import Considered
from sfumato.importance_record import FreezeSearch, Importance, Rebuilding
from sfumato.inversion_words import describe_evaluator, warning
from sfumato.tables import show_number, show_share
from sfumato.types import Interval

NO_POINT = "nothing frozen"
"""What the place is called at which no layer is frozen."""

READING = (
    "The Fisher information of a layer is the mean squared gradient of a loss by its parameters: where it is large, a small "
    "change of the layer changes much.",
    "Each profile is divided by its sum, so that the losses of naming and of rebuilding, which have other units, can be compared "
    "layer by layer.",
    "A layer with much of the information for rebuilding and little of that for naming is one to freeze: it would learn private "
    "people for an adversary rather than for the task.",
)
"""How to read the profiles, in three sentences."""

_ROUGH = 20  # classes, below which an interval over classes is rough


def compare(rebuilding: Interval, naming: Interval) -> Literal["more", "less", ""]:
    """Return whether a share is more or less than another, or "" where their intervals overlap."""
    if rebuilding.low > naming.high:
        return "more"
    return "less" if rebuilding.high < naming.low else ""


def verdict(found: Importance) -> list[str]:
    """Say for each attack whether rebuilding people weighs the first layers more than naming them does.

    Args:
        found: the record.

    Returns:
        A sentence for each attack, of its l2 profile and the layers before the embedding.
    """
    return [_weighed(one, found.naming.encoder.first_third) for one in found.rebuilding]


def _weighed(one: Rebuilding, naming: Interval) -> str:
    share = one.profiles["l2"].encoder.first_third
    how = compare(share, naming)
    start = (
        f"Rebuilding people weighs the first layers {how} than naming them does"
        if how
        else "No difference can be shown between how rebuilding people and naming them weigh the first layers"
    )
    return (
        f"{start}: the first third of those before the embedding holds {show_share(share)} of the information for rebuilding by "
        f"{one.attack}, and {show_share(naming)} of that for naming."
    )


def suggestion(search: FreezeSearch) -> str:
    """Say what to freeze, and what that costs and brings."""
    chosen, wanted = search.advice.chosen, f"{_percent(search.advice.wanted)} accuracy"
    if not chosen.point.name:
        return f"Freeze nothing: no freeze point that was trained keeps {wanted}."
    return (
        f"For {wanted}, freeze up to {chosen.point.name}: {chosen.point.trainable:,} parameters are left to train, which reached "
        f"{_percent(chosen.accuracy)}, and {_percent(chosen.rebuilding_frozen)} of the information for rebuilding is in frozen "
        "layers."
    )


def recipe_lines(search: FreezeSearch) -> str:
    """Return what to put into the recipe, in TOML; "" where nothing is to be frozen.

    Args:
        search: what was found.
    """
    name = search.advice.chosen.point.name
    if not name:
        return ""
    lines = ["[[defenses]]", 'name = "tl_dmi"', f'freeze = "{name}"']
    return "\n".join([*lines, *([f'bn = "{search.bn}"'] if search.bn != "frozen" else [])])


def point_name(one: Considered, search: FreezeSearch) -> str:
    """Return what a freeze point is called in a table, the suggestion marked."""
    mark = "→ " if one.point.name == search.advice.chosen.point.name else ""
    return f"{mark}{one.point.name or NO_POINT}"


def facts(found: Importance) -> list[str]:
    """Say what was measured: of which model, on how many pictures.

    Args:
        found: the record.
    """
    defenses = f" with {', '.join(found.defenses)}" if found.defenses else ""
    naming = found.naming
    return [
        f"{found.model} on {found.data}{defenses}, with nothing frozen, names {show_share(found.accuracy)} of held-out pictures "
        "right.",
        f"Naming: cross-entropy of {naming.samples:,} held-out pictures of {_classes(found)[0]:,} classes.",
        *(
            f"Rebuilding: the distance of {one.profiles['l2'].samples:,} pictures that {one.attack} made to private pictures of "
            f"their class; the evaluator takes {show_share(one.top1)} of what the attack made for the class."
            for one in found.rebuilding
        ),
        describe_evaluator(found.evaluator),
    ]


def unmeasured(found: Importance) -> list[str]:
    """Say what the numbers say nothing about.

    Args:
        found: the record.
    """
    fewest = min(_classes(found))
    maps = all("perceptual" in one.profiles for one in found.rebuilding)
    return [
        *([warning(found.evaluator)] if not found.evaluator.trusted else []),
        *(f"Rebuilding by {name}: it reached no class." for name in found.unreached),
        "How much an attack loses where a layer is frozen: Fisher information tells what matters where nothing is. Audit the "
        "recipe with the layers frozen.",
        "Other steps of an attack: its pictures are those that it ended with.",
        *([] if maps else ["The perceptual distance: no layer of the model gives a map."]),
        f"Other seeds: one model was trained, with seed {found.seed}, and what another training would change is in no interval.",
        *(
            [f"How far the intervals hold: they are over {fewest:,} classes, and rough below {_ROUGH}."]
            if fewest < _ROUGH
            else []
        ),
        *(_unsearched(found.freezing) if found.freezing is not None else ["Where to freeze: no accuracy was asked for."]),
    ]


def _unsearched(search: FreezeSearch) -> list[str]:
    """Say which freeze points were not trained, and how sure the others are."""
    table = search.advice.table
    read_off = sum(not one.measured for one in table)
    told = f"Freeze points that were not trained, {read_off:,} of {len(table):,}: their accuracy is read off between others."
    return [
        *([told] if read_off else []),
        "How sure the suggestion is: each freeze point was trained at most once.",
    ]


def _classes(found: Importance) -> list[int]:
    """Return how many classes there are pictures of: for naming, and then for each attack."""
    return [len(one.labels.unique()) for one in (found.naming, *(own.profiles["l2"] for own in found.rebuilding))]


def _percent(share: float) -> str:
    return f"{show_number(100 * share, '.1f')} %"
