# SPDX-License-Identifier: Apache-2.0
"""The weights of a recipe's target: an evaluator and priors trained once, attacks run once, their pictures stored and judged.

Pictures are stored as 8-bit pixels, which is what an adversary would keep, and judged as they are stored: another evaluator
judges what is there without a new attack.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.metadata import version

import torch
from torch import Tensor, nn

from sfumato.attacks.weights.base import InversionAttack, Inverted
from sfumato.audit import hardware, versions
from sfumato.court import Court
from sfumato.data.base import Data
from sfumato.data.loader import shuffled
from sfumato.errors import ConfigError, StorageError
from sfumato.factors import Reader, assemble_reader, teach_reader
from sfumato.files import file_hash, load_into, read_tensors, write_json, write_tensors
from sfumato.inversion import assemble_inversion, judge_inversion, judged_pictures
from sfumato.inversion_exhibits import exhibits
from sfumato.inversion_record import prior_facts_from_json
from sfumato.inversion_types import ClassPictures, Inversion, PriorFacts
from sfumato.judge import Judge, assemble_judge, teach_judge
from sfumato.models.resolve import own_code
from sfumato.plain import plain
from sfumato.prior_facts import prior_facts
from sfumato.priors.base import FOR_TARGET, Prior, PriorKind
from sfumato.priors.saved import load_prior, save_prior
from sfumato.priors.settings import PriorSettings
from sfumato.priors.train import train_prior
from sfumato.recipe import Recipe
from sfumato.seeds import generator
from sfumato.store import Stage
from sfumato.target import Target, WeightsView
from sfumato.targets import Workplace, read_record, say_found
from sfumato.types import Watch, told_as

_PICTURES = "pictures.safetensors"
_PRIOR = "prior.safetensors"


def audit_weights(recipe: Recipe, target: Target, trained: Stage, data: Data, workplace: Workplace) -> Inversion | None:
    """Attack the weights of a recipe's target.

    Args:
        recipe: what to train and how to attack it.
        target: trained.
        trained: its stage.
        data: its pictures, as `read_data` gives them.
        workplace: where.

    Returns:
        What was found; None where the recipe has no such attack.

    Raises:
        ConfigError: more identities are to be attacked than there are, or a prior does not fit the target.
        DataError: there are too few pictures to learn from or to judge by.
        StorageError: what is stored cannot be read.
    """
    if not recipe.inverting:
        return None
    return _Inquiry(recipe, target, trained, data, workplace).audit()


@dataclass(frozen=True)
class _Searched:
    """A prior that is ready, the key of what it came from, and what it is worth."""

    prior: Prior
    key: str
    facts: PriorFacts


@dataclass(frozen=True)
class _Inquiry:
    """The attacks of a recipe on its target's weights, and what they need."""

    recipe: Recipe
    target: Target
    trained: Stage
    data: Data
    workplace: Workplace

    def audit(self) -> Inversion:
        """Run every attack with every seed, and judge what they made."""
        recipe, court, classes = self.recipe, self._court, self._classes
        seeds = recipe.audit.seeds or (recipe.seed,)
        kinds = list(dict.fromkeys(attack.kind for attack in recipe.inverting.values()))
        priors = {kind: self._searched(kind) for kind in kinds}
        results, judged = [], []
        for seed in seeds:
            for name, attack in recipe.inverting.items():
                made = self._attacked(name, attack, priors[attack.kind], seed)
                results.append(judge_inversion(name, attack, made, classes=classes, court=court, seed=seed))
                judged.append(judged_pictures(name, made.pictures, classes=classes, court=court, seed=seed))
        found = assemble_inversion(
            court,
            results,
            classes=classes,
            attacks=recipe.inverting,
            priors=[searched.facts for searched in priors.values()],
            seeds=seeds,
            overlap=self.data.left_out,
            title=recipe.name,
        )
        names = [self.data.classes[label] for label in classes.tolist()]
        private = partial(court.pictures_of, classes) if self.workplace.show_private else None
        return dataclasses.replace(found, gallery=exhibits(names, judged, private=private))

    @cached_property
    def _classes(self) -> Tensor:
        """The classes that are attacked, ascending, (K,), int64."""
        outputs, asked = len(self.data.classes), self.recipe.inversion.options.identities
        if asked is not None and asked > outputs:
            raise ConfigError(
                f"identities must be at most {outputs}, the classes of the target, got {asked}; leave it out for all"
            )
        drawn = shuffled(outputs, generator(self.recipe.seed, "identities", "attacked"))
        return drawn[:asked].sort().values

    @cached_property
    def _court(self) -> Court:
        return Court(self.target, self.data, self._judge(), self._reader())

    def _judge(self) -> Judge:
        """Train the evaluator, or find it trained. Audits of the same pictures share it."""
        evaluator, device = self.recipe.inversion.evaluator, self.workplace.device
        known_as = (self.recipe.model, self.recipe.options)
        judge = assemble_judge(evaluator, self.data, self.target.split, known_as=known_as, device=device)
        if evaluator.weights is None:
            settings = {
                name: value
                for name, value in dataclasses.asdict(evaluator).items()
                if name not in ("gate", "weights") and not name.startswith("face")  # these do not change its weights
            }
            stage = self._stage("evaluator", ("private",), {**settings, "code": own_code(evaluator.model)})
            self._learn(stage, judge.network, "evaluator", lambda watch: teach_judge(judge, self.data, watch=watch))
        return judge

    def _reader(self) -> Reader | None:
        """Train the reader of factors, or find it trained; None where the pictures come without factors."""
        reader = assemble_reader(self.data, device=self.workplace.device)
        if reader is not None:
            stage = self._stage("reader", ("private", "public"), {"factors": list(reader.names)})
            self._learn(stage, reader.network, "reader of factors", lambda watch: teach_reader(reader, self.data, watch=watch))
        return reader

    def _stage(self, kind: str, parts: Sequence[str], definition: Mapping[str, object]) -> Stage:
        """Return the stage of something that is learned from parts of the data."""
        pictures = {part: self.data.part(part).fingerprint for part in parts}
        return self.workplace.store.stage(kind, {"pictures": pictures, "sfumato": version("sfumato"), **definition})

    def _learn(self, stage: Stage, network: nn.Module, name: str, teach: Callable[[Watch | None], None]) -> None:
        """Train a network, or load what was trained."""
        told = f"{name} of {self.data.name}"
        if stage.done:
            load_into(network, read_tensors(stage.weights)[0], source=stage.weights)
            say_found(self.workplace, told)
            return
        with stage.claim():
            teach(told_as(self.workplace.watch, told))
            write_tensors(stage.weights, network.state_dict(), {"definition": stage.key})
            stage.finish({"hardware": hardware(self.workplace.device), "versions": versions()})

    def _searched(self, kind: PriorKind) -> _Searched:
        """Train a prior or find it, and measure what it is worth, or find it measured."""
        plan, shape, outputs = self.recipe.inversion.priors[kind], self.data.shape, len(self.data.classes)
        if plan.weights is None:
            key, prior = self._trained_prior(kind, plan.settings)
            steps, source = plan.settings.steps, f"trained on {len(self.data.part('public')):,} public pictures"
        else:
            saved = load_prior(plan.weights, kind=kind, image_shape=shape, classes=outputs, crop=plan.crop)
            key, prior = str(file_hash(plan.weights)), saved.prior.to(self.workplace.device)
            steps, source = 0, f"loaded from {plan.weights.name}"
        per_class = min(made.per_class for made in self.recipe.inverting.values() if made.kind == kind)
        judge = {"evaluator": dataclasses.asdict(self.recipe.inversion.evaluator), "target": self.trained.key}
        asked = {"prior": key, "classes": self._classes.tolist(), "per class": per_class, "seed": self.recipe.seed}
        stage = self._stage("prior-facts", ("private", "public"), {**judge, **asked})
        record = stage.folder / "facts.json"
        if stage.done:
            return _Searched(prior, key, read_record(record, prior_facts_from_json))
        with stage.claim():
            found = prior_facts(
                prior, self._court, self._classes, per_class=per_class, steps=steps, source=source, seed=self.recipe.seed
            )
            write_json(record, {key: plain(value) for key, value in vars(found).items()})
            stage.finish({"versions": versions()})
        return _Searched(prior, key, found)

    def _trained_prior(self, kind: PriorKind, settings: PriorSettings) -> tuple[str, Prior]:
        """Train a prior, or find it trained; where training was interrupted it goes on. Targets share what learned of none."""
        device, outputs, told = self.workplace.device, len(self.data.classes), f"prior '{kind}' of {self.recipe.name}"
        own = {"target": self.trained.key} if kind in FOR_TARGET else {}
        definition = {"kind": kind, "settings": dataclasses.asdict(settings), "seed": self.recipe.seed, **own}
        stage = self._stage("prior", ("public",), definition)
        path = stage.folder / _PRIOR
        if stage.done:
            say_found(self.workplace, told)
            return stage.key, load_prior(path, kind=kind, image_shape=self.data.shape).prior.to(device)
        with stage.claim():
            if self.workplace.restart:
                stage.checkpoint.unlink(missing_ok=True)
            view = self.target.view("weights", generator(self.recipe.seed, "view", "prior", kind, device=device))
            assert isinstance(view, WeightsView)  # noqa: S101 -- the view is made by that access
            prior = train_prior(
                kind,
                self.data.part("public"),
                settings,
                view=view if own else None,
                classes=outputs if own else None,
                seed=self.recipe.seed,
                device=device,
                checkpoint=stage.checkpoint,
                definition=stage.key,
                samples=stage.folder / "samples",
                watch=told_as(self.workplace.watch, told),
            )
            save_prior(path, prior, settings, classes=outputs if own else None, source=self.data.name)
            stage.finish({"hardware": hardware(device), "versions": versions()})
        return stage.key, prior

    def _attacked(self, name: str, attack: InversionAttack, searched: _Searched, seed: int) -> Inverted:
        """Run one attack with one seed, or find what it made."""
        told = f"{name} on {self.recipe.name}"
        definition = {
            "target": self.trained.key,
            "prior": searched.key,
            "attack": {"attack": type(attack).__name__, **dataclasses.asdict(attack)},
            "classes": self._classes.tolist(),
            "seed": seed,
        }
        stage = self._stage("inversion", ("public",), definition)
        if stage.done:
            say_found(self.workplace, told)
        else:
            with stage.claim():
                found = attack(
                    self.target,
                    searched.prior,
                    self.data.part("public"),
                    self._classes,
                    outputs=len(self.data.classes),
                    seed=seed,
                    memory=self.recipe.inversion.options.memory,
                    watch=told_as(self.workplace.watch, told),
                )
                pixels = found.pictures.x_hat.mul(255).round().to(torch.uint8)
                tensors = {"pixels": pixels, "reached": found.pictures.reached}
                write_tensors(stage.folder / _PICTURES, tensors, {"definition": stage.key})
                cost = {"seconds": found.seconds, "queries": found.queries}
                stage.finish({**cost, "hardware": hardware(self.workplace.device), "versions": versions()})
        return _read(stage)


def _read(stage: Stage) -> Inverted:
    """Read the pictures that an attack made."""
    path = stage.folder / _PICTURES
    tensors, facts = read_tensors(path)
    if facts.get("definition") != stage.key or not {"pixels", "reached"} <= tensors.keys():
        raise StorageError(
            f"expected in {path} the pictures {stage.key[:16]}, found {str(facts.get('definition'))[:16]}: those of another "
            f"recipe; remove {stage.folder} to attack again"
        )
    cost = stage.facts()
    pictures = ClassPictures(tensors["pixels"].float() / 255, tensors["reached"])
    return Inverted(pictures, float(str(cost["seconds"])), int(str(cost["queries"])))
