# SPDX-License-Identifier: Apache-2.0
"""What attacks on weights come to: pictures in, an `Inversion` out, with the yardsticks that its distances are read by.

Pictures are given: an audit of what attacks made trains nothing and attacks nothing.

Source: ho2024tldmi, appendix D.2 (the measures) and B.2 (confidence beside attack accuracy).
Equations: none.
Departures: the paper quotes distances alone, which have no scale of their own. Here each stands between that of held-out private
pictures, below which no adversary can be expected to come, and that of public pictures, which show somebody else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from sfumato.attacks.weights.base import InversionAttack, Inverted
from sfumato.audit import hardware, versions
from sfumato.court import Court, Measured
from sfumato.data.base import Pictures
from sfumato.data.loader import shuffled
from sfumato.errors import ConfigError, DataError
from sfumato.inversion_exhibits import JudgedPictures, exhibits
from sfumato.inversion_types import ClassPictures, ClassResult, Inversion, InversionResult, PriorFacts, Yardstick
from sfumato.inversion_untested import inversion_untested
from sfumato.metrics.identity import class_interval, share_interval
from sfumato.seeds import generator
from sfumato.types import Interval, Labels

PICTURES = 2000
"""Pictures that a yardstick is measured on, at most."""
_SHARES = frozenset({"top1", "top5", "named"})


def judge_inversion(
    name: str, attack: InversionAttack, found: Inverted, *, classes: Labels, court: Court, seed: int
) -> tuple[InversionResult, JudgedPictures]:
    """Judge what one attack made with one seed, all pictures at once.

    Args:
        name: that it gets in the report.
        attack: the attack.
        found: what it made of K classes, n pictures of each.
        classes: which, (K,), int64, in the order of the pictures.
        court: who judges.
        seed: that the attack was run with.

    Returns:
        Every measure, with intervals over classes; and what the target and the evaluator make of each picture, to be looked at.

    Raises:
        ConfigError: there are pictures of another number of classes.
        DataError: there is one picture in all.
    """
    x, labels = _flat(found.pictures, classes)
    measured, asked = court.measure(x, labels), court.ask(x, labels, seed)
    reached = found.pictures.reached.cpu()
    kept = reached.repeat_interleave(len(x) // len(classes)).double()
    values = {
        **measured.values,
        "top1": measured.values["top1"] * kept,
        "top5": measured.values["top5"] * kept,
        "confidence": asked.confidence,
        "named": asked.named,
    }
    each = {key: one.view(len(classes), -1).mean(1).tolist() for key, one in values.items()}
    over = _intervals(values, labels, seed, name)
    shape = (len(classes), -1)
    shown = JudgedPictures(
        name, seed, found.pictures, asked.confidence.float().view(shape), measured.values["top1"].bool().view(shape)
    )
    result = InversionResult(
        name=name,
        seed=seed,
        access=attack.access,
        prior=attack.kind,
        identities=len(classes),
        per_class=len(x) // len(classes),
        top1=over["top1"],
        top5=over["top5"],
        confidence=over["confidence"],
        named=over["named"],
        knn=over["knn"],
        centroid=over["centroid"],
        frechet=measured.frechet,
        kid=measured.kid,
        face=over.get("face"),
        factors=over.get("factors"),
        unreached=int((~reached).sum()),
        classes=tuple(
            ClassResult(
                name=court.data.classes[label],
                accuracy=each["top1"][place],
                confidence=each["confidence"][place],
                distance=each["knn"][place],
                reached=bool(reached[place]),
            )
            for place, label in enumerate(classes.tolist())
        ),
        seconds=found.seconds,
        queries=found.queries,
        settings=dataclasses.asdict(attack),
    )
    return result, shown


def yardsticks(court: Court, classes: Labels, *, pictures: int = PICTURES, seed: int = 0) -> tuple[Yardstick, Yardstick]:
    """Measure pictures that are no reconstructions, as reconstructions are measured.

    Args:
        court: who judges.
        classes: those that are attacked, (K,), int64.
        pictures: how many of either, at most: about as many as an attack makes, since Fréchet distances of few are biased
            upwards.
        seed: of the draw.

    Returns:
        The floor, of held-out private pictures of these classes; and the ceiling, of public pictures, each taken for one of these
        classes at random, as many for each.

    Raises:
        DataError: there is no held-out picture of the classes, or no public one.
    """
    held, public = court.data.part("test"), court.data.part("public")
    held = _some(held.subset(torch.isin(held.labels, classes.cpu()).nonzero()[:, 0]), pictures, "floor", seed)
    public = _some(public, pictures, "ceiling", seed)
    if min(len(held), len(public)) < 2:
        raise DataError(
            f"yardsticks need 2 held-out private pictures of the attacked classes and 2 public ones, found {len(held)} and "
            f"{len(public)}; hold more pictures back, or leave more identities public"
        )
    taken = classes.cpu().repeat(len(public) // len(classes) + 1)[: len(public)]  # the pictures are in random order
    floor, ceiling = court.measure_stored(held, held.labels), court.measure_stored(public, taken)
    return _yardstick(floor, seed, "floor"), _yardstick(ceiling, seed, "ceiling")


def assemble_inversion(
    court: Court,
    results: Sequence[InversionResult],
    *,
    classes: Labels,
    attacks: Mapping[str, InversionAttack],
    priors: Sequence[PriorFacts],
    seeds: Sequence[int],
    overlap: int = 0,
    title: str = "",
) -> Inversion:
    """Put together an audit of what each of its attacks came to.

    Args:
        court: who judged.
        results: of each attack with each seed.
        classes: those that were attacked, (K,), int64.
        attacks: those that were run, by name.
        priors: those that were searched.
        seeds: of the attacks; the first draws the yardsticks.
        overlap: public pictures that were left out since they are private ones too.
        title: a line for people.

    Returns:
        The audit. Where the evaluator is below its gate it has no strongest attack, and the first of its `untested` says why.

    Raises:
        DataError: there is no held-out picture of the classes, or no public one.
    """
    made = max((result.identities * result.per_class for result in results), default=PICTURES)
    floor, ceiling = yardsticks(court, classes, pictures=min(made, PICTURES), seed=seeds[0])
    facts = court.judge.facts(court.data)
    return Inversion(
        results=tuple(results),
        identities=len(classes),
        outputs=len(court.data.classes),
        evaluator=facts,
        floor=floor,
        ceiling=ceiling,
        priors=tuple(priors),
        overlap=overlap,
        untested=(*inversion_untested(facts, attacks, results, data=court.data, identities=len(classes)), *_foreign(priors)),
        seeds=tuple(seeds),
        versions=versions(),
        hardware=hardware(court.target.device),
        title=title,
    )


def run_inversion(
    court: Court,
    attacks: Mapping[str, InversionAttack],
    make: Callable[[str, InversionAttack, int], Inverted],
    *,
    classes: Labels,
    priors: Callable[[], Sequence[PriorFacts]],
    seeds: Sequence[int],
    title: str,
    show_private: bool,
) -> Inversion:
    """Run every attack with every seed, judge what they made, and choose what there is to look at.

    Args:
        court: who judges.
        attacks: by the name that they get in the report.
        make: runs an attack of a name with a seed, or finds what it made.
        classes: those that are attacked, (K,), int64.
        priors: returns those that were searched, once all attacks have run.
        seeds: of the attacks.
        title: a line for people.
        show_private: put private pictures into the gallery.
    """
    judged = [
        judge_inversion(name, attack, make(name, attack, seed), classes=classes, court=court, seed=seed)
        for seed in seeds
        for name, attack in attacks.items()
    ]
    found = assemble_inversion(
        court,
        [result for result, _ in judged],
        classes=classes,
        attacks=attacks,
        priors=priors(),
        seeds=seeds,
        overlap=court.data.left_out,
        title=title,
    )
    names = [court.data.classes[label] for label in classes.tolist()]
    private = partial(court.pictures_of, classes) if show_private else None
    return dataclasses.replace(found, gallery=exhibits(names, [shown for _, shown in judged], private=private))


def _foreign(priors: Sequence[PriorFacts]) -> list[str]:
    """Say of which priors nobody knows what pictures they were trained on."""
    return [
        f"whether the prior '{prior.kind}' has seen private pictures: it was {prior.source}, not trained here"
        for prior in priors
        if not prior.steps
    ]


def _flat(pictures: ClassPictures, classes: Labels) -> tuple[Tensor, Labels]:
    """Return pictures one after the other, (K * n, C, H, W), and the class of each."""
    x_hat = pictures.x_hat.cpu()
    if len(x_hat) != len(classes) or pictures.reached.shape != (len(classes),):
        raise ConfigError(
            f"expected pictures of the {len(classes)} classes that were attacked, found those of {len(x_hat)}, of which "
            f"{pictures.reached.numel()} are said to be reached; give the classes that the attack was given"
        )
    return x_hat.flatten(0, 1), classes.cpu().repeat_interleave(x_hat.shape[1])


def _intervals(values: Mapping[str, Tensor], labels: Labels, seed: int, name: str) -> dict[str, Interval]:
    """Return the mean of each measure with its interval over classes."""
    return {
        key: (share_interval if key in _SHARES else class_interval)(one, labels, generator(seed, "bootstrap", name, key))
        for key, one in values.items()
    }


def _yardstick(measured: Measured, seed: int, name: str) -> Yardstick:
    over = _intervals(measured.values, measured.labels, seed, name)
    return Yardstick(
        knn=over["knn"],
        centroid=over["centroid"],
        frechet=measured.frechet,
        kid=measured.kid,
        top1=over["top1"],
        factors=over.get("factors"),
    )


def _some(pictures: Pictures, count: int, name: str, seed: int) -> Pictures:
    """Return pictures in random order, cut to a number."""
    return pictures.subset(shuffled(len(pictures), generator(seed, "yardstick", name))[:count])
