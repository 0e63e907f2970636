# SPDX-License-Identifier: Apache-2.0
"""The weights of a recipe's target: an evaluator and priors trained once, attacks run once, their pictures stored and judged.

Pictures are stored as 8-bit pixels, which is what an adversary would keep, and judged as they are stored: another evaluator
judges what is there without a new attack.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from sfumato.attacks.weights.base import InversionAttack, Inverted
from sfumato.audit import hardware, versions
from sfumato.court import Court
from sfumato.data.base import Data
from sfumato.data.loader import shuffled
from sfumato.errors import ConfigError, StorageError
from sfumato.factors import Reader, assemble_reader, teach_reader
from sfumato.files import load_into, read_tensors, write_tensors
from sfumato.inversion import judge_inversion, run_inversion
from sfumato.inversion_exhibits import JudgedPictures
from sfumato.inversion_priors import RecipePriors, Searched, stage_of
from sfumato.inversion_types import ClassPictures, Inversion
from sfumato.judge import Judge, assemble_judge, teach_judge
from sfumato.models.resolve import own_code
from sfumato.priors.base import PriorKind
from sfumato.recipe import Recipe
from sfumato.seeds import generator
from sfumato.store import Stage
from sfumato.target import Target
from sfumato.targets import target_stage
from sfumato.types import Labels, Watch, told_as
from sfumato.workplace import Workplace, say_found

_PICTURES = "pictures.safetensors"


def check_weights(recipe: Recipe, target: Target, data: Data, workplace: Workplace) -> None:
    """Raise where attacks on the weights of a recipe's target cannot be run or judged; before the target is trained.

    Args:
        recipe: what to train and how to attack it.
        target: trained or not.
        data: its pictures.
        workplace: where.

    Raises:
        ConfigError: more identities are to be attacked than there are, the evaluator is of the target's own architecture, or a
            prior that is given does not fit the target.
        WeightsError: a file holds no prior, or not the evaluator's weights.
    """
    if recipe.inverting:
        _Inquiry(recipe, target, target_stage(recipe, data, workplace), data, workplace).check()


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
        ConfigError: see `check_weights`.
        DataError: there are too few pictures to learn from or to judge by.
        StorageError: what is stored cannot be read.
    """
    if not recipe.inverting:
        return None
    return _Inquiry(recipe, target, trained, data, workplace).audit()


def judged_pictures(
    recipe: Recipe, target: Target, trained: Stage, data: Data, workplace: Workplace
) -> tuple[Labels, tuple[JudgedPictures, ...]]:
    """Return what each attack of a recipe made with the first seed, as it was stored and judged; after an audit all is found.

    Args:
        recipe: what to train and how to attack it, with an attack on weights.
        target: trained.
        trained: its stage.
        data: its pictures, as `read_data` gives them.
        workplace: where.

    Returns:
        The classes that were attacked, (K,), int64, and the pictures of each attack, in the order of the classes.

    Raises:
        ConfigError: see `check_weights`.
        DataError: there are too few pictures to learn from or to judge by.
        StorageError: what is stored cannot be read.
    """
    return _Inquiry(recipe, target, trained, data, workplace).judged()


@dataclass(frozen=True)
class _Inquiry:
    """The attacks of a recipe on its target's weights, and what they need."""

    recipe: Recipe
    target: Target
    trained: Stage
    data: Data
    workplace: Workplace

    def check(self) -> None:
        """Make everything that can be made, and be refused, without training."""
        _ = self._classes
        self._assembled_judge()
        self._priors.check()

    def audit(self) -> Inversion:
        """Run every attack with every seed, and judge what they made."""
        recipe, classes, court, priors = self.recipe, self._classes, self._court, self._searched()
        return run_inversion(
            court,
            recipe.inverting,
            lambda name, attack, seed: self._attacked(name, attack, priors[attack.kind], seed),
            classes=classes,
            priors=lambda: [searched.facts for searched in priors.values()],
            seeds=self.recipe.seeds,
            title=recipe.name,
            show_private=self.workplace.show_private,
        )

    def judged(self) -> tuple[Labels, tuple[JudgedPictures, ...]]:
        """Return what every attack made with the first seed, judged picture by picture."""
        classes, court, priors, seed = self._classes, self._court, self._searched(), self.recipe.seeds[0]
        made = (
            (name, attack, self._attacked(name, attack, priors[attack.kind], seed))
            for name, attack in self.recipe.inverting.items()
        )
        return classes, tuple(judge_inversion(*one, classes=classes, court=court, seed=seed)[1] for one in made)

    def _searched(self) -> dict[PriorKind, Searched]:
        """Return the priors that the attacks search."""
        return {kind: self._priors.searched(kind, self._court, self._classes) for kind in self._priors.kinds}

    @cached_property
    def _priors(self) -> RecipePriors:
        return RecipePriors(self.recipe, self.target, self.trained, self.data, self.workplace)

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
        evaluator, judge = self.recipe.inversion.evaluator, self._assembled_judge()
        if evaluator.weights is None:
            settings = {
                name: value
                for name, value in dataclasses.asdict(evaluator).items()
                if name not in ("gate", "weights") and not name.startswith("face")  # these do not change its weights
            }
            settings["code"] = own_code(evaluator.model)
            stage = stage_of(self.workplace, self.data, "evaluator", ("private",), settings)
            self._learn(stage, judge.network, "evaluator", lambda watch: teach_judge(judge, self.data, watch=watch))
        return judge

    def _assembled_judge(self) -> Judge:
        """Make the evaluator, with the weights that it is given or yet to be trained."""
        known_as, device = self.recipe.model, self.workplace.device
        return assemble_judge(self.recipe.inversion.evaluator, self.data, self.target.split, known_as=known_as, device=device)

    def _reader(self) -> Reader | None:
        """Train the reader of factors, or find it trained; None where the pictures come without factors."""
        reader = assemble_reader(self.data, device=self.workplace.device)
        if reader is not None:
            stage = stage_of(self.workplace, self.data, "reader", ("private", "public"), {"factors": list(reader.names)})
            self._learn(stage, reader.network, "reader of factors", lambda watch: teach_reader(reader, self.data, watch=watch))
        return reader

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

    def _attacked(self, name: str, attack: InversionAttack, searched: Searched, seed: int) -> Inverted:
        """Run one attack with one seed, or find what it made."""
        told = f"{name} on {self.recipe.name}"
        definition = {
            "target": self.trained.key,
            "prior": searched.key,
            "attack": {"attack": type(attack).__name__, **dataclasses.asdict(attack)},
            "classes": self._classes.tolist(),
            "seed": seed,
        }
        stage = stage_of(self.workplace, self.data, "inversion", ("public",), definition)
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
