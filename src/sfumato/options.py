# SPDX-License-Identifier: Apache-2.0
"""What the tables `[data]`, `[model]`, `[membership]` and `[audit]` of a recipe may say beside names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from sfumato.analysis.certify import EntropyOfX
from sfumato.analysis.entropy import require_entropy
from sfumato.arguments import require_choice
from sfumato.data.game import Canary
from sfumato.data.partition import require_shares
from sfumato.data.views import MOST
from sfumato.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Keys of `[data]` that every data set takes.

    Args:
        budget: bytes of decoded pixels that may stay in memory.
        public: share of the training pictures that is public, [0, 1).
        reference: share that is kept for a defense to compare with, [0, 1).
        auxiliary: where the adversary's pictures come from.

    Raises:
        ConfigError: budget is not positive, public or reference is outside [0, 1) or both leave nothing, or auxiliary is "public"
            and nothing is.
    """

    budget: int = 2 << 30
    public: float = 0.0
    reference: float = 0.0
    auxiliary: Literal["private", "public", "test"] = "private"

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise ConfigError(f"budget must be a positive number of bytes, got {self.budget}; 2147483648 is the default")
        require_shares(self.public, self.reference)
        if self.auxiliary == "public" and self.public == 0:
            raise ConfigError('auxiliary = "public" needs public pictures; set public to their share of train, such as 0.2')


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Keys of `[model]` that every model takes.

    Args:
        cut: where the model is split; "" leaves it whole, which is all that attacks on predictions need.
        weights: a safetensors file to start from, of the model or of a run of it that no defense changed, wherever it was cut;
            drawn by the seed where None.
    """

    cut: str = ""
    weights: Path | None = None


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """The `[audit]` table.

    Args:
        pictures: how many of each part are scored, at most.
        seeds: run every attack with each of these; the recipe's seed where empty.
        entropy_of_x: H(x) for the certificates, in nats for one picture, at most 0; "estimate" takes that of a Gaussian.

    Raises:
        ConfigError: pictures is not positive, or the seeds are not different integers >= 0.
    """

    pictures: int = 1000
    seeds: tuple[int, ...] = ()
    entropy_of_x: EntropyOfX = None

    def __post_init__(self) -> None:
        require_entropy(self.entropy_of_x)
        if self.pictures < 1:
            raise ConfigError(f"pictures must be at least 1, got {self.pictures}; 1000 is the default")
        if len(set(self.seeds)) < len(self.seeds) or min(self.seeds, default=0) < 0:
            raise ConfigError(f"seeds must be different integers >= 0, got {list(self.seeds)}; [0, 1, 2] runs each attack thrice")


@dataclass(frozen=True, kw_only=True)
class MembershipOptions:
    """The `[membership]` table: the game of attacks on predictions.

    Args:
        members: how many pictures of `private` the target is trained on; as many more are the non-members. None is half of them.
        references: how many reference models are trained, even; 0 trains none.
        views: how many views of each picture models are asked about; 2 has the mirror image too.
        known: share of the examples whose membership an adversary knows who trains on that, (0, 1).
        canaries: ask about so many pictures only, even; `members` others are trained on by every model. 0 asks about all.
        canary: "mislabeled" puts a wrong class on those, "clean" leaves them as they are.
        leave_one_out: attack each reference model in turn, too, with the others as references, and pool the scores.
        adaptive: train the references with the target's defenses; else without any.
        workers: reference models that train at once on the CPU; 0 is one for each core.

    Raises:
        ConfigError: a number is out of its range.
    """

    members: int | None = None
    references: int = 16
    views: int = 1
    known: float = 0.5
    canaries: int = 0
    canary: Canary = "mislabeled"
    leave_one_out: bool = False
    adaptive: bool = True
    workers: int = 0

    def __post_init__(self) -> None:
        require_choice("canary", self.canary, get_args(Canary))
        if self.references < 0 or self.references % 2:
            raise ConfigError(f"references must be an even number >= 0, got {self.references}; 16 is the default")
        if not 0 < self.known < 1:
            raise ConfigError(f"known must be in (0, 1), a share of the examples, got {self.known}; 0.5 is the default")
        if not 1 <= self.views <= MOST:
            raise ConfigError(f"views must be 1 to {MOST}, got {self.views}; 2 asks about the mirror image too")
        if self.members is not None and self.members < 2 - 2 * bool(self.canaries):
            raise ConfigError(
                f"members must be at least 2, or 0 beside canaries, got {self.members}; leave it out for half of all"
            )
        if self.canaries < 0 or self.canaries % 2 or 0 < self.canaries < 4:
            raise ConfigError(f"canaries must be even and at least 4, or 0, got {self.canaries}; 500 are usual")
        if self.leave_one_out and self.references < 4:
            raise ConfigError(
                f"leave_one_out attacks each reference by the others but its complement: references must be at least 4, got "
                f"{self.references}"
            )
        if self.workers < 0:
            raise ConfigError(f"workers must be at least 0, got {self.workers}; 0 is one for each core")
