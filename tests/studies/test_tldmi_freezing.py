# SPDX-License-Identifier: Apache-2.0
"""What the studies of TL-DMI freeze is there in their models, and leaves to train what the paper says."""

from __future__ import annotations

import functools
import json
from importlib.util import find_spec

import pytest
import torch

from sfumato.models.freezing import frozen_part
from sfumato.models.resolve import build_model
from tldmi_cells import NAMES, cells, load

SHAPES = {"portraits": (3, 32, 32), "celeb21": (3, 64, 64), "lfw-gray": (1, 64, 64), "celeba": (3, 64, 64)}
SHAPES |= dict.fromkeys(("facescrub", "vggface2", "stanford-dogs"), (3, 224, 224))
CLASSES = {"facescrub": 530, "vggface2": 8631, "stanford-dogs": 120}
TRAINED = {
    ("vgg16_face", "c7"): 15.04,
    ("vgg16_face", "c8"): 13.86,
    ("vgg16_face", "c9"): 11.50,
    ("vgg16_face", "c10"): 9.13,
    ("vgg16_face", "c13"): 2.05,
    ("ir152", "layer3"): 17.83,
    ("ir50", "layer2.2"): 34.39,
    ("resnet34", "layer1"): 21.57,
    ("resnet18", "layer3"): 8.67,
    ("resnet50", "layer3"): 32.65,
    ("timm:maxvit_tiny_tf_224", "backbone.stages.2"): 18.07,
    ("timm:resnest101e", "backbone.layer3.14"): 26.13,
}
"""Millions of trained parameters at the paper's size. The paper's are 15, 13.9, 11.5, 9.1, 2.1, 17.8, 34.4, 21.14, 8.9, 32.9, and
18.3 and 27.9, which the models of timm have with 1,000 classes."""


@functools.cache
def counts(model: str, classes: int, shape: tuple[int, int, int], options: str, at: str) -> tuple[int, int]:
    """How many parameters are trained and how many are frozen, by tensors that have shapes and no numbers."""
    with torch.device("meta"):
        built = build_model(model, classes=classes, shape=shape, options=json.loads(options))
        point = frozen_part(built, torch.zeros(1, *shape), at).point
    return point.trainable, point.frozen


@pytest.mark.parametrize("name", NAMES)
def test_what_is_frozen_is_there_and_leaves_what_the_paper_trains(name: str) -> None:
    for row, size, recipe in cells(name):
        at = next((str(defense.freeze) for defense in recipe.defenses if hasattr(defense, "freeze")), None)
        if at is None or (recipe.model.startswith("timm:") and find_spec("timm") is None):
            continue
        data = str(load(name)._size(row, size).recipe["data"]["name"])
        classes = recipe.data.private_identities or CLASSES[data]
        left, frozen = counts(recipe.model, classes, SHAPES[data], json.dumps(recipe.options), at)
        assert min(left, frozen) > 0
        if size == "full":
            assert left / 1e6 == pytest.approx(TRAINED[recipe.model, at], abs=0.006)
