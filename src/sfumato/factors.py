# SPDX-License-Identifier: Apache-2.0
"""What a reconstruction gets right of the person: a network that reads the identity's own factors from a picture.

Drawn portraits come with the factors that made them, which no photograph does: how far the eyes are apart, how dark the skin is.
The reader learns them from private and public pictures, never from reconstructions, so that it cannot get used to their flaws.
What it gets wrong of held-out pictures is the floor of what it can tell.

Source: none; this is an instrument of the audit's own.
Equations: none.
Departures: none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.classifier import build_classifier, train_classifier
from sfumato.data.augment import Augment
from sfumato.data.base import Data, Pictures
from sfumato.data.joined import join
from sfumato.data.loader import batches
from sfumato.data.portraits import SCALE
from sfumato.defenses.base import Defense
from sfumato.errors import DataError
from sfumato.metrics.identity import class_interval, factor_error
from sfumato.modules import device_of, eval_mode
from sfumato.seeds import generator
from sfumato.settings import Optimizer, Train
from sfumato.target import BATCH
from sfumato.types import Images, Interval, Step, Watch

FACTOR = "factor-"
"""How the tags begin that hold a factor of the identity, 0 to `SCALE`."""

# Where things are is most of what is read, so that a network that averages over places reads badly.
_MODEL: tuple[str, Mapping[str, object]] = ("cnn4", {})
_SETTINGS = Train(
    epochs=20,
    batch_size=32,
    optimizer=Optimizer(name="adam", learning_rate=2e-3, weight_decay=0),
    augment=Augment(crop=1, flip=False, rotation=5.0),
)


def factor_names(pictures: Pictures) -> tuple[str, ...]:
    """Return the names of the factors that pictures come with, sorted; none for photographs.

    Example:
        >>> from sfumato.data.resident import ResidentPictures
        >>> pixels = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
        >>> factor_names(ResidentPictures(pixels, torch.zeros(1), tags={"factor-skin": torch.zeros(1), "camera": torch.zeros(1)}))
        ('skin',)
    """
    return tuple(sorted(name.removeprefix(FACTOR) for name in pictures.tags if name.startswith(FACTOR)))


def factors_of(pictures: Pictures, names: tuple[str, ...]) -> Tensor:
    """Return the factors of each picture's identity.

    Args:
        pictures: N of them.
        names: of F factors, in the order of the columns.

    Returns:
        (N, F), float32, [0, 1], on the CPU.

    Raises:
        DataError: the pictures come without one, or one is outside its range.

    Example:
        >>> from sfumato.data.resident import ResidentPictures
        >>> pixels = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
        >>> factors_of(ResidentPictures(pixels, torch.zeros(1), tags={"factor-skin": torch.tensor([2500])}), ("skin",))
        tensor([[0.2500]])
    """
    missing = [name for name in names if FACTOR + name not in pictures.tags]
    if missing:
        raise DataError(f"expected the tag '{FACTOR}{missing[0]}' of every picture, found {', '.join(pictures.tags) or 'none'}")
    values = torch.stack([pictures.tags[FACTOR + name] for name in names], dim=1)
    if len(values) and (int(values.min()) < 0 or int(values.max()) > SCALE):
        raise DataError(f"factors must be from 0 to {SCALE}, found {int(values.min())} to {int(values.max())}; scale the tags")
    return values.float() / SCALE


@dataclass(frozen=True)
class Reader:
    """A network that reads the factors of an identity from a picture.

    Attributes:
        names: of F factors.
        network: from x (N, C, H, W) in [0, 1] to factors (N, F), about 0 to 1.
    """

    names: tuple[str, ...]
    network: nn.Module

    @torch.no_grad()
    def __call__(self, x: Images) -> Tensor:
        """Read the factors of pictures.

        Args:
            x: (N, C, H, W), [0, 1], on any device.

        Returns:
            (N, F), float32, [0, 1], on the CPU.
        """
        device = device_of(self.network)
        with eval_mode(self.network):
            return torch.cat([self.network(some.to(device)).clamp(0, 1).cpu() for some in x.split(BATCH)])

    def read(self, pictures: Pictures) -> Tensor:
        """Read the factors of stored pictures, (N, F), float32, [0, 1], on the CPU."""
        device = device_of(self.network)
        return torch.cat([self(x) for x, _ in batches(pictures.to(device), size=BATCH, device=device)])

    def error(self, pictures: Pictures) -> Interval:
        """Return the mean absolute error on pictures, in shares of the factors' range: of held-out ones it is the floor."""
        wrong = factor_error(self.read(pictures), factors_of(pictures, self.names))
        return class_interval(wrong, pictures.labels, generator(0, "reader"))


def prepare_reader(data: Data, *, device: torch.device, watch: Watch | None = None) -> Reader | None:
    """Make a reader ready.

    Args:
        data: the pictures; parts `private` and `public` are learned from.
        device: where it is trained and asked.
        watch: told of its training.

    Returns:
        The reader; None where the pictures come without factors.

    Raises:
        DataError: some pictures come without a factor that others have, or one is outside its range.
        TrainingError: the loss stopped being finite.

    Example:
        >>> import sfumato as sf
        >>> data = sf.partition(sf.load_data((torch.rand(40, 1, 8, 8), torch.arange(40) % 2)))
        >>> prepare_reader(data, device=torch.device("cpu")) is None
        True
    """
    reader = assemble_reader(data, device=device)
    if reader is not None:
        teach_reader(reader, data, watch=watch)
    return reader


def assemble_reader(data: Data, *, device: torch.device) -> Reader | None:
    """Make a reader that is yet to be trained; None where the pictures come without factors."""
    names = factor_names(data.part("private"))
    if not names:
        return None
    model, options = _MODEL
    network = build_classifier(model, classes=len(names), shape=data.shape, options=options)
    return Reader(names, network.to(device).eval())


def teach_reader(reader: Reader, data: Data, *, watch: Watch | None = None) -> None:
    """Train a reader in place on parts `private` and `public`."""
    parts = [data.part(name) for name in ("private", "public")]
    true = torch.cat([factors_of(part, reader.names) for part in parts])
    # The loop knows of each picture its label, so the label is the number of its row of factors.
    rows, labels = true.unique(dim=0, return_inverse=True)
    pictures = join(parts).relabeled(labels, {})
    train_classifier(reader.network, pictures, _SETTINGS, criterion=_Regression(rows), name=data.name, watch=watch)


class _Regression(Defense):
    """Replaces the task loss by the distance to the factors of the label's row."""

    name = "regression"

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = rows

    def criterion(self, step: Step) -> Tensor:
        """Return the mean absolute error of the factors that the logits are."""
        return F.l1_loss(step.logits.float(), self.rows.to(step.y.device)[step.y])
