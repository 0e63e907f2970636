# SPDX-License-Identifier: Apache-2.0
"""What every model of the registry keeps, at the smallest pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sfumato import registry
from sfumato.files import load_into, read_tensors, write_tensors
from sfumato.models.resolve import build_model

SHAPE = (3, 8, 8)


def built(name: str, seed: int = 0) -> torch.nn.Module:
    return build_model(name, classes=4, shape=SHAPE, options={"width": 0.25}, seed=seed).eval()


@pytest.mark.parametrize("name", registry.TABLE["models"])
class TestEveryModel:
    def test_answers_with_a_logit_for_each_class_and_passes_gradients_to_x(self, name: str) -> None:
        x = torch.rand(3, *SHAPE, requires_grad=True)
        logits = built(name)(x)
        assert logits.shape == (3, 4)
        logits.sum().backward()
        assert x.grad is not None
        assert x.grad.abs().sum() > 0

    def test_the_seed_decides_every_weight(self, name: str) -> None:
        first, again, other = (list(built(name, seed).state_dict().values()) for seed in (0, 0, 1))
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))

    def test_survives_a_checkpoint(self, name: str, tmp_path: Path) -> None:
        trained, fresh, x = built(name, 0), built(name, 1), torch.rand(2, *SHAPE)
        path = write_tensors(tmp_path / "weights.safetensors", trained.state_dict())
        assert not torch.equal(trained(x), fresh(x))
        load_into(fresh, read_tensors(path)[0], source=path)
        assert torch.equal(trained(x), fresh(x))
