# SPDX-License-Identifier: Apache-2.0
"""The gradient of each picture of a batch by itself, clipped, summed and noised: Opacus, made safe for the training loop.

Source: abadi2016dpsgd, Algorithm 1; yousefpour2021opacus.
Equations: g_i / max(1, ||g_i||_2 / C) summed over i, plus N(0, sigma^2 C^2), over the expected batch -> private_optimizer
Departures: a batch may be empty; its step is the noise alone. Opacus reads the strides of a convolution's input as if channels
came first, and is silently wrong where they come last: the model is trained with channels first.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sfumato.defenses.accountant import require_opacus
from sfumato.errors import ModelError
from sfumato.modules import device_of, mode
from sfumato.seeds import ambient
from sfumato.split import Split

_TOLERANCE = 0.05
"""How far the pictures' gradients may be from that of their batch, relative: a GPU may round a convolution's to 10 bits."""


class PerExample:
    """Hooks that leave the gradient of each picture in `grad_sample` of each weight, under the names that the weights have.

    Args:
        model: changed in place: no layer works in place, and memory has channels first.

    Raises:
        ConfigError: the extra is not installed.
        ModelError: a layer keeps statistics of batches.
    """

    def __init__(self, model: Split) -> None:
        require_opacus()
        from opacus.grad_sample import GradSampleHooks

        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        for module in model.modules():
            if getattr(module, "inplace", False):
                setattr(module, "inplace", False)  # noqa: B010 -- the type checker takes it for a tensor
        try:
            self._hooks = GradSampleHooks(model)
        except NotImplementedError as error:
            raise ModelError(f"a layer of {model.name} keeps numbers between batches, which no noise covers: {error}") from error
        self._model = model
        self._first = model.head.register_forward_pre_hook(_with_gradient)

    def remove(self) -> None:
        """Take the hooks and all that they left off the model."""
        self._first.remove()
        self._hooks.cleanup()
        for parameter in self._model.parameters():
            parameter.__dict__.pop("summed_grad", None)


def private_optimizer(
    optimizer: torch.optim.Optimizer, *, clip: float, noise_multiplier: float, expected: float, steps: Tensor
) -> torch.optim.Optimizer:
    """Return an optimizer that takes the steps of another along clipped and noised gradients.

    Args:
        optimizer: whose parameters a `PerExample` watches.
        clip: longest gradient of a picture.
        noise_multiplier: standard deviation of the noise, in units of `clip`; it comes from PyTorch's ambient stream.
        expected: pictures in a batch, on average.
        steps: (), int64: counts the steps.
    """
    from opacus.optimizers import DPOptimizer

    class PrivateOptimizer(DPOptimizer):  # type: ignore[misc]  # without types
        """Opacus' optimizer, for batches that may be empty and weights that a picture may not reach."""

        def pre_step(self, closure: object = None) -> bool:
            found = [parameter.grad_sample for parameter in self.params if parameter.grad_sample is not None]
            for parameter in self.params:
                if parameter.grad_sample is None:
                    parameter.grad_sample = parameter.new_zeros(len(found[0]) if found else 0, *parameter.shape)
            return bool(super().pre_step(closure))

    private = PrivateOptimizer(optimizer, noise_multiplier=noise_multiplier, max_grad_norm=clip, expected_batch_size=expected)
    private.attach_step_hook(lambda _: steps.add_(1))
    made: torch.optim.Optimizer = private
    return made


def require_separate(model: Split, shape: tuple[int, int, int]) -> None:
    """Raise unless a model answers about each picture by itself, and its layers let each have a gradient of its own.

    Args:
        model: in any mode, which it keeps.
        shape: (C, H, W) of a picture.

    Raises:
        ConfigError: the extra is not installed.
        ModelError: it does not.
    """
    x = torch.rand(3, *shape, device=device_of(model))
    with torch.no_grad(), mode(model, training=True):
        with ambient(0, "separate"):
            together = model(x[:2])
        with ambient(0, "separate"):  # the same draws, so that dropout leaves out the same
            apart = model(x[::2])
    if not together[0].allclose(apart[0], rtol=1e-3, atol=1e-4):
        raise ModelError(
            f"dpsgd needs a model whose answer about a picture does not depend on the others of its batch, and that of "
            f"{model.name} does; take out what mixes them"
        )
    watched = PerExample(model)
    try:
        with torch.enable_grad(), mode(model, training=True):
            wrong = _wrong_gradients(model, x)
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"{model.name} gives no gradient of single pictures: {error}; operations in place, such as `out += x`, are the usual "
            "reason: write `out = out + x`"
        ) from error
    finally:
        watched.remove()
    if wrong:
        raise ModelError(
            f"the gradients of single pictures do not add up to that of their batch in {', '.join(wrong)} of {model.name}; take "
            "layers that Opacus reads rightly, such as those of lenet5"
        )


def _wrong_gradients(model: Split, x: Tensor) -> list[str]:
    """Return the names of weights for which the mean of the pictures' gradients is not the gradient of the mean."""
    learned = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    model(x).float().logsumexp(1).mean().backward()
    wrong = []
    for name, parameter in learned.items():
        if (whole := parameter.grad) is None:
            continue
        parameter.grad = None
        apart: Tensor | None = parameter.grad_sample  # type: ignore[attr-defined]  # the hooks set it
        if apart is None or (apart.mean(0) - whole).norm() > _TOLERANCE * whole.norm() + 1e-6:
            wrong.append(name)
    return wrong


def _with_gradient(head: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Let the hooks of the first layer see a gradient of its input: without one PyTorch warns that they may be called late."""
    if not torch.is_grad_enabled():
        return given
    return tuple(x.detach().contiguous().requires_grad_() for x in given)
