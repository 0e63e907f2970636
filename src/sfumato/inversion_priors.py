# SPDX-License-Identifier: Apache-2.0
"""The priors of a recipe that attacks weights: each trained once or read from its file, and what it is worth measured once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from sfumato.audit import hardware, versions
from sfumato.court import Court
from sfumato.data.base import Data
from sfumato.files import file_hash, write_json
from sfumato.inversion_record import prior_facts_from_json
from sfumato.inversion_types import PriorFacts
from sfumato.models.resolve import own_code
from sfumato.plain import plain
from sfumato.prior_facts import prior_facts
from sfumato.priors.base import FOR_TARGET, Prior, PriorKind
from sfumato.priors.for_target import train_for
from sfumato.priors.saved import load_prior, save_prior
from sfumato.priors.settings import PriorSettings
from sfumato.priors.train import require_trainable
from sfumato.recipe import Recipe
from sfumato.store import Stage, digest
from sfumato.target import Target
from sfumato.targets import read_record
from sfumato.types import Labels, told_as
from sfumato.workplace import Workplace, say_found

_PRIOR = "prior.safetensors"


@dataclass(frozen=True)
class Searched:
    """A prior that is ready.

    Attributes:
        prior: on the device of the workplace.
        key: of what it came from: a stage, or a file.
        facts: what it is worth.
    """

    prior: Prior
    key: str
    facts: PriorFacts


def stage_of(workplace: Workplace, data: Data, kind: str, parts: Sequence[str], definition: Mapping[str, object]) -> Stage:
    """Return the stage of something that comes of parts of the data.

    Args:
        workplace: where.
        data: the pictures.
        kind: what is computed.
        parts: of the data.
        definition: what else its outcome depends on.
    """
    pictures = {part: data.part(part).fingerprint for part in parts}
    return workplace.store.stage(kind, {"pictures": pictures, "sfumato": version("sfumato"), **definition})


@dataclass(frozen=True)
class RecipePriors:
    """Where the attacks of a recipe get their priors from.

    Args:
        recipe: says how priors are trained, or where they are.
        target: the target, which some kinds learn from.
        trained: its stage.
        data: its pictures.
        workplace: where.
    """

    recipe: Recipe
    target: Target
    trained: Stage
    data: Data
    workplace: Workplace

    @property
    def kinds(self) -> list[PriorKind]:
        """Those that the recipe's attacks search, each once."""
        return list(dict.fromkeys(attack.kind for attack in self.recipe.inverting.values()))

    def check(self) -> None:
        """Raise where a prior that is given does not fit the target, or one that is not there cannot be trained.

        Raises:
            ConfigError: it is of another kind or size, or learned from a target with other classes; no prior makes such pictures.
            DataError: there are too few public pictures.
            ModelError: what it makes is not pictures in [0, 1].
            WeightsError: the file holds no prior.
        """
        for kind in self.kinds:
            plan = self.recipe.inversion.priors[kind]
            if plan.weights is not None:
                self._loaded(kind)
            else:
                require_trainable(kind, self.data.part("public"), plan.settings, classes=len(self.data.classes))

    def searched(self, kind: PriorKind, court: Court, classes: Labels) -> Searched:
        """Train a prior or find it, and measure what it is worth, or find it measured.

        Args:
            kind: of prior.
            court: who judges.
            classes: those that are attacked, (K,), int64.
        """
        plan = self.recipe.inversion.priors[kind]
        if plan.weights is None:
            key, prior = self._trained(kind, plan.settings)
            steps, source = plan.settings.steps, f"trained on {len(self.data.part('public')):,} public pictures"
        else:
            key, prior = digest({"file": file_hash(plan.weights), "crop": plan.crop}), self._loaded(kind)
            steps, source = 0, f"loaded from {plan.weights.name}"
        per_class = min(made.per_class for made in self.recipe.inverting.values() if made.kind == kind)
        evaluator = self.recipe.inversion.evaluator
        judge = {**dataclasses.asdict(evaluator), "weights": file_hash(evaluator.weights), "code": own_code(evaluator.model)}
        del judge["gate"]  # what a prior is worth does not depend on who believes it
        asked = {"prior": key, "classes": classes.tolist(), "per class": per_class, "seed": self.recipe.seed}
        definition = {"evaluator": judge, "target": self.trained.key, **asked}
        stage = stage_of(self.workplace, self.data, "prior-facts", ("private", "public"), definition)
        record = stage.folder / "facts.json"
        if stage.done:
            return Searched(prior, key, read_record(record, prior_facts_from_json))
        with stage.claim():
            found = prior_facts(prior, court, classes, per_class=per_class, steps=steps, source=source, seed=self.recipe.seed)
            write_json(record, {key: plain(value) for key, value in vars(found).items()})
            stage.finish({"versions": versions()})
        return Searched(prior, key, found)

    def _loaded(self, kind: PriorKind) -> Prior:
        """Read the prior that is given for a kind, which must fit the target."""
        plan, outputs = self.recipe.inversion.priors[kind], len(self.data.classes)
        assert plan.weights is not None  # noqa: S101 -- nobody asks for one that is not given
        saved = load_prior(plan.weights, kind=kind, image_shape=self.data.shape, classes=outputs, crop=plan.crop)
        return saved.prior.to(self.workplace.device)

    def _trained(self, kind: PriorKind, settings: PriorSettings) -> tuple[str, Prior]:
        """Train a prior, or find it trained; where training was interrupted it goes on. Targets share what learned of none."""
        device, outputs, told = self.workplace.device, len(self.data.classes), f"prior '{kind}' of {self.recipe.name}"
        own = {"target": self.trained.key} if kind in FOR_TARGET else {}
        definition = {"kind": kind, "settings": dataclasses.asdict(settings), "seed": self.recipe.seed, **own}
        stage = stage_of(self.workplace, self.data, "prior", ("public",), definition)
        path = stage.folder / _PRIOR
        if stage.done:
            say_found(self.workplace, told)
            return stage.key, load_prior(path, kind=kind, image_shape=self.data.shape).prior.to(device)
        with stage.claim():
            if self.workplace.restart:
                stage.checkpoint.unlink(missing_ok=True)
            prior = train_for(
                self.target,
                self.data,
                kind,
                settings,
                seed=self.recipe.seed,
                checkpoint=stage.checkpoint,
                definition=stage.key,
                samples=stage.folder / "samples",
                watch=told_as(self.workplace.watch, told),
            )
            save_prior(path, prior, settings, classes=outputs if own else None, source=self.data.name)
            stage.finish({"hardware": hardware(device), "versions": versions()})
        return stage.key, prior
