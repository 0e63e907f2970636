# SPDX-License-Identifier: Apache-2.0
"""Which layers of a classifier matter to a task: the empirical Fisher information of each, for naming people and for rebuilding.

A layer that matters to rebuilding, and not to naming, had better learn nothing of private people: TL-DMI freezes the first ones.

Source: ho2024tldmi, section 4.2 and appendix B.1; kirkpatrick2017ewc and achille2019task2vec for the diagonal of the information;
zhang2018lpips, Eq. 1, for the form of the perceptual loss.
Equations: F = E[(dL / dtheta)^2], gradients of one sample each, and their mean over the parameters of a layer, Eq. 2
    -> fisher_information
    L = -log p(y | x) of held-out private pictures -> classification_fisher
    L = |phi(x_hat) - E[phi(x_private)]|_2, Eq. 3; appendix B.1: |.|_1 -> inversion_fisher
    L = sum_l mean_hw |u_l(x_hat) - u_l(x)|_2^2, u_l the maps l with channels of norm 1: LPIPS with equal weights
        -> inversion_fisher
Departures: Eq. 2 has minus the Hessian of the loss, where the minus belongs to a log likelihood; squared gradients, as in the
works that the paper cites, leave no sign in doubt. The centroid is a constant, since an attack moves pictures toward it and not
it toward pictures; the paper does not say. LPIPS is computed by a network of its own, on which the target's weights have no
influence: its information is 0 in every layer. Here its form is taken of the target's own maps, against a private picture of the
class. Layers are those that compute with a matrix or a kernel; norms, which have two numbers a channel, are left out. The layer
that gives the logits comes after the embedding, so for rebuilding its information is exactly 0, which is no finding:
`FisherProfile.encoder` compares without it.

Gradients are taken one picture after the other: exact for any module, in the memory of one, and on a CPU several times faster
than `torch.func.vmap`, which makes groups of the pictures to differentiate by a kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from sfumato.analysis.fisher_profile import FisherProfile
from sfumato.analysis.maps import Network, last_of_each_size, unit_maps
from sfumato.arguments import require_choice
from sfumato.data.base import Pictures
from sfumato.data.loader import as_images, batches
from sfumato.errors import DataError, ModelError
from sfumato.models.embedding import captured, last_linear
from sfumato.models.layers import Layer, modules_in_order
from sfumato.modules import device_of, eval_mode
from sfumato.seeds import ambient
from sfumato.types import Images, Labels, Watch

Loss = Callable[[Network, Images, int], Tensor]
"""From a network, one picture, (1, C, H, W), and its number among the samples to its loss, ()."""
Distance = Literal["l2", "l1", "perceptual"]

_BATCH = 256


def fisher_information(
    model: nn.Module, loss: Loss, x: Images, labels: Labels, *, task: str, watch: Watch | None = None
) -> FisherProfile:
    """Measure the information of each layer for a task.

    Args:
        model: from x to logits, which a linear layer gives; it runs in eval mode, and its modes, weights, gradients and flags are
            left as they are found: frozen layers count as the others do.
        loss: of one picture.
        x: the samples, (N, C, H, W), [0, 1], on any device.
        labels: their classes, (N,), int64.
        task: a line for people.
        watch: told of each picture.

    Raises:
        DataError: there is no sample.
        ModelError: the logits come from something else than a linear layer, or a gradient is not finite.

    Example:
        >>> model, x = nn.Sequential(nn.Flatten(), nn.Linear(2, 2)), torch.tensor([[[[1.0, 2.0]]], [[[0.0, 3.0]]]])
        >>> brightness = lambda network, x, number: network(x).sum()  # d / dW = (x, x), d / db = (1, 1)
        >>> profile = fisher_information(model, brightness, x, torch.tensor([0, 1]), task="brightness")
        >>> round(profile.values[0], 4)  # the mean of 12 / 6 and 20 / 6
        2.6667
    """
    if not len(x):
        raise DataError("Fisher information is a mean over pictures, found none; give some")
    device = device_of(model)
    first = x[:1].to(device)
    last, modules = last_linear(model, first), modules_in_order(model, first)
    layers = [layer for layer in modules if layer.weighs]
    weights, places = _weights(model, layers)
    counts = [sum(parameter.numel() for parameter in layer.parameters) for layer in layers]
    rows = []
    with torch.enable_grad(), eval_mode(model), ambient(0, "fisher"):
        for number in range(len(x)):
            value = loss(lambda given: functional_call(model, weights, (given,)), x[number : number + 1].to(device), number)
            rows.append(_squares(value, weights))
            if watch is not None:
                watch(number + 1, len(x))
    squares = torch.stack(rows).cpu()
    if not bool(squares.isfinite().all()):
        raise ModelError(
            f"the gradients of {int((~squares.isfinite().all(1)).sum())} of {len(x)} pictures are not finite; see whether the "
            "model answers finite logits"
        )
    sums = torch.stack([squares[:, own].sum(1) for own in places], 1)
    end = next(layer.start for layer in modules if layer.module is last)
    before = sum(layer.start < end for layer in layers)
    each = sums / torch.tensor(counts, dtype=torch.float64)
    return FisherProfile(task, tuple(layer.name for layer in layers), tuple(counts), before, each, labels.detach().cpu())


def classification_fisher(model: nn.Module, pictures: Pictures, *, watch: Watch | None = None) -> FisherProfile:
    """Measure what each layer matters to naming people: cross-entropy with the true labels.

    Args:
        model: from x to logits, which a linear layer gives.
        pictures: private ones that it was not trained on, as those of part `test`.
        watch: told of each picture.

    Raises:
        DataError: there is no picture.
        ModelError: the logits come from something else than a linear layer, or a gradient is not finite.

    Example:
        >>> import sfumato as sf
        >>> data = sf.load_data((torch.rand(20, 1, 8, 8), torch.arange(20) % 2))
        >>> classification_fisher(sf.build_model("cnn4", classes=2, shape=(1, 8, 8)), data.part("test")).layers[-1]
        'classifier'
    """
    labels = pictures.labels.to(device_of(model))

    def loss(network: Network, x: Images, number: int) -> Tensor:
        return F.cross_entropy(network(x), labels[number : number + 1])

    x = as_images(pictures.read(torch.arange(len(pictures))), "cpu")
    return fisher_information(model, loss, x, pictures.labels, task="classification", watch=watch)


def inversion_fisher(
    model: nn.Module,
    x_hat: Images,
    labels: Labels,
    private: Pictures,
    *,
    distance: Distance = "l2",
    watch: Watch | None = None,
) -> FisherProfile:
    """Measure what each layer matters to rebuilding people: the distance of reconstructions to private pictures of their class.

    Args:
        model: from x to logits, which a linear layer gives.
        x_hat: reconstructions, (N, C, H, W), [0, 1], of any step of an attack.
        labels: the class of each, (N,), int64.
        private: what the model was trained on.
        distance: to the mean embedding of the class, "l2", not squared, or "l1"; or "perceptual", between maps, to a private
            picture of the class: to the first of them for its first reconstruction, and so on, from the beginning where they end.
        watch: told of each picture.

    Raises:
        ConfigError: another distance.
        DataError: there is no reconstruction, or no private picture of a class.
        ModelError: the logits come from something else than a linear layer, a gradient is not finite, or there are no maps.

    Example:
        >>> import sfumato as sf
        >>> data = sf.partition(sf.load_data((torch.rand(20, 1, 8, 8), torch.arange(20) % 2)))
        >>> model = sf.build_model("cnn4", classes=2, shape=(1, 8, 8))
        >>> profile = inversion_fisher(model, torch.rand(4, 1, 8, 8), torch.tensor([0, 0, 1, 1]), data.part("private"))
        >>> profile.layers[-1], profile.values[-1]  # it comes after the embedding
        ('classifier', 0.0)
    """
    require_choice("distance", distance, ("l2", "l1", "perceptual"))
    labels, owners = labels.detach().cpu(), private.labels
    missing = sorted(set(labels.tolist()) - set(owners.tolist()))
    if missing:
        raise DataError(
            f"each reconstruction is compared with private pictures of its class, found none of the classes {missing}; give the "
            "pictures that the target was trained on"
        )
    if not len(x_hat):
        raise DataError("Fisher information is a mean over pictures, found no reconstruction; give some")
    example = x_hat[:1].to(device_of(model))
    if distance == "perceptual":
        loss = _apart_in_maps(model, last_of_each_size(model, example), private, labels)
    else:
        loss = _apart_in_embedding(model, last_linear(model, example), private, labels, 2 if distance == "l2" else 1)
    return fisher_information(model, loss, x_hat, labels, task=f"inversion, {distance}", watch=watch)


def _weights(model: nn.Module, layers: Sequence[Layer]) -> tuple[dict[str, Tensor], list[list[int]]]:
    """Return what to differentiate by, in the model's own memory whether frozen or not, and the places of what each layer has."""
    wanted = {id(parameter) for layer in layers for parameter in layer.parameters}
    names = {id(parameter): name for name, parameter in model.named_parameters() if id(parameter) in wanted}
    weights = {name: model.get_parameter(name).detach().requires_grad_() for name in names.values()}
    order = {name: place for place, name in enumerate(weights)}
    return weights, [[order[names[id(parameter)]] for parameter in layer.parameters] for layer in layers]


def _squares(loss: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of the squared gradient of one loss over each weight, (W,), float64; 0 where it does not depend on it."""
    if not loss.requires_grad:
        return torch.zeros(len(weights), dtype=torch.float64, device=loss.device)
    gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    return torch.stack([loss.new_zeros((), dtype=torch.float64) if one is None else _square(one) for one in gradients])


def _square(gradient: Tensor) -> Tensor:
    """Return the sum of squares, (), float64: row by row in its own type, where a sum over millions would lose digits."""
    rows = gradient.flatten(1) if gradient.ndim > 1 else gradient[None]
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms.double().square().sum()  # Eq. 2


def _apart_in_embedding(model: nn.Module, last: nn.Linear, private: Pictures, labels: Labels, order: int) -> Loss:
    """Return the distance of the embedding of a picture to the mean of its class, Eq. 3."""
    centroids = _centroids(model, last, private, labels)

    def loss(network: Network, x: Images, number: int) -> Tensor:
        with captured(last) as given:
            network(x)
        far: Tensor = torch.linalg.vector_norm(given[0][0] - centroids[int(labels[number])], order)
        return far

    return loss


def _centroids(model: nn.Module, last: nn.Linear, private: Pictures, labels: Labels) -> dict[int, Tensor]:
    """Return the mean embedding of the private pictures of each class that is asked for, (E,)."""
    device, found = device_of(model), {}
    with torch.no_grad(), eval_mode(model), ambient(0, "fisher", "centroids"), captured(last) as given:
        for label in labels.unique().tolist():
            own, parts = private.subset((private.labels == label).nonzero()[:, 0]), []
            for x, _ in batches(own, size=_BATCH, device=device):
                model(x)
                parts.append(given[0].clone())
            found[label] = torch.cat(parts).mean(0)
    return found


def _apart_in_maps(model: nn.Module, modules: Sequence[nn.Module], private: Pictures, labels: Labels) -> Loss:
    """Return the distance of the maps of a picture to those of a private one of its class: the form of LPIPS."""
    shown: list[int] = []
    for place, label in enumerate(labels.tolist()):
        own = (private.labels == label).nonzero()[:, 0]
        shown.append(int(own[int((labels[:place] == label).sum()) % len(own)]))

    def loss(network: Network, x: Images, number: int) -> Tensor:
        true = as_images(private.read(torch.tensor([shown[number]])), x.device)
        with torch.no_grad():
            fixed = unit_maps(network, modules, true)
        pairs = zip(unit_maps(network, modules, x), fixed, strict=True)
        return torch.stack([(one - other).square().sum(1).mean() for one, other in pairs]).sum()

    return loss
