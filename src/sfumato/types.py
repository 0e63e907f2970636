# SPDX-License-Identifier: Apache-2.0
"""Tensor aliases, and the frozen records that travel between the stages of a run.

Records hold what happened and nothing that computes: an attack returns a `Reconstruction`, metrics make an `AttackResult` of it,
an `Audit` gathers the results, and a report shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jaxtyping import Float, Int64, UInt8
from torch import Tensor

if TYPE_CHECKING:
    import torch
    from torch import nn

    from sfumato.inversion_types import Inversion
    from sfumato.membership_types import Membership

Images = Float[Tensor, "n c h w"]
"""Pictures in [0, 1]."""
Pixels = UInt8[Tensor, "n c h w"]
"""Pictures as they are stored, 0 to 255."""
Labels = Int64[Tensor, " n"]
"""Class numbers, from 0."""
Features = Float[Tensor, "n *z"]
"""What crosses the cut."""
Logits = Float[Tensor, "n k"]
"""Scores of k classes, before the softmax."""

Access = Literal["labels", "logits", "features", "weights"]
"""What an adversary may see of a target, each level including those before it."""
Part = Literal["train", "inference"]
"""The scored pictures: those that the adversary trained on, or those of inference time."""
TaskName = Literal["classification", "reidentification"]
"""What a target is for: to name the class of a picture, or to find the pictures that show the same individual."""
Selection = Literal["only", "best", "last"]
"""Which weights of an attack's own network made a reconstruction: it has none to choose, those that did best on held-out
auxiliary data, or those of the last epoch."""

Watch = Callable[[int, int], None]
"""Told of progress: the work done and the work in all."""
NamedWatch = Callable[[str, int, int], None]
"""Told of progress: what is being done, the work done and the work in all."""


def told_as(watch: NamedWatch | None, name: str) -> Watch | None:
    """Return a watch that tells another under a name; None where there is none to tell.

    Example:
        >>> told = told_as(lambda *news: print(*news), "train")
        >>> told(1, 2)
        train 1 2
    """
    return None if watch is None else lambda done, total: watch(name, done, total)


@dataclass(frozen=True)
class Step:
    """One batch of training, as the hooks of a defense see it.

    Attributes:
        x: input pictures, (N, C, H, W), float, [0, 1], augmented and perturbed: what the head was given.
        y: labels, (N,), int64.
        z: raw features leaving the head, (N, ...), with gradient.
        protected: features after every `protect`, as the tail receives them.
        logits: (N, K), what the tail answers.
        model: the split model under training.
        epoch: number of the epoch, from 0.
        index: number of the step within the run, from 0.
        learning_rate: of this step.
        generator: the stream of this step's random numbers, on the device of x.
        phase: which of a method's updates this is; "main" where no method names phases.
        embedding: (N, E), what the last linear layer of the model was given; None unless the task asks for it.
    """

    x: Tensor
    y: Tensor
    z: Tensor
    protected: Tensor
    logits: Tensor
    model: nn.Module
    epoch: int
    index: int
    learning_rate: float
    generator: torch.Generator
    phase: str = "main"
    embedding: Tensor | None = None


@dataclass(frozen=True)
class Epoch:
    """One pass over the training pictures, as `begin_epoch` and `end_epoch` see it.

    Attributes:
        number: from 0.
        total: how many epochs there are before `finish`; after it, how many the run has with those of the fine-tuning.
        model: the split model under training.
        batches: makes a fresh iterator over (x, z, y) of the training pictures: not augmented, head in eval mode, no gradient. It
            costs a pass over the data, so a method calls it only when it must.
    """

    number: int
    total: int
    model: nn.Module
    batches: Callable[[], Iterator[tuple[Tensor, Tensor, Tensor]]]


@dataclass(frozen=True)
class Plan:
    """How a run goes through its training pictures.

    Attributes:
        pictures: how many there are.
        steps: of an epoch.
        epochs: of the run, those of the fine-tuning included.
    """

    pictures: int
    steps: int
    epochs: int


@dataclass(frozen=True)
class Reconstruction:
    """Pictures that an attack made of features.

    Attributes:
        x_hat: (N, C, H, W), float32, [0, 1], in the order of the features that the attack was given.
        selection: which weights of the attack made them.
    """

    x_hat: Tensor
    selection: Selection = "only"


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval.

    Attributes:
        value: the estimate on all pictures.
        low: 2.5 % quantile over bootstrap samples of the pictures.
        high: 97.5 % quantile.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Recognition:
    """What a classifier that never saw a defense names in reconstructions.

    Attributes:
        of: what it names, such as "driver".
        accuracy: share of the reconstructions that it names right.
        chance: share that a blind guess names right.
        on_real: share of the pictures themselves, as sent, that it names right: what a perfect reconstruction would reach.
    """

    of: str
    accuracy: Interval
    chance: float
    on_real: Interval


@dataclass(frozen=True)
class AttackResult:
    """How well one attack did on one part, with one seed.

    Attributes:
        name: the attack's name in the registry.
        part: the scored pictures.
        selection: which weights of the attack are scored.
        seed: the seed of the attack.
        access: what the attack was allowed to see.
        pictures: how many pictures were scored.
        mse: mean squared error over pixels in [0, 1]; lower means that more leaks.
        psnr: in dB, of the mean MSE (as the CEM tables); higher means that more leaks.
        psnr_mean: in dB, mean over pictures of each picture's own PSNR.
        ssim: structural similarity, at most 1; higher means that more leaks.
        lpips: perceptual distance, or None where its weights are not there.
        seconds: wall time of fitting and reconstructing.
        queries: pictures that the adversary sent through the target.
        settings: the attack's hyper-parameters.
        releases: how many releases of each picture the adversary saw.
        gray_levels: how far pixels of those pictures lay from the scored one at most, of 255; 0 where it was sent byte for byte.
        regions: mean squared error inside and outside the private region of each picture ("inside", "outside"), where the data
            says where that is.
        recognized: what a classifier names in the reconstructions, or None where the audit has none.
    """

    name: str
    part: Part
    selection: Selection
    seed: int
    access: Access
    pictures: int
    mse: Interval
    psnr: Interval
    psnr_mean: Interval
    ssim: Interval
    lpips: Interval | None
    seconds: float
    queries: int
    settings: Mapping[str, object] = field(default_factory=dict)
    releases: int = 1
    regions: Mapping[str, Interval] = field(default_factory=dict)
    recognized: Recognition | None = None
    gray_levels: int = 0


@dataclass(frozen=True)
class Certificate:
    """A statement about every adversary that meets some assumptions, measured on the target.

    Attributes:
        name: "entropy", "fisher" or "privacy".
        statement: what it says, a sentence for people.
        floor: the mean squared error over pixels in [0, 1] below which, it claims, no reconstruction gets; None where it makes no
            such claim.
        values: the numbers behind it, by name; the unit is in the name.
        assumptions: what must hold for the claim, a sentence each.
    """

    name: str
    statement: str
    floor: float | None
    values: Mapping[str, float] = field(default_factory=dict)
    assumptions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exhibit:
    """Some pictures to look at.

    Attributes:
        part: where the pictures come from.
        pixels: (N, C, H, W), uint8. The n-th picture of every exhibit of a part is the same picture.
        attack: the attack that made them, or "" for the pictures as the user sent them.
        selection: which weights of the attack made them.
        seed: the seed of the attack.
    """

    part: Part
    pixels: Tensor
    attack: str = ""
    selection: Selection = "only"
    seed: int = 0


@dataclass(frozen=True)
class Compression:
    """What pruning left of a model.

    Attributes:
        weights: numbers in the layers that may be pruned, before.
        kept: those that are not zero.
        bytes_dense: of all tensors of the model with every zero written out.
        bytes_stored: of the file that holds them.
        macs_dense: multiply-accumulates of one picture with every weight.
        macs_kept: those whose weight is not zero.
        milliseconds: measured time of one picture, of the model before and after; None where it was not measured.
    """

    weights: int
    kept: int
    bytes_dense: int
    bytes_stored: int
    macs_dense: int
    macs_kept: int
    milliseconds: tuple[float, float] | None = None

    @property
    def ratio(self) -> float:
        """Weights before over weights after, as Table V of MCMIA has it."""
        return self.weights / max(1, self.kept)


@dataclass(frozen=True)
class Findings:
    """What one attack came to with one seed.

    Attributes:
        results: one for each part and selection.
        exhibits: pictures that the attack made, one exhibit for each result.
        hardware: the device it ran on.
    """

    results: tuple[AttackResult, ...]
    exhibits: tuple[Exhibit, ...]
    hardware: str


@dataclass(frozen=True)
class TargetFacts:
    """What was attacked, and what it costs.

    Attributes:
        model: name of the model.
        cut: where it is split; "" where it is not.
        defenses: each defense as it prints itself, such as "Noise(sigma=0.025)"; empty for an undefended target.
        classes: how many classes.
        input_shape: (C, H, W) of x.
        feature_shape: shape of z for one picture.
        bytes_per_picture: sent for one picture, by number format ("float32", "float16", "uint8").
        head_parameters: numbers in the device part.
        head_macs: multiply-accumulates of the device part, one picture.
        tail_parameters: numbers in the server part.
        tail_macs: multiply-accumulates of the server part, one picture.
        head_memory: bytes of the tensors of the device part, buffers included; None where they were not counted.
        tail_memory: bytes of those of the server part.
        compression: what pruning left of the model, or None where nothing was pruned.
        trained_parameters: numbers that training on private pictures changed; None where nobody knows.
        start: whose weights training started from, a sentence without its full stop; "" where nobody knows.
        sticky: whether the device was taken to repeat its random draw when a picture is sent again, byte for byte.
    """

    model: str
    cut: str
    defenses: tuple[str, ...]
    classes: int
    input_shape: tuple[int, ...]
    feature_shape: tuple[int, ...]
    bytes_per_picture: Mapping[str, int]
    head_parameters: int
    head_macs: int
    tail_parameters: int
    tail_macs: int
    head_memory: int | None = None
    tail_memory: int | None = None
    compression: Compression | None = None
    trained_parameters: int | None = None
    start: str = ""
    sticky: bool = False


@dataclass(frozen=True)
class DataFacts:
    """The pictures of an audit.

    Attributes:
        name: of the data set.
        fingerprint: SHA-256 of pixels and labels, hexadecimal.
        counts: pictures by part.
        skipped: pictures left out because they could not be decoded.
        auxiliary: where the adversary's own pictures come from.
    """

    name: str
    fingerprint: str
    counts: Mapping[str, int]
    skipped: tuple[str, ...] = ()
    auxiliary: str = "private"


@dataclass(frozen=True)
class Audit:
    """Everything that one audit found.

    Attributes:
        title: a line for people.
        target: what was attacked.
        data: the pictures.
        accuracy: of the deployed target on the test pictures, [0, 1]: of its classes, or rank-1 in re-identification.
        attacks: one result for each attack, part, selection and seed.
        exhibits: pictures to look at.
        untested: what this audit says nothing about, a sentence each.
        seeds: the seeds that every attack was run with.
        versions: of Sfumato, PyTorch and Python.
        hardware: the device it ran on.
        certificates: what can be said about every adversary, under assumptions.
        task: what the target is for.
        utility: every number of the target on its task, [0, 1], by name; `accuracy` is the first of them.
        membership: what the predictions say of who was trained on; None where that was not asked.
        inversion: what the weights show of the classes; None where that was not asked.
    """

    title: str
    target: TargetFacts
    data: DataFacts
    accuracy: Interval
    attacks: tuple[AttackResult, ...]
    exhibits: tuple[Exhibit, ...]
    untested: tuple[str, ...]
    seeds: tuple[int, ...]
    versions: Mapping[str, str]
    hardware: str
    certificates: tuple[Certificate, ...] = ()
    task: TaskName = "classification"
    utility: Mapping[str, Interval] = field(default_factory=dict)
    membership: Membership | None = None
    inversion: Inversion | None = None

    def beaten(self, certificate: Certificate) -> AttackResult | None:
        """Return the strongest attack whose error lies below a certificate's floor, or None where none does.

        It saw one release of each picture of inference time, which is all that certificates are about.
        An error is below when its whole 95 % interval is. Such an attack shows that an assumption of the certificate failed.
        """
        if certificate.floor is None:
            return None
        # Training pictures do not count: of those the adversary may know more than how pictures are drawn.
        result = self.strongest(once=True)
        return result if result is not None and result.mse.high < certificate.floor else None

    def strongest(self, part: Part = "inference", *, once: bool = False) -> AttackResult | None:
        """Return the result with the lowest MSE on a part, or None where nothing was scored there.

        Args:
            part: the scored pictures.
            once: only of attacks that saw a single release of each picture.
        """
        results = [result for result in self.attacks if result.part == part and not (once and result.releases > 1)]
        return min(results, key=lambda result: result.mse.value, default=None)

    def save(self, path: str | Path, *, show_private: bool = False) -> Path:
        """Write the audit as HTML, Markdown or JSON, by the ending of `path`.

        Args:
            path: ends in .html, .md or .json; its folder is made when missing.
            show_private: write the private pictures of an inversion's gallery too, where it has any.

        Returns:
            The path written.

        Raises:
            ConfigError: another ending.
            StorageError: the file cannot be written; a file that was there stays as it was.
        """
        from sfumato.report import save  # points up: a record that can save itself reads better

        return save([self], path, show_private=show_private)
