# SPDX-License-Identifier: Apache-2.0
"""The same training in one run, and in two of which the second goes on from the first's checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

import sfumato as sf
from sfumato.train import assemble, fit


def straight_and_resumed(
    made: Callable[[], sf.Defense], split: sf.Split, data: sf.Data, folder: Path
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights of a defended target after two epochs, and after one and one more."""

    def run(*epochs: int) -> dict[str, Tensor]:
        for count in epochs:
            target = assemble(split, data, [made()], seed=0)
            settings = sf.Train(epochs=count, schedule=sf.Schedule(name="constant", warmup=0))
            path = folder / f"{len(epochs)}.safetensors"
            fit(target, data, settings, seed=0, checkpoint=path, definition="a test")
        return target.state_dict()

    return run(2), run(1, 2)
