# SPDX-License-Identifier: Apache-2.0
"""BiDO: hidden layers that depend little on the picture and much on the label, by a penalty on a measure of dependence.

Source: peng2022bido, section 3, and its release for everything that is a number; ho2024tldmi, section 4.4 (on the layers that
train only, together with TL-DMI) and Tables 8 and 11 (the weights).
Equations: L + sum over layers Z of lambda_x d(X, Z) - lambda_y d(Z, Y) -> BiDO.penalty; d as `analysis.kernels`, X the pictures
    in [0, 1], Y the labels as rows of zeros and a one
Departures: what the release calls HSIC is the normalized form, `nocco`, which does not grow with dependence in batches of the
usual size; it is the default, as every published number is of it, and `measure="hsic_plain"` is the HSIC that the paper defines.
No weights for that are published: the defaults here make its gradient about as long, at the start of training and in networks
with batch norm, as the published ones make that of the normalized form. The released script trains with the latter whatever
measure it is asked for. The release computes every kernel on the CPU, those of X and Y once a layer; here nothing leaves the
device, and they are computed once a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.analysis.kernels import LEAST, coco, gaussian_kernel, gaussian_kernels, hsic, linear_kernel, nocco
from sfumato.arguments import require_choice, require_positive
from sfumato.data.base import Data
from sfumato.defenses.base import Defense
from sfumato.defenses.needs import require_classes
from sfumato.defenses.watched import Watched
from sfumato.errors import ConfigError, UnknownNameError, nearest
from sfumato.models.embedding import last_linear
from sfumato.models.layers import modules_in_order
from sfumato.models.stages import stage_ends
from sfumato.models.taps import taps
from sfumato.modules import device_of
from sfumato.split import Split
from sfumato.types import Epoch, Step

Measure = Literal["hsic", "coco", "hsic_plain"]
"""How dependence is measured: "hsic", the normalized form that the release calls so; "coco"; or "hsic_plain", HSIC itself."""
LabelKernel = Literal["linear", "gaussian"]

_MEASURES: Mapping[Measure, Callable[[Tensor, Tensor], Tensor]] = {"hsic": nocco, "coco": coco, "hsic_plain": hsic}
_WEIGHTS: Mapping[Measure, tuple[float, float]] = {"hsic": (0.05, 0.5), "coco": (5.0, 50.0), "hsic_plain": (2e5, 1e3)}
_STAGES = 4


class BiDO(Defense):
    """Penalize what hidden layers tell of the picture, and reward what they tell of the label.

    A layer whose output carries no gradient, since everything before it is frozen, is left out. So is the last batch of an epoch
    where it is too small to measure anything.

    Args:
        lambda_x: weight of the dependence on the picture, at least 0; where None, the papers' best for VGG-16: 0.05 with "hsic"
            and 5 with "coco" (for ResNet-34 they have 0.1 and 0.05), and 200,000 with "hsic_plain". Small changes cost much
            accuracy (ho2024tldmi, Table 8).
        lambda_y: weight of the dependence on the label, likewise: 0.5 and 50 (2 and 2.5), and 1,000.
        measure: "hsic", "coco" or "hsic_plain".
        layers: names of modules of the model whose outputs are watched. Empty takes, for any model, the ends of its first four
            stages, such as the outputs of the first max-pools of a VGG, and what the last linear layer is given.
        sigma: width of the Gaussian kernels, in units of a pixel or a feature.
        label_kernel: of Y, "linear" as the release has it, or "gaussian".

    Raises:
        ConfigError: a value is out of its range; when it is prepared, a layer is none of the model's, or the data is not for
            classification; while it trains, a batch is too small, or all the layers are frozen.
        ModelError: `layers` is empty, and the logits come from something else than a linear layer.

    Example:
        >>> BiDO(measure="coco")
        BiDO(lambda_x=5.0, lambda_y=50.0, measure='coco', layers=(), sigma=5.0, label_kernel='linear')
    """

    name = "bido"
    surface = "weights"

    def __init__(
        self,
        lambda_x: float | None = None,
        lambda_y: float | None = None,
        *,
        measure: Measure = "hsic",
        layers: tuple[str, ...] = (),
        sigma: float = 5.0,
        label_kernel: LabelKernel = "linear",
    ) -> None:
        super().__init__()
        require_choice("measure", measure, get_args(Measure))
        require_choice("label_kernel", label_kernel, get_args(LabelKernel))
        require_positive(sigma=sigma)
        usual_x, usual_y = _WEIGHTS[measure]
        self.lambda_x = usual_x if lambda_x is None else lambda_x
        self.lambda_y = usual_y if lambda_y is None else lambda_y
        weights = (self.lambda_x, self.lambda_y)
        if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
            raise ConfigError(
                f"lambda_x and lambda_y must be >= 0 and finite, and one above 0, got {self.lambda_x} and {self.lambda_y}; "
                f"{usual_x} and {usual_y} are the usual ones, for no defense use Compose()"
            )
        if len(set(layers)) < len(layers):
            raise ConfigError(f"layers must name each layer once, got {', '.join(layers)}; leave one out")
        self.measure: Measure = measure
        self.label_kernel: LabelKernel = label_kernel
        self.layers, self.sigma = tuple(layers), sigma
        self._shape: tuple[int, int, int] | None = None
        self._watched: Watched | None = None
        self._measured = False

    @property
    def least_batch(self) -> int:
        """How many pictures a batch must have: of two, every kernel is the same but for its scale, however they are paired."""
        return LEAST

    def prepare(self, model: Split, data: Data) -> None:
        """Refuse layers that the model has not, and data whose task is another."""
        require_classes(data, self.name)
        self._places(model, torch.zeros(2, *data.shape, device=device_of(model)))

    def begin(self, data: Data) -> None:
        """Learn the shape of pictures."""
        self._shape = data.shape

    def begin_epoch(self, epoch: Epoch) -> None:
        """Watch the layers; the model may have changed since the last epoch, and an epoch that failed left its hooks."""
        self.forget()
        assert self._shape is not None  # noqa: S101 -- `begin` comes before
        x = torch.zeros(2, *self._shape, device=device_of(epoch.model))
        self._watched = Watched(epoch.model, self._places(epoch.model, x))
        self._measured = False

    def end_epoch(self, epoch: Epoch) -> None:
        """Leave the model as it was."""
        self.forget()

    def penalty(self, step: Step) -> Tensor | None:
        """Return the weighted dependence on pictures less that on labels, a sum over layers; None of a remainder of a batch."""
        if len(step.x) < LEAST and self._measured:
            return None
        hidden = self._hidden(step)
        labels = F.one_hot(step.y, step.logits.shape[1]).float()
        of_labels = linear_kernel(labels) if self.label_kernel == "linear" else gaussian_kernel(labels, self.sigma)
        of_x, *of_hidden = gaussian_kernels([step.x, *hidden], self.sigma)
        fixed = torch.stack([of_x, of_labels])[:, None]
        on_x, on_y = _MEASURES[self.measure](fixed, torch.stack(of_hidden)).sum(1)  # (2, layers) before the sum
        self._measured = True
        total: Tensor = self.lambda_x * on_x - self.lambda_y * on_y
        return total.float()

    def after_step(self, step: Step) -> None:
        """Forget the outputs of the step."""
        if self._watched is not None:
            self._watched.clear()

    def forget(self) -> None:
        """Take the hooks off the model."""
        if self._watched is not None:
            self._watched.remove()
        self._watched = None

    def extra_repr(self) -> str:  # noqa: D102
        return (
            f"lambda_x={self.lambda_x}, lambda_y={self.lambda_y}, measure={self.measure!r}, layers={self.layers!r}, "
            f"sigma={self.sigma}, label_kernel={self.label_kernel!r}"
        )

    def _hidden(self, step: Step) -> list[Tensor]:
        """Return the outputs of the layers that train, for one batch; raise, and leave no hook, where there is nothing to see."""
        kept = {} if self._watched is None else self._watched.kept
        trained = [z for z in kept.values() if z.requires_grad]
        if len(step.x) >= LEAST and trained:
            return trained
        names = ", ".join(kept)
        self.forget()
        if len(step.x) < LEAST:
            raise ConfigError(
                f"{self.name} measures dependence within a batch, which takes at least {LEAST} pictures (of two, every kernel is "
                f"the same but for its scale, however they are paired), got {len(step.x)}; the papers have batch_size = 64"
            )
        raise ConfigError(
            f"{self.name} watches layers that train, and everything is frozen up to all of its own ({names}); name layers behind "
            "the frozen ones, or freeze less"
        )

    def _places(self, model: nn.Module, x: Tensor) -> dict[str, tuple[nn.Module, bool]]:
        """Return where to catch the outputs of the layers: a module, and whether they are what it is given."""
        if not self.layers:
            first = {tap.layer.name: (tap.at, tap.given) for tap in stage_ends(model, x)[:_STAGES]}
            return {**first, "the embedding": (last_linear(model, x), True)}
        known = [layer.name for layer in modules_in_order(model, x)]
        if missing := [name for name in self.layers if name not in known]:
            outer = ", ".join(name for name in known if "." not in name)
            raise UnknownNameError(f"the model has no layer '{missing[0]}'{nearest(missing[0], known)}; layers: {outer}")
        found = taps(model, x)
        if silent := [name for name in self.layers if name not in found]:
            raise ConfigError(
                f"layers must give a tensor with a row for each picture, and '{silent[0]}' does not; name the one before or after"
            )
        return {name: (found[name].at, found[name].given) for name in self.layers}
