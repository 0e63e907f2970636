# SPDX-License-Identifier: Apache-2.0
"""The predictions of a recipe's target: reference models trained once, what all answer stored once, attacks on what is stored.

A reference model is a stage, as the target is: more of them can be added to those that are there, a run that was interrupted goes
on, and every attack reads the same answers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from sfumato.attacks.predictions.base import Answers, Evidence, References
from sfumato.audit import hardware, versions
from sfumato.batched import Network, batches_well, fit_together
from sfumato.data.base import REGION, Data
from sfumato.data.game import Game, repeated
from sfumato.data.known import draw_known
from sfumato.errors import SfumatoError, StorageError
from sfumato.files import read_tensors, write_json, write_tensors
from sfumato.membership import assemble_membership, leave_one_out, run_membership_attack
from sfumato.membership_record import membership_result_from_json, membership_result_to_json
from sfumato.membership_types import Membership, MembershipResult
from sfumato.options import MembershipOptions
from sfumato.parallel import run_each
from sfumato.recipe import Recipe
from sfumato.reference import answer, oracle, reference_seed
from sfumato.seeds import generator
from sfumato.store import Stage
from sfumato.target import Target
from sfumato.targets import build_target, conclude, read_record, target_stage, train_built
from sfumato.types import told_as
from sfumato.workplace import Workplace, say_found

_ANSWERS = "answers.safetensors"
_VALUES = 20  # of a tag whose every value is measured by itself
_TOGETHER = 16  # networks that a GPU trains as one: what fits where one fits easily


def audit_predictions(recipe: Recipe, target: Target, trained: Stage, data: Data, workplace: Workplace) -> Membership | None:
    """Attack the predictions of a recipe's target, by what is stored of it and of its reference models.

    Args:
        recipe: what to train and how to attack it.
        target: trained.
        trained: its stage.
        data: its pictures, as `read_data` gives them.
        workplace: where.

    Returns:
        What was found; None where the recipe has no such attack.

    Raises:
        ConfigError: an attack needs more reference models than the recipe has.
        StorageError: what is stored of a model cannot be read, or is another model's.
    """
    if not recipe.inference or recipe.membership is None:
        return None
    return _Play(recipe, recipe.membership, Game(data, recipe.seed), workplace).audit(target, trained)


@dataclass(frozen=True)
class _Play:
    """The game of a recipe: its models, what they answer, and what attacks make of it."""

    recipe: Recipe
    options: MembershipOptions
    game: Game
    workplace: Workplace

    def audit(self, target: Target, trained: Stage) -> Membership:
        """Run every attack with every seed, on the target and, where asked for, on each reference in turn."""
        recipe, game = self.recipe, self.game
        mine = self._answer(target, trained)
        stages = self._train_references() if self._wanted else []
        evidence = Evidence(
            target=self._read(mine),
            labels=game.pool.labels,
            references=self._references(stages) if stages else None,
            known=draw_known(game.member, game.pool.labels, self.options.known, generator(recipe.seed, "known")),
        )
        seeds = recipe.seeds
        stored = [mine.key, *(self._answers_of(stage).key for stage in stages)]
        attack = partial(self._attack, target=target, evidence=evidence, stored=stored)
        results = [attack(name, seed) for seed in seeds for name in recipe.inference]
        if self.options.leave_one_out and stages:
            # What asks a model anew cannot attack those of which only answers are left.
            turns = [name for name, one in recipe.inference.items() if "oracle" not in one.needs]
            results += [attack(name, seed, in_turn=True) for seed in seeds for name in turns]
        shared, own = repeated(game.data.part("private"), game.data.part("nonmembers"))
        return assemble_membership(
            evidence,
            game.member,
            recipe.inference,
            results,
            seeds=seeds,
            slices=self._slices,
            hardware=hardware(self.workplace.device),
            canaries=self.options.canary if self.options.canaries else "",
            duplicates=own,
            shared=shared,
            title=recipe.name,
        )

    @cached_property
    def _slices(self) -> dict[str, Tensor]:
        """The examples by what else is known of them, such as their camera, where that has few values."""
        found = {name: (tag, tag.unique().tolist()) for name, tag in self.game.pool.tags.items() if name not in REGION}
        return {
            f"{name} {value}": tag == value
            for name, (tag, values) in found.items()
            for value in values
            if 1 < len(values) <= _VALUES
        }

    @property
    def _wanted(self) -> bool:
        """Whether reference models are of any use."""
        asked = self.options.leave_one_out or any("references" in attack.needs for attack in self.recipe.inference.values())
        return asked and self.options.references > 0

    @property
    def _sensitivity(self) -> bool:
        return any("sensitivity" in attack.needs for attack in self.recipe.inference.values())

    @cached_property
    def _keep(self) -> Tensor:
        return self.game.keep(self.options.references)

    def _reference(self, place: int) -> tuple[Recipe, Data]:
        """Return the recipe and the data of a reference model: those of the target, but for the seed and the half."""
        recipe, start = self.recipe, self.recipe.pretraining
        return (
            replace(
                recipe,
                pretraining=start and replace(start, seed=recipe.seed),  # an adversary has the weights that others trained
                name=f"{recipe.name}, reference {place + 1}",
                seed=reference_seed(recipe.seed, place),
                defenses=recipe.defenses if self.options.adaptive else (),
                device=None,  # the target was refused where its head does not fit; an undefended one may be larger
            ),
            self.game.trained_on(self._keep[place]),
        )

    def _train_references(self) -> list[Stage]:
        """Train the reference models that are not there yet, have each answer, and return their stages."""
        places = range(self.options.references)
        stages = [target_stage(*self._reference(place), self.workplace) for place in places]
        missing = [place for place in places if not (stages[place].done and self._answers_of(stages[place]).done)]
        told = f"references of {self.recipe.name}"
        if len(missing) < len(stages):
            say_found(self.workplace, f"{len(stages) - len(missing)} {told}")
        cuda = self.workplace.device.type == "cuda"
        if cuda:
            self._train_together([place for place in missing if not stages[place].done])
        # Quiet: several processes cannot share a display. One that was interrupted goes on by itself.
        quiet = replace(self.workplace, watch=None, resume=not self.workplace.restart)
        jobs = [partial(self._train_one, place, quiet) for place in missing]
        run_each(jobs, workers=1 if cuda else self.options.workers, told=told_as(self.workplace.watch, told))
        return stages

    def _train_one(self, place: int, workplace: Workplace) -> None:
        recipe, data = self._reference(place)
        target = build_target(recipe, data, workplace)
        self._answer(target, train_built(target, recipe, data, workplace))

    def _train_together(self, places: Sequence[int]) -> None:
        """Train several networks as one, as a GPU does well; what cannot be batched is left for the loop."""
        for start in range(0, len(places), _TOGETHER):
            some = places[start : start + _TOGETHER]
            told = f"references {start + 1} to {start + len(some)} of {self.recipe.name}"
            first = build_target(*self._reference(some[0]), self.workplace)
            if not batches_well(first, self.recipe.train):
                return
            try:
                self._train_group(some, told)
            except SfumatoError:
                raise
            except RuntimeError as error:  # of torch: the model's code cannot be batched, or memory ran out
                say_found(self.workplace, f"{told}: one by one, since together is not possible here: {str(error)[:200]}")
                return

    def _train_group(self, places: Sequence[int], told: str) -> None:
        """Train one group of networks as one."""
        with ExitStack() as held:
            group = [(place, *self._reference(place)) for place in places]
            stages = [held.enter_context(target_stage(recipe, data, self.workplace).claim()) for _, recipe, data in group]
            targets = [build_target(recipe, data, self.workplace) for _, recipe, data in group]
            networks = [
                Network(target, self.game.rows(self._keep[place]), recipe.seed)
                for target, (place, recipe, _) in zip(targets, group, strict=True)
            ]
            histories = fit_together(networks, self.game.base, self.recipe.train, watch=told_as(self.workplace.watch, told))
            for stage, target, history, (_, recipe, data) in zip(stages, targets, histories, group, strict=True):
                if not stage.done:  # by another process, before this one held it
                    conclude(stage, target, recipe, data, history)

    def _answers_of(self, trained: Stage) -> Stage:
        """Return the stage of what a model answers about the examples."""
        return self.workplace.store.stage(
            "answers",
            {
                "target": trained.key,
                "pictures": self.game.pool.fingerprint,
                "views": self.options.views,
                "sensitivity": self._sensitivity,
                "seed": self.recipe.seed,
            },
        )

    def _answer(self, target: Target, trained: Stage) -> Stage:
        """Ask a model about the examples, or find it asked."""
        stage = self._answers_of(trained)
        if not stage.done:
            with stage.claim():
                found = answer(
                    target, self.game.pool, views=self.options.views, sensitivity=self._sensitivity, seed=self.recipe.seed
                )
                tensors = {"logits": found.logits} | ({} if found.sensitivity is None else {"sensitivity": found.sensitivity})
                write_tensors(stage.folder / _ANSWERS, tensors, {"definition": stage.key})
                stage.finish({"target": trained.key, "versions": versions()})
        return stage

    def _read(self, stage: Stage) -> Answers:
        """Read what a model answered."""
        path = stage.folder / _ANSWERS
        tensors, facts = read_tensors(path)
        if facts.get("definition") != stage.key or "logits" not in tensors:
            raise StorageError(
                f"expected in {path} the answers {stage.key[:16]}, found {str(facts.get('definition'))[:16]}: those of another "
                f"recipe; remove {stage.folder} to ask again"
            )
        return Answers(tensors["logits"], tensors.get("sensitivity"))

    def _references(self, stages: Sequence[Stage]) -> References:
        answers = tuple(self._read(self._answers_of(stage)) for stage in stages)
        return References(answers, self._keep, adaptive=self.options.adaptive or not self.recipe.defenses)

    def _attack(
        self, name: str, seed: int, *, target: Target, evidence: Evidence, stored: Sequence[str], in_turn: bool = False
    ) -> MembershipResult:
        """Run one attack with one seed, or find it run."""
        attack, told = self.recipe.inference[name], f"{name} on {self.recipe.name}{', each model in turn' if in_turn else ''}"
        stage = self.workplace.store.stage(
            "membership",
            {
                "answers": list(stored),
                "name": name,
                "attack": {"attack": type(attack).__name__, **dataclasses.asdict(attack)},
                "seed": seed,
                "known": self.options.known,
                "in turn": in_turn,
                "adaptive": self.options.adaptive,
            },
        )
        record = stage.folder / "result.json"
        if stage.done:
            say_found(self.workplace, told)
            return read_record(record, membership_result_from_json)
        with stage.claim():
            if in_turn and evidence.references is not None:
                made = leave_one_out(
                    name,
                    attack,
                    evidence.references,
                    evidence.labels,
                    seed=seed,
                    known=self.options.known,
                    slices=self._slices,
                )
            else:
                asked = replace(evidence, seed=seed)
                if "oracle" in attack.needs:
                    classes = len(self.game.data.classes)
                    asked = replace(asked, oracle=oracle(target, self.game.pool, classes=classes, seed=seed))
                made = run_membership_attack(name, attack, asked, self.game.member, slices=self._slices)
            write_json(record, membership_result_to_json(made))
            stage.finish({"hardware": hardware(torch.device("cpu")), "versions": versions()})
        return made
