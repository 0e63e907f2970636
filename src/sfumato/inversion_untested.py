# SPDX-License-Identifier: Apache-2.0
"""What an audit of the weights says nothing about, a sentence each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sfumato import registry
from sfumato.attacks.naming import names_of
from sfumato.attacks.weights.base import InversionAttack
from sfumato.data.base import Data
from sfumato.inversion_types import EvaluatorFacts, InversionResult

_ROUGH = 10
"""Classes below which an interval over classes is rough."""


def inversion_untested(
    evaluator: EvaluatorFacts,
    attacks: Mapping[str, InversionAttack],
    results: Sequence[InversionResult],
    *,
    data: Data,
    identities: int,
) -> tuple[str, ...]:
    """Say what an audit with some attacks, judged by an evaluator, says nothing about.

    Args:
        evaluator: who judged.
        attacks: those that were run, by name.
        results: of each attack with each seed.
        data: the pictures; `public` is what the priors were trained on.
        identities: how many classes were attacked.

    Returns:
        Sentences without a full stop. The first says why nothing is concluded, where nothing is.
    """
    return (
        *_distrusted(evaluator),
        *_left(attacks),
        f"other evaluators: {evaluator.model} alone judged, trained once",
        f"an adversary with other public pictures, or more than the {len(data.part('public')):,} that the priors were trained "
        "on, or with a better prior",
        "an adversary with more compute: searches that run longer or start more often than the settings say",
        *_classes(len(data.classes), identities),
        *(["how much the attacks vary: each was run with one seed"] if len({result.seed for result in results}) == 1 else []),
        "other targets, trained the same way: one was attacked",
        *_unreached(results),
    )


def _distrusted(evaluator: EvaluatorFacts) -> Iterable[str]:
    """Say why nothing is concluded from what an evaluator says that is below its gate."""
    if not evaluator.trusted:
        yield (
            f"how much any attack recovers: the evaluator {evaluator.model} names {evaluator.accuracy.value:.0%} of held-out "
            f"private pictures right, which is below its gate of {evaluator.gate:.0%}, so that what it says of reconstructions "
            "proves nothing; train it longer, name a better model for it, or give it more private pictures"
        )


def _left(attacks: Mapping[str, InversionAttack]) -> Iterable[str]:
    """Name the attacks of the registry that were not run."""
    run = {type(attack) for attack in attacks.values()}
    for name in names_of(InversionAttack):
        entry = registry.entry("attacks", name)
        if name not in attacks and entry.load() not in run:
            made = registry.create("attacks", name, {})
            if made not in attacks.values():
                yield f"the attack '{name}': {entry.summary}"


def _classes(outputs: int, identities: int) -> Iterable[str]:
    """Say which classes nothing was asked about, and how few there are."""
    if identities < outputs:
        yield f"{outputs - identities} of {outputs} classes: they were not attacked"
    if identities < _ROUGH:
        yield f"how far the intervals hold: they are over {identities} classes, and rough below {_ROUGH}"


def _unreached(results: Sequence[InversionResult]) -> Iterable[str]:
    """Name the attacks that did not get to every class."""
    for result in results:
        if result.unreached:
            yield (
                f"what '{result.name}' with seed {result.seed} would do with a larger budget: it did not get to "
                f"{result.unreached} of {result.identities} classes, which count as failures"
            )
