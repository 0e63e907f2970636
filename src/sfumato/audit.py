# SPDX-License-Identifier: Apache-2.0
"""Target, attacks and data in; an `Audit` out: every attack, on both parts, with every seed."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version

import torch
from torch import Tensor

from sfumato import registry
from sfumato.analysis.certify import EntropyOfX, certify
from sfumato.analysis.entropy import require_entropy
from sfumato.attacks.base import FeatureAttack, hold_out
from sfumato.data.base import Data, Pictures
from sfumato.data.loader import shuffled
from sfumato.defenses.base import Defense
from sfumato.defenses.compose import Compose
from sfumato.errors import ConfigError
from sfumato.inversion_types import Inversion
from sfumato.measure import SHOWN, measure
from sfumato.membership_types import Membership
from sfumato.modules import eval_mode
from sfumato.recognize import Recognizer, Witness, prepare
from sfumato.seeds import generator
from sfumato.split import Split, bytes_per_picture, cost
from sfumato.target import BATCH, FeaturesView, Target
from sfumato.task import task_for
from sfumato.types import (
    Audit,
    Certificate,
    Compression,
    DataFacts,
    Exhibit,
    Findings,
    Interval,
    NamedWatch,
    Part,
    TargetFacts,
    Watch,
    told_as,
)

_WEIGHTS = "the weights: whether training pictures can be recovered from the released classifier (model inversion)"
_PREDICTIONS = "the predictions: whether membership in the training set shows in the answers (membership inference)"
_FEATURES = "the features: whether the picture can be recovered from what crosses the cut"
_OF_FEATURES = "sfumato.attacks.features."
_UNBOUNDED = (
    "every other adversary: certificates are known only for features with Gaussian noise added and nothing else done to them"
)
_REPEATED = "repeated releases of the same picture: noise averages out when a device sends one picture many times"
_NEAR = "near-duplicates of the same picture: a sticky device draws noise for each, which averages out over many"
_STICKY = "whether the device is sticky, as it was taken to be: each start of it, and each further device, draws noise of its own"


def audit(
    target: Split | Target,
    data: Data,
    *,
    attacks: Sequence[str | FeatureAttack] | Mapping[str, FeatureAttack] = ("decoder",),
    seed: int = 0,
    seeds: Sequence[int] | None = None,
    pictures: int = 1000,
    entropy_of_x: EntropyOfX = None,
    recognizer: Recognizer | None = None,
    sticky: bool = False,
    title: str = "",
    watch: NamedWatch | None = None,
) -> Audit:
    """Attack a target and measure what it gives away.

    Args:
        target: a trained target, or a split model that no defense protects.
        data: the pictures: `auxiliary` is the adversary's; samples of it and of `inference` are scored; accuracy is that on
            `test`, and in re-identification that of the search for each of `query` in `gallery`.
        attacks: names in the registry, attacks of your own making, or attacks by the name that they get in the report.
        seed: of everything random, where `seeds` is None.
        seeds: run every attack with each of these.
        pictures: how many of each part are scored, at most.
        entropy_of_x: H(x) for the certificates, in nats for one picture, at most 0; "estimate" takes that of a Gaussian.
        recognizer: names what it sees in the reconstructions; None asks nobody.
        sticky: take the device to be one that repeats its random draw when a picture is sent again, byte for byte. A target that
            says so itself is taken at its word.
        title: a line for people; model and cut where empty.
        watch: told of the progress.

    Returns:
        The audit.

    Raises:
        UnknownNameError: an attack that the registry does not know.
        ConfigError: no attack, no picture to score, nothing for the recognizer to name, or seeds that are not different numbers.

    Example:
        >>> import sfumato as sf
        >>> data = sf.load_data((torch.rand(40, 1, 8, 8), torch.arange(40) % 2))
        >>> model = sf.build_model("lenet5", classes=2, shape=(1, 8, 8))
        >>> found = sf.audit(sf.split(model, at="c1"), data, attacks=[sf.Likelihood(steps=2)])
        >>> [(result.name, result.part) for result in found.attacks]
        [('likelihood', 'train'), ('likelihood', 'inference')]
    """
    require_entropy(entropy_of_x)
    named, seeds = _named(attacks), tuple(seeds if seeds is not None else (seed,))
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds must be one or more different numbers, got {list(seeds)}")
    made = target if isinstance(target, Target) else Target(target, Compose())
    if sticky:
        made = Target(made.split, made.defense, sticky=True)
    scored = sample(data, pictures, seeds[0])
    witness = None
    if recognizer is not None:
        witness = prepare(recognizer, data, device=made.device, watch=told_as(watch, "recognizer"))
    findings = [
        run_attack(name, attack, made, data, scored, seed=one, witness=witness, watch=told_as(watch, name))
        for one in seeds
        for name, attack in named.items()
    ]
    return assemble_audit(
        made,
        data,
        attacks=named,
        scored=scored,
        findings=findings,
        seeds=seeds,
        utility=task_for(data).utility(made, data, seeds[0]),
        certificates=certify(made, data, entropy_of_x=entropy_of_x, seed=seeds[0]),
        title=title,
    )


def sample(data: Data, pictures: int, seed: int) -> dict[Part, Pictures]:
    """Draw the pictures that are scored.

    Args:
        data: `auxiliary` is the adversary's; the part that it trains on is drawn from, and `inference`.
        pictures: how many of each part, at most.
        seed: of the draw.

    Raises:
        ConfigError: pictures is not positive, or a part is empty.
    """
    if pictures < 1:
        raise ConfigError(f"pictures must be at least 1, got {pictures}; 1000 is the default")
    parts: dict[Part, Pictures] = {"train": hold_out(data.part("auxiliary"))[0], "inference": data.part("inference")}
    return {part: _sample(some, pictures, seed) for part, some in parts.items()}


def run_attack(
    name: str,
    attack: FeatureAttack,
    target: Target,
    data: Data,
    scored: Mapping[Part, Pictures],
    *,
    seed: int,
    witness: Witness | None = None,
    watch: Watch | None = None,
) -> Findings:
    """Run one attack with one seed, and measure what it recovers.

    Args:
        name: that it gets in the report.
        attack: the attack.
        target: a trained target.
        data: the pictures; `auxiliary` is the adversary's.
        scored: the pictures to recover, as `sample` draws them.
        seed: of everything random.
        witness: says what it sees in the reconstructions; None asks nobody.
        watch: told of the progress.

    Example:
        >>> import sfumato as sf
        >>> from sfumato.target import Target
        >>> data = sf.load_data((torch.rand(40, 1, 8, 8), torch.arange(40) % 2))
        >>> split = sf.split(sf.build_model("lenet5", classes=2, shape=(1, 8, 8)), at="c1")
        >>> blind = sf.Likelihood(steps=1)
        >>> found = run_attack("blind", blind, Target(split, sf.Compose()), data, sample(data, 4, 0), seed=0)
        >>> [(result.part, result.pictures) for result in found.results]
        [('train', 4), ('inference', 4)]
    """
    victims = {part: _sent(target, some, seed, attack) for part, some in scored.items()}
    attacked = attack(target, data.part("auxiliary"), victims, seed=seed, watch=watch)
    return measure(name, attack, attacked, scored, seed=seed, hardware=hardware(target.device), witness=witness)


def assemble_audit(
    target: Target,
    data: Data,
    *,
    attacks: Mapping[str, FeatureAttack],
    scored: Mapping[Part, Pictures],
    findings: Sequence[Findings],
    seeds: Sequence[int],
    utility: Mapping[str, Interval],
    certificates: tuple[Certificate, ...] = (),
    membership: Membership | None = None,
    inversion: Inversion | None = None,
    compression: Compression | None = None,
    title: str = "",
) -> Audit:
    """Put together an audit of what each of its attacks came to.

    Args:
        target: the target.
        data: its pictures.
        attacks: those on features that were run, by name.
        scored: the pictures that were scored.
        findings: of each attack with each seed.
        seeds: of the attacks.
        utility: of the target on its task, the headline first.
        certificates: of the target.
        membership: what was found of the predictions.
        inversion: what was found of the weights.
        compression: what pruning left of the model.
        title: a line for people; model and cut where empty.
    """
    sent = [Exhibit(part, some.read(torch.arange(min(SHOWN, len(some)))).cpu()) for part, some in scored.items()]
    return Audit(
        title=title or (f"{target.split.name} cut at {target.split.at}" if target.split.at else target.split.name),
        target=replace(facts(target, data), compression=compression),
        data=data_facts(data),
        accuracy=next(iter(utility.values())),
        attacks=tuple(result for found in findings for result in found.results),
        exhibits=(*sent, *(exhibit for found in findings for exhibit in found.exhibits)),
        untested=(
            *_untested(attacks, seeds, certificates, target),
            *([] if inversion else [_WEIGHTS]),
            *([] if membership else [_PREDICTIONS]),
        ),
        seeds=tuple(seeds),
        versions=versions(),
        hardware="; ".join(dict.fromkeys(found.hardware for found in findings)) or hardware(target.device),
        certificates=(*certificates, *(target.defense.certificates if isinstance(target.defense, Defense) else ())),
        task=data.task,
        utility=utility,
        membership=membership,
        inversion=inversion,
    )


def facts(target: Target, data: Data) -> TargetFacts:
    """Return what a target is and what it costs.

    Args:
        target: the target.
        data: the pictures that it takes.
    """
    x = torch.zeros(1, *data.shape, device=target.device)
    with torch.no_grad(), eval_mode(target.split):
        z = target.split.head(x)
    head, tail = cost(target.split.head, x), cost(target.split.tail, z)
    parts = target.defense if isinstance(target.defense, Compose) else [target.defense]
    shape = tuple(z.shape[1:])
    return TargetFacts(
        model=target.split.name,
        cut=target.split.at,
        defenses=tuple(part.describe() for part in parts if isinstance(part, Defense)),
        classes=len(data.classes),
        input_shape=data.shape,
        feature_shape=shape,
        bytes_per_picture=bytes_per_picture(shape),
        head_parameters=head.parameters,
        head_macs=head.macs,
        tail_parameters=tail.parameters,
        tail_macs=tail.macs,
        head_memory=head.memory,
        tail_memory=tail.memory,
        sticky=target.sticky,
    )


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    return {"sfumato": version("sfumato"), "torch": torch.__version__, "python": platform.python_version()}


def hardware(device: torch.device) -> str:
    """Return a line about the machine that a device is in."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU {platform.machine()}, {torch.get_num_threads()} threads"


def _named(attacks: Sequence[str | FeatureAttack] | Mapping[str, FeatureAttack]) -> dict[str, FeatureAttack]:
    """Return the attacks by the names that they get in the report."""
    if isinstance(attacks, str):
        attacks = [attacks]
    if isinstance(attacks, Mapping):
        named = dict(attacks)
    else:
        named = {}
        for attack in attacks:
            name = attack if isinstance(attack, str) else type(attack).__name__.lower()
            made = registry.create("attacks", name, {}) if isinstance(attack, str) else attack
            if not isinstance(made, FeatureAttack):
                raise ConfigError(f"expected attacks on features such as Decoder() or 'decoder', found {made!r}")
            if name in named:
                raise ConfigError(f"two attacks named '{name}'; name them: attacks={{'first': ..., 'second': ...}}")
            named[name] = made
    if not named:
        raise ConfigError(f"an audit needs at least one attack; known: {', '.join(registry.TABLE['attacks'])}")
    return named


def _sample(pictures: Pictures, count: int, seed: int) -> Pictures:
    """Return some pictures, drawn at random."""
    if not len(pictures):
        raise ConfigError("there is no picture to score; give the data set a test part")
    return pictures.subset(shuffled(len(pictures), generator(seed, "scored"))[:count])


def _sent(target: Target, pictures: Pictures, seed: int, attack: FeatureAttack) -> Tensor:
    """Return what users send for pictures: once each, (N, ...), or as many times as the attack sees, (N, releases, ...).

    The first is the same, unless near-duplicates are sent: those are drawn for each release.
    """
    view = FeaturesView(target, generator(seed, "sent", device=target.device))
    device = view.record(pictures.to(target.device), gray_levels=attack.gray_levels)
    index = torch.arange(len(pictures)).split(BATCH)
    draws = 1 if target.sticky and attack.repeats else attack.releases
    times = [torch.cat([device.draw(part) for part in index]) for _ in range(draws)]
    return times[0] if attack.releases == 1 else torch.stack(times * (attack.releases // draws), 1)


def data_facts(data: Data) -> DataFacts:
    """Return what is to be said about the pictures of an audit.

    Args:
        data: the pictures.
    """
    return DataFacts(
        name=data.name,
        fingerprint=data.part("train").fingerprint,
        counts={name: len(part) for name, part in data.parts.items()},
        skipped=data.skipped,
        auxiliary=data.auxiliary,
    )


def _untested(
    named: Mapping[str, FeatureAttack], seeds: Sequence[int], certificates: Sequence[Certificate], target: Target
) -> tuple[str, ...]:
    """Say what an audit with these attacks says nothing about, as far as features go."""
    if not target.split.at:
        return ()
    if not named:
        return (_FEATURES,)
    run = {type(attack) for attack in named.values()}
    left = [
        f"the attack '{name}': {entry.summary}"
        for name, entry in registry.TABLE["attacks"].items()
        if entry.path.startswith(_OF_FEATURES) and name not in named and entry.load() not in run
    ]
    drawn = _untested_draws(named, target) if target.protection.stochastic else []
    few = ["how much the attacks vary: each was run with one seed"] if len(seeds) == 1 else []
    bound = [] if certificates else [_UNBOUNDED]
    return (*left, *drawn, *few, *bound)


def _untested_draws(named: Mapping[str, FeatureAttack], target: Target) -> list[str]:
    """Say what these attacks leave open about a defense that draws random numbers."""
    if target.sticky:
        return [*([] if any(attack.gray_levels for attack in named.values()) else [_NEAR]), _STICKY]
    # Noise is fresh for every release here, so that series of either kind average it away.
    return [] if any(attack.releases > 1 for attack in named.values()) else [_REPEATED]
