# SPDX-License-Identifier: Apache-2.0
"""A classifier and people in, an `Inversion` out: the audit of the weights of a model that is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from sfumato.arguments import require_choice
from sfumato.attacks.naming import Named, named_attacks
from sfumato.attacks.weights.base import MEMORY, InversionAttack, Inverted
from sfumato.court import Court
from sfumato.data.base import Data
from sfumato.errors import ConfigError, DataError
from sfumato.evaluator import Evaluator
from sfumato.factors import prepare_reader
from sfumato.inversion import run_inversion
from sfumato.inversion_types import Inversion, PriorFacts
from sfumato.judge import prepare_judge
from sfumato.model_audit import as_target
from sfumato.models.resolve import check_model
from sfumato.prior_facts import prior_facts
from sfumato.priors.base import Prior, PriorKind
from sfumato.priors.for_target import train_for
from sfumato.priors.saved import require_prior
from sfumato.priors.settings import FULL, SCALES
from sfumato.split import Split
from sfumato.target import Target
from sfumato.types import NamedWatch, told_as


def audit_inversion(
    target: Target | Split | nn.Module,
    data: Data,
    attacks: Named[InversionAttack] = ("gmi", "kedmi", "plg"),
    *,
    priors: Mapping[PriorKind, Prior] | Literal["smoke", "full"] = "full",
    evaluator: Evaluator | None = None,
    classes: Sequence[int] | None = None,
    seeds: Sequence[int] = (0,),
    memory: int = MEMORY,
    show_private: bool = False,
    title: str = "",
    watch: NamedWatch | None = None,
) -> Inversion:
    """Make pictures of a classifier's classes, and judge what they show.

    Args:
        target: any classifier from x in [0, 1] to logits, as deployed: a module, a split model, or a target with its defenses.
        data: the pictures, as `by_identity` shares them: `private` that the target was trained on, `test` of the same people,
            `public` of others.
        attacks: names in the registry, attacks of your own making, or attacks by the name that they get in the report.
        priors: priors by their kind; those that are missing, or all of them, are trained on the public pictures, with the
            papers' constants, or with "smoke" in minutes on a CPU.
        evaluator: who judges; a small residual network where None.
        classes: those to attack; all where None.
        seeds: run every attack with each of these; the first trains the priors.
        memory: bytes that a batch of a search may take.
        show_private: put private pictures into the gallery.
        title: a line for people; the model's name where empty.
        watch: told of the progress.

    Returns:
        The audit.

    Raises:
        ConfigError: no attack, seeds or classes that are not different, a class that is none of the target's, or a prior or an
            evaluator that does not fit. All of this shows before anything is trained.
        DataError: there are too few pictures to learn from or to judge by, or none in a part.
        ModelError: the target does not take the pictures, or answers for another number of classes.

    Example:
        >>> import sfumato as sf
        >>> people = sf.by_identity(sf.load_data((torch.rand(120, 1, 8, 8), torch.arange(120) % 6)), private=4)
        >>> net = sf.build_model("cnn4", classes=4, shape=(1, 8, 8))
        >>> tiny = dict(gan=sf.train_prior("gan", people.part("public"), sf.PriorSettings(width=4, steps=2, batch_size=4)))
        >>> judge = sf.Evaluator(model="lenet5", epochs=1)
        >>> found = audit_inversion(net, people, sf.GMI(steps=2), priors=tiny, evaluator=judge)
        >>> found.results[0].name, found.identities, found.strongest() is None  # the evaluator is below its gate
        ('gmi', 4, True)
    """
    named = named_attacks([attacks] if isinstance(attacks, InversionAttack) else attacks, InversionAttack)
    if not named:
        raise ConfigError("an audit of the weights needs at least one attack, such as 'kedmi'; name one")
    made, seeds = as_target(target), tuple(seeds)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds must be one or more different numbers, got {list(seeds)}")
    _require_people(data)
    check_model(made.split, classes=len(data.classes), shape=data.shape, name="the target")
    asked, device = _asked(classes, len(data.classes)), made.device
    _require_priors(priors, data.shape)
    judge = prepare_judge(
        evaluator or Evaluator(), data, made.split, device=device, watch=told_as(watch, f"evaluator of {data.name}")
    )
    reader = prepare_reader(data, device=device, watch=told_as(watch, f"reader of factors of {data.name}"))
    court = Court(made, data, judge, reader)
    ready = _Priors(court, asked, priors, seeds[0], watch)

    def make(name: str, attack: InversionAttack, seed: int) -> Inverted:
        prior, public = ready.of(attack), data.part("public")
        told = told_as(watch, name)
        return attack(made, prior, public, asked, outputs=len(data.classes), seed=seed, memory=memory, watch=told)

    return run_inversion(
        court,
        named,
        make,
        classes=asked,
        priors=lambda: ready.facts,
        seeds=seeds,
        title=title or made.split.name,
        show_private=show_private,
    )


def _require_people(data: Data) -> None:
    """Raise unless there are pictures of private people, held-out ones of these, and public ones of others."""
    for name in ("private", "test", "public"):
        if name not in data.parts or not len(data.part(name)):
            raise DataError(
                f"an audit of the weights needs pictures in part '{name}' of {data.name}, found none; part people with "
                "by_identity(data, private=...), and where nobody is left for the public pictures, bring others by with_public"
            )


def _asked(classes: Sequence[int] | None, outputs: int) -> Tensor:
    """Return the classes that are attacked, ascending, (K,), int64."""
    asked = sorted(range(outputs) if classes is None else classes)
    if not asked or len(set(asked)) < len(asked) or asked[0] < 0 or asked[-1] >= outputs:
        raise ConfigError(
            f"classes must be different numbers from 0 to {outputs - 1}, those of the target, got {list(classes or ())}; leave "
            "them out for all"
        )
    return torch.tensor(asked)


def _require_priors(given: Mapping[PriorKind, Prior] | str, shape: tuple[int, int, int]) -> None:
    """Raise unless priors are what their kinds say and make pictures of a shape; or a way to train them is known."""
    if isinstance(given, str):
        require_choice("priors", given, ("smoke", "full"))
        return
    for kind, prior in given.items():
        require_choice("the kind of a prior", kind, get_args(PriorKind))
        require_prior(prior, kind=kind, image_shape=shape, name=f"the prior that is given for '{kind}'")


class _Priors:
    """Priors that are given, and those that are trained when an attack first asks."""

    def __init__(
        self,
        court: Court,
        classes: Tensor,
        given: Mapping[PriorKind, Prior] | Literal["smoke", "full"],
        seed: int,
        watch: NamedWatch | None,
    ) -> None:
        self._court, self._classes, self._seed, self._watch = court, classes, seed, watch
        self._settings = SCALES[given] if isinstance(given, str) else FULL
        self._ready = {} if isinstance(given, str) else dict(given)
        self._facts: dict[PriorKind, PriorFacts] = {}

    @property
    def facts(self) -> list[PriorFacts]:
        """What the priors that were asked for are worth."""
        return list(self._facts.values())

    def of(self, attack: InversionAttack) -> Prior:
        """Return the prior that an attack searches."""
        kind = attack.kind
        if kind not in self._facts:
            steps, source = 0, "given"
            if kind not in self._ready:
                self._ready[kind] = self._train(kind)
                public = self._court.data.part("public")
                steps, source = self._settings[kind].steps, f"trained on {len(public):,} public pictures"
            prior = self._ready[kind].to(self._court.target.device)
            self._facts[kind] = prior_facts(
                prior, self._court, self._classes, per_class=attack.per_class, steps=steps, source=source, seed=self._seed
            )
        return self._ready[kind]

    def _train(self, kind: PriorKind) -> Prior:
        target, data, watch = self._court.target, self._court.data, told_as(self._watch, f"prior '{kind}'")
        return train_for(target, data, kind, self._settings[kind], seed=self._seed, watch=watch)
