# SPDX-License-Identifier: Apache-2.0
"""The frozen records of the weights: pictures that an attack made of classes, what they come to, and what one audit found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from sfumato.types import Access, Interval


@dataclass(frozen=True)
class ClassPictures:
    """Pictures that an attack made of classes.

    Attributes:
        x_hat: (K, n, C, H, W), float32, [0, 1], on the CPU; of each class the most promising first.
        reached: (K,), bool: whether the attack got to the class at all. A label-only attack whose budget ends before the target
            has named one picture so has nothing to go on: its pictures of that class are the prior's and count as failures.
    """

    x_hat: Tensor
    reached: Tensor


@dataclass(frozen=True)
class ClassResult:
    """How well an attack did on one class.

    Attributes:
        name: of the class.
        accuracy: share of its pictures that the evaluator names right.
        confidence: mean probability that the target itself gives the class.
        distance: mean squared distance to the nearest private picture of the class, in the evaluator's embedding.
        reached: whether the attack got to the class.
    """

    name: str
    accuracy: float
    confidence: float
    distance: float
    reached: bool = True


@dataclass(frozen=True)
class InversionResult:
    """How well one attack made pictures of the target's classes, with one seed. Intervals are over classes.

    Attributes:
        name: the attack's name in the report.
        seed: of the attack.
        access: what it was allowed to see.
        prior: the kind of prior that it searched.
        identities: how many classes were attacked.
        per_class: pictures of each.
        top1: share of the pictures that the evaluator names right: the attack accuracy.
        top5: share for which the class is among the evaluator's five most probable.
        confidence: mean probability that the target itself gives the class: high while `top1` is low means false positives.
        named: share of the pictures that the target itself names right.
        knn: mean squared distance to the nearest private picture of the class, in the evaluator's embedding; higher is safer.
        centroid: mean distance to the mean of the class's private pictures there, not squared; higher is safer.
        frechet: Fréchet distance to the private pictures of the attacked classes in that embedding, with shrunk covariances.
        kid: kernel distance to the same, unbiased, which may be below 0.
        face: `knn` in an embedding of the user's own, or None where there is none.
        factors: mean absolute error of the identity's own factors, in shares of their range; None where the data has none.
        unreached: classes that the attack did not get to.
        classes: each class by itself.
        seconds: wall time of the attack, without the training of its prior.
        queries: pictures that the adversary sent through the target; who has the weights sends none.
        settings: the attack's hyper-parameters.
    """

    name: str
    seed: int
    access: Access
    prior: str
    identities: int
    per_class: int
    top1: Interval
    top5: Interval
    confidence: Interval
    named: Interval
    knn: Interval
    centroid: Interval
    frechet: float
    kid: float
    face: Interval | None = None
    factors: Interval | None = None
    unreached: int = 0
    classes: tuple[ClassResult, ...] = field(default=(), repr=False)
    seconds: float = 0.0
    queries: int = 0
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluatorFacts:
    """Who judges the pictures.

    Attributes:
        model: name of its architecture, another than the target's.
        accuracy: on private pictures that it was not trained on.
        gate: the accuracy below which nothing is concluded.
        parameters: how many it has.
    """

    model: str
    accuracy: Interval
    gate: float
    parameters: int

    @property
    def trusted(self) -> bool:
        """Whether it is good enough to judge."""
        return self.accuracy.value >= self.gate


@dataclass(frozen=True)
class Yardstick:
    """What the distances of pictures come to for pictures that are no reconstructions.

    Attributes:
        knn: as in `InversionResult`.
        centroid: likewise.
        frechet: likewise.
        kid: likewise.
        top1: share that the evaluator names right; of public pictures, as a class drawn at random.
        factors: as in `InversionResult`; None where the data has none.
    """

    knn: Interval
    centroid: Interval
    frechet: float
    kid: float
    top1: Interval
    factors: Interval | None = None


@dataclass(frozen=True)
class PriorFacts:
    """How good a prior is.

    Attributes:
        kind: of prior.
        frechet: Fréchet distance of its pictures to the public ones, in the evaluator's embedding.
        ceiling: attack accuracy of the initial selection alone: of many pictures of the prior those that the target is surest of.
        steps: of its training.
        source: a line for people: how it was trained, or the file that it came from.
    """

    kind: str
    frechet: float
    ceiling: Interval
    steps: int
    source: str = ""


@dataclass(frozen=True)
class Rebuilt:
    """Pictures that one attack made of one class, to look at.

    Attributes:
        attack: its name.
        seed: of the attack.
        pixels: (n, C, H, W), uint8; the most promising first, as the adversary ranks them.
        confidence: of each, the probability that the target itself gives the class.
        right: of each, whether the evaluator takes it for the class.
        reached: whether the attack got to the class; where not, these are pictures of the prior.
    """

    attack: str
    seed: int
    pixels: Tensor
    confidence: tuple[float, ...]
    right: tuple[bool, ...]
    reached: bool = True


@dataclass(frozen=True)
class InversionExhibit:
    """A class to look at: what it is, and what each attack made of it.

    Attributes:
        name: of the class.
        private: (n, C, H, W), uint8, pictures that the target was trained on; None where nobody asked for them.
        rebuilt: one for each attack.
    """

    name: str
    private: Tensor | None
    rebuilt: tuple[Rebuilt, ...]


@dataclass(frozen=True)
class Inversion:
    """What one audit found of the weights: what does the classifier say about the people of its classes?

    Attributes:
        results: one for each attack and seed.
        identities: how many classes were attacked.
        outputs: how many the target has.
        evaluator: who judges.
        floor: private pictures that were held out, judged as reconstructions are: as good as it gets for an adversary.
        ceiling: public pictures judged so: as bad as it gets.
        priors: of each kind that an attack searched.
        overlap: public pictures that were left out since they are private ones too.
        untested: what this says nothing about, a sentence each.
        seeds: the seeds that every attack was run with.
        versions: of Sfumato, PyTorch and Python.
        hardware: the device it ran on.
        title: a line for people.
        gallery: classes to look at.
    """

    results: tuple[InversionResult, ...]
    identities: int
    outputs: int
    evaluator: EvaluatorFacts
    floor: Yardstick
    ceiling: Yardstick
    priors: tuple[PriorFacts, ...]
    overlap: int
    untested: tuple[str, ...]
    seeds: tuple[int, ...]
    versions: Mapping[str, str]
    hardware: str
    title: str = ""
    gallery: tuple[InversionExhibit, ...] = field(default=(), repr=False)

    @property
    def chance(self) -> float:
        """The attack accuracy of pictures that have nothing to do with their class."""
        return 1 / self.outputs

    def strongest(self) -> InversionResult | None:
        """Return the result with the highest attack accuracy; None without one, or where the evaluator is below its gate."""
        if not self.evaluator.trusted:
            return None
        return max(self.results, key=lambda result: result.top1.value, default=None)

    def save(self, path: str | Path, *, show_private: bool = False) -> Path:
        """Write what was found as HTML, Markdown or JSON, by the ending of `path`.

        Args:
            path: ends in .html, .md or .json; its folder is made when missing.
            show_private: write the private pictures too, where the gallery has any.

        Returns:
            The path written.

        Raises:
            ConfigError: another ending.
            StorageError: the file cannot be written; a file that was there stays as it was.
        """
        from sfumato.inversion_report import save_inversion  # points up, as `Audit.save` does

        return save_inversion([self], path, show_private=show_private)
