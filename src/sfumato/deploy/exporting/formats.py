# SPDX-License-Identifier: Apache-2.0
"""What each format on the wire costs and gives away: accuracy, bytes, and what attacks make of the numbers that are really sent.

Rounding is part of the defended target: an adversary sees rounded features when it learns and when it attacks, and one who has
the weights differentiates through the rounding as if it were not there (straight through).

Source: bengio2013estimating, section 2.3, for the straight-through gradient.
Equations: dq/dz = 1 -> Rounded.protect
Departures: none.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from sfumato.data.base import Data, Pictures
from sfumato.data.loader import batches
from sfumato.defenses.base import Defense
from sfumato.defenses.compose import Compose
from sfumato.deploy.exporting.calibration import Wire, calibrate
from sfumato.deploy.manifest import FormatFacts, Leak, WireFormat
from sfumato.errors import ExportError
from sfumato.modules import eval_mode
from sfumato.seeds import generator
from sfumato.split import bytes_per_picture
from sfumato.tables import Row, describe_attack, headline, show_interval, show_share, title
from sfumato.target import BATCH, Target
from sfumato.task import task_for
from sfumato.types import AttackResult, Audit, Interval
from sfumato.verdict import only_blind, verdict

WIRES: tuple[WireFormat, ...] = get_args(WireFormat)
"""The formats, the widest first."""
UNAUDITED = "No attack was run on what this head sends: nothing is known of what it gives away."
UNCUT = "This model is not cut: what the device sends is the picture itself, and no attack was run on that."

_BARE = "No defense protects what this head sends. "
_STICKY = " This holds for devices that repeat their noise for the same picture: run them with --sticky."

_PICTURES = 512  # to calibrate on
_NUMBERS = 1 << 23  # of z that are sorted at most
_FEWEST = 64

Auditor = Callable[[Target, Wire], Audit | None]
"""Attacks a target whose features are already rounded for a wire, or finds it attacked; None where there is no attack."""


class Rounded(Defense):
    """Send features as they cross the wire, in training of an adversary as in deployment.

    Args:
        wire: how z is packed.

    Example:
        >>> z = torch.tensor([[0.3]], requires_grad=True)
        >>> sent = Rounded(Wire("uint8", torch.zeros(1), torch.ones(1))).protect(z, None)
        >>> sent.sum().backward()
        >>> sent.item(), z.grad.item()
        (0.0, 1.0)
    """

    name = "wire"

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self.wire = wire

    def protect(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return z packed and unpacked, with the gradient of the identity."""
        sent: Tensor = self.wire(z.detach())
        return sent + (z - z.detach()) if z.requires_grad else sent

    def extra_repr(self) -> str:  # noqa: D102
        return self.wire.wire


@dataclass(frozen=True)
class Format:
    """What was measured of a format.

    Attributes:
        wire: the format, with its ranges.
        bytes_per_picture: of one z.
        utility: by name, the headline first, with 95 % intervals.
        headline: the name of the first, for people.
        strongest: the attack with the least error on pictures of inference time; None where none was run.
        leak: a sentence for people.
    """

    wire: Wire
    bytes_per_picture: int
    utility: Mapping[str, Interval]
    headline: str
    strongest: AttackResult | None
    leak: str

    @property
    def facts(self) -> FormatFacts:
        """The same for a manifest."""
        values = {name: reached.value for name, reached in self.utility.items()}
        return FormatFacts(
            self.wire.wire, self.bytes_per_picture, values, None if self.strongest is None else _leak(self.strongest)
        )


def wire_for(wire: WireFormat, target: Target, data: Data, *, seed: int) -> Wire:
    """Return a format, with ranges for the features of a target where it needs them.

    Args:
        wire: the format.
        target: trained; left as it is found.
        data: the pictures; ranges come from the part `private`.
        seed: of the defense's random numbers.
    """
    if wire != "uint8":
        return Wire(wire)
    part = data.part("private" if "private" in data.parts else "train")
    return calibrate(_features(target, part, seed))


def on_wire(target: Target, wire: Wire) -> Target:
    """Return a target that sends features as they cross a wire; it shares all modules with the one given.

    Args:
        target: trained.
        wire: how z is packed.
    """
    if wire.wire == "float32":
        return target
    if not isinstance(target.defense, Defense):
        raise ExportError(f"expected a target with a defense of Sfumato, such as Compose() for none, found {target.defense!r}")
    rounded = Rounded(copy.deepcopy(wire)).to(target.device)  # the exported halves stay on the CPU
    return Target(target.split, Compose(target.defense, rounded), sticky=target.sticky)


def measure_format(target: Target, data: Data, wire: Wire, *, seed: int, audited: Auditor | None = None) -> Format:
    """Measure what a format costs and gives away.

    Args:
        target: trained.
        data: its pictures.
        wire: the format.
        seed: of the defense's random numbers.
        audited: attacks it; None leaves that out.
    """
    sending = on_wire(target, wire)
    with torch.no_grad(), eval_mode(target):
        z = target.features(torch.zeros(1, *data.shape, device=target.device))
    size = bytes_per_picture(tuple(z.shape[1:]))[wire.wire]
    audit = None if audited is None else audited(sending, wire)
    if audit is None or audit.strongest() is None:
        utility = task_for(data).utility(sending, data, seed) if audit is None else _utility(audit)
        return Format(wire, size, utility, next(iter(utility)), None, UNAUDITED if target.split.at else UNCUT)
    return Format(wire, size, _utility(audit), headline(audit), audit.strongest(), _told(audit, target))


def _told(audit: Audit, target: Target) -> str:
    """Say what leaks, of what kind of device, behind which defense."""
    bare = _BARE if isinstance(target.defense, Compose) and not len(target.defense) else ""
    sticky = _STICKY if audit.target.sticky and target.protection.stochastic and not only_blind(audit) else ""
    return bare + verdict([audit])[0] + sticky


def format_table(formats: Sequence[Format], chosen: WireFormat) -> tuple[list[str], list[Row]]:
    """Return the headings and rows of a table with a column for each format, the chosen one marked.

    Args:
        formats: what was measured.
        chosen: the format that was exported.
    """
    heads = [one.wire.wire + (" (exported)" if one.wire.wire == chosen else "") for one in formats]
    cells: dict[str, Callable[[Format], str]] = {
        title(formats[0].headline): lambda one: show_share(one.utility[one.headline]),
        "Bytes of one z": lambda one: f"{one.bytes_per_picture:,}",
        "Strongest attack": lambda one: "not audited" if one.strongest is None else describe_attack(one.strongest),
    }
    measures: dict[str, Callable[[AttackResult], str]] = {
        "MSE": lambda result: show_interval(result.mse, "#.3g"),
        "PSNR": lambda result: show_interval(result.psnr, ".2f", " dB"),
        "SSIM": lambda result: show_interval(result.ssim, ".3f"),
    }
    rows = [Row(label, tuple(cell(one) for one in formats)) for label, cell in cells.items()]
    for label, measure in measures.items():
        rows.append(Row(label, tuple("" if one.strongest is None else measure(one.strongest) for one in formats)))
    return heads, rows


def _utility(audit: Audit) -> Mapping[str, Interval]:
    """Return how useful an audited target is; older records have the headline alone."""
    return audit.utility or {headline(audit): audit.accuracy}


def _leak(result: AttackResult) -> Leak:
    measured = {"mse": result.mse.value, "psnr": result.psnr.value, "ssim": result.ssim.value}
    return Leak(result.name, result.part, measured)


def _features(target: Target, pictures: Pictures, seed: int) -> Tensor:
    """Return protected features of some pictures, spread over all, (n, C, ...), on the CPU."""
    stream = generator(seed, "calibration", device=target.device)
    count = _PICTURES
    found: list[Tensor] = []
    chosen = pictures.subset(torch.linspace(0, len(pictures) - 1, min(count, len(pictures))).long())
    for x, _ in batches(chosen, size=BATCH, device=target.device):
        with torch.no_grad(), eval_mode(target):
            z = target.features(x, stream).cpu()
        count = min(count, max(_FEWEST, _NUMBERS // z[0].numel()))
        found.append(z)
        if sum(map(len, found)) >= count:
            break
    return torch.cat(found)[:count]
