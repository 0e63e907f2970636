# SPDX-License-Identifier: Apache-2.0
"""Fisher profiles of the trained target of a recipe, each a stage of its own: measured once, and found from then on.

Source: ho2024tldmi, section 4.2.
Equations: none.
Departures: as in `sfumato.analysis.fisher` and `sfumato.fisher_samples`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from pydantic import TypeAdapter

from sfumato.analysis.fisher import Distance, classification_fisher, inversion_fisher
from sfumato.analysis.fisher_profile import FisherProfile
from sfumato.analysis.maps import last_of_each_size
from sfumato.audit import hardware, versions
from sfumato.data.base import Data, Pictures
from sfumato.errors import DataError, ModelError, StorageError
from sfumato.files import read_tensors, write_tensors
from sfumato.fisher_samples import held_out, reconstructions
from sfumato.importance_record import Rebuilding
from sfumato.inversion_priors import stage_of
from sfumato.inversions import judged_pictures
from sfumato.plain import validate
from sfumato.recipe import Recipe
from sfumato.store import Stage
from sfumato.target import Target
from sfumato.types import Interval, told_as
from sfumato.workplace import Workplace, say_found

_PROFILE = "profile.safetensors"


@dataclass(frozen=True)
class _Facts:
    """What a stage keeps of a profile beside its tensors."""

    task: str
    layers: tuple[str, ...]
    parameters: tuple[int, ...]
    before: int


_FACTS = TypeAdapter(_Facts)


@dataclass(frozen=True)
class LayerProfiles:
    """The Fisher profiles of a target.

    Args:
        recipe: of the target, with attacks on weights.
        target: trained.
        trained: its stage.
        data: its pictures, as `read_data` gives them.
        workplace: where.
    """

    recipe: Recipe
    target: Target
    trained: Stage
    data: Data
    workplace: Workplace

    @cached_property
    def naming(self) -> FisherProfile:
        """What each layer matters to naming people: of held-out pictures."""
        some = held_out(self.data, self.recipe.seed)
        measure = partial(classification_fisher, self.target.split, some)
        return self._measured("naming", "test", {"samples": some.fingerprint}, measure)

    def rebuilding(self, reached: Mapping[str, Interval]) -> tuple[Rebuilding, ...]:
        """Return what each layer matters to rebuilding people, by the attacks that reached any.

        Args:
            reached: the accuracy of each attack.

        Raises:
            DataError: no attack reached any class.
        """
        classes, judged = judged_pictures(self.recipe, self.target, self.trained, self.data, self.workplace)
        made = {one.attack: reconstructions(one, classes, self.recipe.seed) for one in judged}
        found = tuple(
            Rebuilding(name, reached[name], {distance: self._apart(name, some, distance) for distance in self._distances})
            for name, some in made.items()
            if some is not None
        )
        if not found:
            raise DataError(
                "rebuilding people is measured on what attacks made of them, and no class was reached by "
                f"{', '.join(made)}; give the attack more steps, or take another one"
            )
        return found

    @cached_property
    def _distances(self) -> tuple[Distance, ...]:
        try:
            last_of_each_size(self.target.split, torch.zeros(1, *self.data.shape, device=self.target.device))
        except ModelError:  # no layer gives a map to compare
            return ("l2", "l1")
        return ("l2", "l1", "perceptual")

    def _apart(self, attack: str, some: Pictures, distance: Distance) -> FisherProfile:
        """Return what each layer matters to a distance of reconstructions to private pictures."""
        x_hat, private = some.read(torch.arange(len(some))), self.data.part("private")
        measure = partial(inversion_fisher, self.target.split, x_hat, some.labels, private, distance=distance)
        definition = {"samples": some.fingerprint, "distance": distance}
        return self._measured(f"{attack}, {distance}", "private", definition, measure)

    def _measured(
        self, name: str, part: str, definition: Mapping[str, object], measure: Callable[..., FisherProfile]
    ) -> FisherProfile:
        """Measure a profile, or find it measured."""
        told = f"Fisher information of {self.recipe.name}, {name}"
        stage = stage_of(self.workplace, self.data, "fisher", (part,), {"target": self.trained.key, **definition})
        if stage.done:
            say_found(self.workplace, told)
            return _read(stage)
        with stage.claim():
            found = measure(watch=told_as(self.workplace.watch, told))
            write_tensors(stage.folder / _PROFILE, {"each": found.each, "labels": found.labels}, {"definition": stage.key})
            facts = {"task": found.task, "layers": found.layers, "parameters": found.parameters, "before": found.before}
            stage.finish({**facts, "hardware": hardware(self.workplace.device), "versions": versions()})
        return found


def _read(stage: Stage) -> FisherProfile:
    """Read the profile of a stage that is done."""
    path, advice = stage.folder / _PROFILE, f"remove {stage.folder} to measure it again"
    tensors, told = read_tensors(path)
    facts = validate(_FACTS, stage.facts(), "the facts of a Fisher profile", advice)
    if told.get("definition") != stage.key or not {"each", "labels"} <= tensors.keys():
        raise StorageError(
            f"expected in {path} the Fisher profile {stage.key[:16]}, found {str(told.get('definition'))[:16]}: that of another "
            f"model; {advice}"
        )
    return FisherProfile(facts.task, facts.layers, facts.parameters, facts.before, tensors["each"], tensors["labels"])
