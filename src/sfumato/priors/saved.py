# SPDX-License-Identifier: Apache-2.0
"""A trained prior as one safetensors file: weights, kind, sizes and settings. A StyleGAN that a user converted is read too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast, get_args

import torch

from sfumato.arguments import construct
from sfumato.errors import ConfigError, ModelError, SfumatoError, WeightsError
from sfumato.files import load_into, read_tensors, write_tensors
from sfumato.modules import device_of, eval_mode
from sfumato.priors.base import FOR_TARGET, Prior, PriorKind
from sfumato.priors.settings import PriorSettings
from sfumato.priors.stylegan import is_stylegan2, stylegan2_prior
from sfumato.priors.stylegan1 import is_stylegan1, stylegan1_prior
from sfumato.priors.train import new_prior
from sfumato.seeds import generator

FORMAT = "sfumato-prior-1"
_TRIED = 4  # latents whose pictures are looked at before a prior is believed


@dataclass(frozen=True)
class SavedPrior:
    """A prior as it was read from a file.

    Attributes:
        prior: in eval mode, on the CPU.
        settings: how it was trained; None of published weights.
        source: a line for people: how it was trained, or the file that it came from.
    """

    prior: Prior
    settings: PriorSettings | None
    source: str


def save_prior(path: str | Path, prior: Prior, settings: PriorSettings, *, classes: int | None = None, source: str = "") -> Path:
    """Write a trained prior.

    Args:
        path: the file.
        prior: as `train_prior` returns it.
        settings: that it was trained with.
        classes: of its target, of the kinds that learned from one.
        source: a line for people, such as the name of the public pictures.

    Raises:
        ConfigError: the kind learned from a target, and classes are missing.
        StorageError: it cannot be written.

    Example:
        >>> import tempfile
        >>> settings = PriorSettings(width=4, latent=8)
        >>> path = save_prior(Path(tempfile.mkdtemp()) / "prior.safetensors", new_prior("gan", (1, 8, 8), settings), settings)
        >>> load_prior(path).prior.image_shape
        (1, 8, 8)
    """
    if prior.kind in FOR_TARGET and classes is None:
        raise ConfigError(f"a prior of kind '{prior.kind}' has the classes of its target; give classes=")
    facts = {
        "format": FORMAT,
        "kind": prior.kind,
        "image_shape": json.dumps(prior.image_shape),
        "classes": json.dumps(classes),
        "settings": json.dumps(asdict(settings)),
        "source": source,
    }
    return write_tensors(path, prior.state_dict(), facts)


def load_prior(
    path: str | Path,
    *,
    kind: PriorKind | None = None,
    image_shape: tuple[int, int, int] | None = None,
    classes: int | None = None,
    crop: int | None = None,
) -> SavedPrior:
    """Read a trained prior, of ours or of a StyleGAN.

    Args:
        path: a file that `save_prior` wrote, or the weights of StyleGAN2 or StyleGAN as docs/priors.md says how to convert them.
        kind: that it must have; None takes any.
        image_shape: (C, H, W) of the target's pictures, which it must make; a StyleGAN's are resized to it. None takes any.
        classes: of the target, which a prior that learned from one must have; None takes any.
        crop: side of the middle of a StyleGAN's pictures that is kept before they are resized; None keeps all.

    Raises:
        WeightsError: the file is damaged or holds something else.
        ConfigError: the prior is of another kind or size, or of a target with another number of classes.
        ModelError: what it makes is not pictures in [0, 1].
    """
    tensors, facts = read_tensors(path)
    if is_stylegan2(tensors):
        prior = stylegan2_prior(tensors, source=path, image_shape=image_shape, crop=crop)
        found = SavedPrior(prior, None, f"StyleGAN2 weights from {Path(path).name}")
    elif is_stylegan1(tensors):
        prior = stylegan1_prior(tensors, source=path, image_shape=image_shape, crop=crop)
        found = SavedPrior(prior, None, f"StyleGAN weights from {Path(path).name}")
    else:
        found = _own(path, tensors, facts)
        _require_classes(path, facts, classes)
    require_prior(found.prior, kind=kind, image_shape=image_shape, name=str(path))
    return found


def require_prior(
    prior: Prior, *, kind: PriorKind | None = None, image_shape: tuple[int, int, int] | None = None, name: str = "the prior"
) -> None:
    """Raise unless a prior is of a kind and makes pictures of a shape in [0, 1]; it is looked at, not only asked.

    Args:
        prior: the prior; its mode is left as it is found.
        kind: that it must have; None takes any.
        image_shape: (C, H, W) of the target's pictures; None takes any.
        name: of the prior, for messages.

    Raises:
        ConfigError: it is of another kind or size.
        ModelError: what it makes has another shape than it says, is not finite, or leaves [0, 1].

    Example:
        >>> require_prior(new_prior("gan", (1, 8, 8), PriorSettings(width=4)), kind="gan", image_shape=(1, 8, 8))
    """
    if kind is not None and prior.kind != kind:
        raise ConfigError(f"expected a prior of kind '{kind}', found {name} of kind '{prior.kind}'; train one of that kind")
    if image_shape is not None and prior.image_shape != image_shape:
        raise ConfigError(
            f"expected a prior of pictures {image_shape}, as the target takes them, found {name} of {prior.image_shape}; train "
            "it on pictures of the target's size"
        )
    latents = prior.draw(_TRIED, generator(0, "prior", "tried"))
    labels = torch.zeros(_TRIED, dtype=torch.int64, device=device_of(prior)) if prior.kind == "conditional" else None
    with torch.no_grad(), eval_mode(prior):
        x = prior(latents, labels)
    if tuple(x.shape[1:]) != prior.image_shape:
        raise ModelError(f"expected {name} to make pictures {prior.image_shape}, found {tuple(x.shape[1:])}; correct image_shape")
    low, high = (float(bound) for bound in torch.aminmax(x))
    if not (low >= 0 and high <= 1):  # so written, NaN is refused too
        raise ModelError(
            f"expected {name} to make pictures in [0, 1], found {low:.3g} to {high:.3g}; from [-1, 1] return (x + 1) / 2"
        )


def _own(path: str | Path, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, str]) -> SavedPrior:
    """Return a prior that `save_prior` wrote."""
    if facts.get("format") != FORMAT:
        raise WeightsError(
            f"expected a prior ({FORMAT}), or the weights of StyleGAN2 or StyleGAN as docs/priors.md converts them, found {path} "
            f"with format {facts.get('format')!r}; make one with: sfumato prior train"
        )
    try:
        shape = cast("tuple[int, int, int]", tuple(json.loads(facts["image_shape"])))
        classes, values = json.loads(facts["classes"]), json.loads(facts["settings"])
        kind = cast(PriorKind, facts["kind"])
        settings, problems = construct(PriorSettings, values, where="settings")
        if problems or kind not in get_args(PriorKind) or not isinstance(settings, PriorSettings):
            raise ValueError("; ".join(problems) or f"kind {kind!r}")
        prior = new_prior(kind, shape, settings, classes=classes)
    except (KeyError, ValueError, TypeError, SfumatoError) as error:
        raise WeightsError(f"expected a whole prior in {path}, found facts that fit none: {error}; train it again") from error
    load_into(prior, tensors, source=path)
    return SavedPrior(prior.eval(), settings, facts.get("source", ""))


def _require_classes(path: str | Path, facts: Mapping[str, str], classes: int | None) -> None:
    """Raise where a prior learned from a target with another number of classes."""
    learned = json.loads(facts["classes"])
    if None not in (classes, learned) and learned != classes:
        raise ConfigError(
            f"{path} learned from a target of {learned} classes, and this one has {classes}; train it against this target"
        )
