# SPDX-License-Identifier: Apache-2.0
"""What the tables `[data]`, `[model]`, `[membership]`, `[inversion]` and `[audit]` of a recipe may say beside names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from sfumato.analysis.certify import EntropyOfX
from sfumato.analysis.entropy import require_entropy
from sfumato.arguments import require_choice, require_least
from sfumato.attacks.weights.base import MEMORY
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
        private_identities: for attacks on weights: how many classes the target tells apart, those with the most pictures; the
            pictures of everybody else are public. None leaves the classes together.
        pretrain_identities: how many of the others are for pretraining.
        overlap: where identities are private: share of the other pictures, [0, 1), that may be private ones too, and are left
            out; more are refused.

    Raises:
        ConfigError: budget is not positive, public or reference is outside [0, 1) or both leave nothing, or auxiliary is "public"
            and nothing is; identities are fewer than 2, or come with another way to share the pictures; or overlap is outside
            [0, 1).
    """

    budget: int = 2 << 30
    public: float = 0.0
    reference: float = 0.0
    auxiliary: Literal["private", "public", "test"] = "private"
    private_identities: int | None = None
    pretrain_identities: int = 0
    overlap: float = 0.0

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise ConfigError(f"budget must be a positive number of bytes, got {self.budget}; 2147483648 is the default")
        require_shares(self.public, self.reference)
        if not 0 <= self.overlap < 1:
            raise ConfigError(f"overlap must be in [0, 1), a share of the public pictures, got {self.overlap}; 0 allows none")
        self._check_identities()
        if self.auxiliary == "public" and self.public == 0 and self.private_identities is None:
            raise ConfigError('auxiliary = "public" needs public pictures; set public to their share of train, such as 0.2')

    def _check_identities(self) -> None:
        if self.private_identities is None:
            if self.pretrain_identities:
                raise ConfigError("pretrain_identities needs private_identities: how many classes the target has")
            return
        if self.private_identities < 2 or self.pretrain_identities < 0:
            raise ConfigError(
                f"private_identities must be at least 2 and pretrain_identities at least 0, got {self.private_identities} and "
                f"{self.pretrain_identities}"
            )
        if self.public or self.reference or self.auxiliary == "test":
            raise ConfigError(
                "private_identities makes the pictures of everybody else public, so public, reference and auxiliary = 'test' "
                "have nothing to share; leave them out"
            )


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
        sticky: whether the device is one that repeats its random draw when a picture is sent again, byte for byte.

    Raises:
        ConfigError: pictures is not positive, or the seeds are not different integers >= 0.
    """

    pictures: int = 1000
    seeds: tuple[int, ...] = ()
    entropy_of_x: EntropyOfX = None
    sticky: bool = False

    def __post_init__(self) -> None:
        require_entropy(self.entropy_of_x)
        if self.pictures < 1:
            raise ConfigError(f"pictures must be at least 1, got {self.pictures}; 1000 is the default")
        if len(set(self.seeds)) < len(self.seeds) or min(self.seeds, default=0) < 0:
            raise ConfigError(f"seeds must be different integers >= 0, got {list(self.seeds)}; [0, 1, 2] runs each attack thrice")


@dataclass(frozen=True, kw_only=True)
class InversionOptions:
    """The `[inversion]` table: attacks on weights.

    Args:
        identities: how many of the target's classes are attacked, drawn by the seed; None attacks all.
        memory: bytes that a batch of a search may take.

    Raises:
        ConfigError: a number is not positive.
    """

    identities: int | None = None
    memory: int = MEMORY

    def __post_init__(self) -> None:
        require_least(1, memory=self.memory, **({} if self.identities is None else {"identities": self.identities}))


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
