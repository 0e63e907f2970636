# SPDX-License-Identifier: Apache-2.0
"""What a defense of predictions asks of the data, said in `prepare`, before anything is trained."""

from __future__ import annotations

from sfumato.data.base import Data
from sfumato.errors import ConfigError


def require_reference(data: Data, name: str) -> None:
    """Raise unless there are pictures that nobody trains on and nobody asks about.

    Args:
        data: what the target is trained on.
        name: of the defense that compares with them.

    Raises:
        ConfigError: the data has no part `reference`, or it is empty.

    Example:
        >>> import torch, sfumato as sf
        >>> data = sf.load_data((torch.rand(20, 1, 8, 8), torch.arange(20) % 2), reference=0.2)
        >>> require_reference(data, "memguard")
    """
    if "reference" not in data.parts or not len(data.part("reference")):
        raise ConfigError(
            f"{name} needs pictures that the target is not trained on, a part `reference`, and {data.name} has none; "
            "set reference = 0.2 under [data], or pass reference=0.2 to load_data"
        )


def require_classes(data: Data, name: str) -> None:
    """Raise unless the data is for a classifier of at least two classes.

    Args:
        data: what the target is trained on.
        name: of the defense.

    Raises:
        ConfigError: the data is for another task, or has a single class.

    Example:
        >>> import torch, sfumato as sf
        >>> require_classes(sf.load_data((torch.rand(20, 1, 8, 8), torch.arange(20) % 2)), "hamp")
    """
    if data.task != "classification" or len(data.classes) < 2:
        raise ConfigError(
            f"{name} needs a data set for classification with at least two classes, found {data.name} for {data.task} with "
            f"{len(data.classes)}; leave {name} out"
        )
