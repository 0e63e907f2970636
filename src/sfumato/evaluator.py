# SPDX-License-Identifier: Apache-2.0
"""What the classifier is that judges reconstructions: its model, its training, and the gate below which it is not believed.

Source: ho2024tldmi, appendix D.2 (the evaluation classifier, which should be as accurate as can be).
Equations: none.
Departures: the papers take a network that was trained on millions of faces. Here it is trained on what is there, or loaded from
the user's own weights. A second embedding, delta_face there, is whichever network of faces the user has; none is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sfumato import registry
from sfumato.arguments import require_least, require_positive
from sfumato.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """A classifier that names the class of reconstructions, and embeds them.

    Without weights it is trained on part `private`. It must be of another architecture than the target, or the attack accuracy
    says how well a picture fools two networks of one kind.

    Args:
        model: as a target's model is named.
        options: further arguments of the model.
        epochs: passes over the private pictures.
        batch_size: pictures a step.
        learning_rate: of Adam.
        flip: mirror pictures at random while it is trained.
        size: side in pixels that pictures are resized to, bilinear; None leaves them as they are.
        weights: a safetensors file with the weights of a trained classifier of the same classes in the same order.
        gate: the accuracy on held-out private pictures below which the audit refuses to conclude, [0, 1].
        face: a network of the user's own that embeds pictures, "module:function", called as the models of `build_model` are; it
            returns a module from x (N, C, H, W) in [0, 1] to embeddings (N, E). None measures in the evaluator's embedding alone.
        face_size: side in pixels that pictures are resized to for it.
        face_weights: a safetensors file with its weights; None leaves it as the function returns it.

    Raises:
        ConfigError: a value is out of its range, or arguments of `face` come without one.
        UnknownNameError: no model has that name.

    Example:
        >>> Evaluator(epochs=5).gate
        0.8
    """

    model: str = "resnet20"
    options: Mapping[str, object] = field(default_factory=dict)
    epochs: int = 20
    batch_size: int = 32
    learning_rate: float = 2e-3
    flip: bool = True
    size: int | None = None
    weights: Path | None = None
    gate: float = 0.8
    face: str | None = None
    face_size: int | None = None
    face_weights: Path | None = None

    def __post_init__(self) -> None:
        if ":" not in self.model:
            registry.entry("models", self.model)
        sizes = {name: value for name, value in (("size", self.size), ("face_size", self.face_size)) if value is not None}
        require_least(1, epochs=self.epochs, batch_size=self.batch_size, **sizes)
        require_positive(learning_rate=self.learning_rate)
        if not 0 <= self.gate <= 1:
            raise ConfigError(f"gate must be an accuracy in [0, 1], got {self.gate}; 0.8 is the default")
        if self.face is None and (self.face_size is not None or self.face_weights is not None):
            raise ConfigError("face_size and face_weights are those of a network of your own; name it: face = 'module:function'")
