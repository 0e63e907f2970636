# SPDX-License-Identifier: Apache-2.0
"""From a model's name to the model: of the zoo, of timm, or of the user's own code."""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from sfumato import registry, seeds
from sfumato.errors import ModelError, UnknownNameError, nearest
from sfumato.files import file_hash
from sfumato.models.normalize import Normalize
from sfumato.modules import device_of, probe


def build_model(
    name: str, *, classes: int, shape: tuple[int, int, int], options: Mapping[str, object] | None = None, seed: int = 0
) -> nn.Module:
    """Make a model with freshly drawn weights, and check that it takes the pictures and answers for the classes.

    Args:
        name: a model of the zoo, "timm:<name>" or "module:function", as `resolve` says.
        classes: how many classes.
        shape: (C, H, W) of x.
        options: further arguments of the model, such as ``{"width": 0.5}``.
        seed: of the weights.

    Returns:
        A model from x (N, C, H, W) in [0, 1] to logits (N, classes), in the mode in which it was made.

    Raises:
        UnknownNameError: no model has that name.
        ConfigError: options that a zoo model does not take.
        ModelError: the model cannot be made, cannot take such pictures, or answers with anything but (N, classes) floats.

    Example:
        >>> model = build_model("vgg11", classes=10, shape=(1, 28, 28), options={"width": 0.25})
        >>> model(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """
    with seeds.ambient(seed, "weights"):
        model = resolve(name, classes=classes, shape=shape, options=options)
    check_model(model, classes=classes, shape=shape, name=name)
    return model


def resolve(name: str, *, classes: int, shape: tuple[int, int, int], options: Mapping[str, object] | None = None) -> nn.Module:
    """Find what a name stands for and call it; neither seeded nor checked.

    Args:
        name: a model of the zoo, such as "vgg11"; "timm:<name>", a model of the package timm, such as "timm:resnest101e" or
            "timm:maxvit_tiny_tf_224", with the normalization of its pretrained weights put before it; or "module:function" of the
            user's own, called as ``function(classes=..., shape=..., **options)``.
        classes: how many classes.
        shape: (C, H, W) of x.
        options: further arguments of the model.

    Returns:
        The model. Its children are those of the zoo; or `normalize` and `backbone` for timm; or the user's own.

    Raises:
        UnknownNameError: no model has that name.
        ConfigError: options that a zoo model does not take.
        ModelError: the model cannot be made.

    Example:
        >>> type(resolve("lenet5", classes=10, shape=(1, 28, 28))).__name__
        'Sequential'
    """
    source, colon, rest = name.partition(":")
    if not colon:
        made = registry.create("models", name, {"classes": classes, "shape": shape, **(options or {})})
    elif source == "timm":
        return _from_timm(rest, classes, shape, options or {})
    else:
        made = _call(name, _own(source, rest), {"classes": classes, "shape": shape, **(options or {})})
    if not isinstance(made, nn.Module):
        raise ModelError(f"{name} must return a torch.nn.Module, got {type(made).__name__}; return the model itself")
    return made


def own_code(name: str) -> str | None:
    """Return the hash of the file that a model of the user's own comes from: the same name may come to mean another network.

    Args:
        name: of a model, as `resolve` says.

    Returns:
        SHA-256, hexadecimal; None of a model of the zoo or of timm, and of one that was typed in and has no file.

    Example:
        >>> own_code("vgg11") is None
        True
    """
    module, colon, _ = name.partition(":")
    file = getattr(importlib.import_module(module), "__file__", None) if colon and module != "timm" else None
    return None if file is None else file_hash(Path(file))


def check_model(model: nn.Module, *, classes: int, shape: tuple[int, int, int], name: str = "the model") -> None:
    """Run a model once on two black pictures and check what it answers.

    Args:
        model: any module, on any device; its modes are left as they were.
        classes: how many classes it should answer for.
        shape: (C, H, W) of x.
        name: of the model, for the message.

    Raises:
        ModelError: the model fails on such pictures, or answers with anything but (2, classes) floats.

    Example:
        >>> check_model(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), classes=3, shape=(1, 8, 8))
    """
    try:
        logits = probe(model, torch.zeros(2, *shape, device=device_of(model)))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        table = "a row of a table comes as (N, F, 1, 1): put nn.Flatten() first"
        advice = table if shape[1:] == (1, 1) else "check the model's input size and channels"
        raise ModelError(f"{name} must take pictures of {_by(shape)}, but failed on two of them: {error}; {advice}") from error
    if isinstance(logits, Tensor) and logits.shape == (2, classes) and logits.is_floating_point():
        return
    found = f"{logits.dtype} of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
    raise ModelError(
        f"{name} must answer two pictures with float logits of shape (2, {classes}), one a class, got {found}; "
        f"give its last layer {classes} outputs, or correct the number of classes"
    )


def _by(shape: Sequence[int]) -> str:
    """Write a shape as 3x32x32."""
    return "x".join(map(str, shape))


def _own(module: str, function: str) -> Callable[..., object]:
    """Import a function of the user's own."""
    if not module or not function:
        raise UnknownNameError(f"a model of your own is named 'module:function', got '{module}:{function}'")
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ModelError(f"module '{module}' needs '{error.name}', which is not installed; install it") from error
        raise UnknownNameError(
            f"no module named '{module}' for the model '{module}:{function}'; run where '{module}' can be imported"
        ) from error
    except (ImportError, SyntaxError) as error:
        raise ModelError(f"module '{module}' cannot be imported: {error}; correct it") from error
    found: object = getattr(loaded, function, None)
    if not callable(found):
        known = [name for name, value in vars(loaded).items() if callable(value) and not name.startswith("_")]
        raise UnknownNameError(f"module '{module}' has no function '{function}'{nearest(function, known)}")
    return found


def _call(name: str, function: Callable[..., object], arguments: Mapping[str, object]) -> object:
    """Call a function of the user's own."""
    try:
        return function(**arguments)
    except TypeError as error:
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise ModelError(
            f"{name} could not be called as ({given}): {error}; it must take classes, shape and every option by name"
        ) from error


def _timm() -> ModuleType:
    """Import timm."""
    try:
        return importlib.import_module("timm")
    except (ImportError, RuntimeError) as error:  # a torchvision that does not fit torch raises RuntimeError
        raise ModelError(
            f"a model named 'timm:...' needs timm and torchvision, which cannot be imported ({error}); "
            'pip install "sfumato[vision]"'
        ) from error


def _from_timm(name: str, classes: int, shape: tuple[int, int, int], options: Mapping[str, object]) -> nn.Module:
    """Make a model of timm behind the normalization of its pretrained weights."""
    timm = _timm()
    if not timm.is_model(name):
        raise UnknownNameError(f"timm has no model '{name}'{nearest(name, timm.list_models())}")
    arguments = {"num_classes": classes, "in_chans": shape[0], **options}
    backbone = _call(f"timm:{name}", lambda **given: timm.create_model(name, **given), arguments)
    if not isinstance(backbone, nn.Module):
        raise ModelError(f"timm:{name} must be a torch.nn.Module, got {type(backbone).__name__}")
    pretrained = getattr(backbone, "pretrained_cfg", {})
    mean, std = (_per_channel(pretrained.get(key, (0.5,)), shape[0]) for key in ("mean", "std"))
    return nn.Sequential(OrderedDict(normalize=Normalize(mean, std), backbone=backbone))


def _per_channel(values: Sequence[float], channels: int) -> list[float]:
    """Return one number a channel: the numbers themselves where they fit, their average in each channel otherwise."""
    return list(values) if len(values) == channels else [sum(values) / len(values)] * channels
