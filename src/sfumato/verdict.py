# SPDX-License-Identifier: Apache-2.0
"""What the numbers of audits say, in plain English, and where they say nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sfumato.inversion_verdict import inversion_alone, inversion_compared, inversion_reservations
from sfumato.membership_verdict import membership_alone, membership_compared, over_models, reservations
from sfumato.quantity import show_bytes
from sfumato.tables import (
    BLIND,
    columns,
    describe_attack,
    headline,
    most_recognized,
    show_interval,
    show_number,
    show_share,
    shows_features,
)
from sfumato.types import AttackResult, Audit, Certificate, Interval, Part, TargetFacts

ONLY_BLIND = "Only a blind attack was run, which sees nothing of what is sent: nothing is known of what that gives away."

_PICTURES: Mapping[Part, str] = {"inference": "pictures of inference time", "train": "training pictures"}


def verdict(audits: Sequence[Audit]) -> list[str]:
    """Say in plain English what the numbers say.

    Args:
        audits: one or several; each is compared with the first.

    Returns:
        Sentences. Where the 95 % intervals of two errors overlap, they say that these pictures show no difference. Where two
        errors come from attacks of another name or access, they name the attack behind each. Where heads end elsewhere or take
        another amount of memory, they say so.

    Example:
        >>> verdict([])
        []
    """
    if len(audits) == 1:
        return _single(audits[0])
    names = columns(audits)
    hardened = names == ["before", "after"]
    said = []
    for name, audit in zip(names[1:], audits[1:], strict=True):
        subject = _hardening(audit.target) if hardened else f"Compared with “{names[0]}”, “{name}”"
        said += _compared(subject, audits[0], audit, features=shows_features(audits))
        said += _device(audits[0].target, audit.target)
        if audit.data.fingerprint != audits[0].data.fingerprint:
            said.append("The two audits used different data, so part of the difference may come from the pictures.")
    told = [sentence for name, audit in zip(names, audits, strict=True) for sentence in _recognized(audit, f" of “{name}”")]
    asked = [audit.membership for audit in audits]
    inverted = [audit.inversion for audit in audits]
    return [
        *said,
        *dict.fromkeys(told),
        *over_models(names, asked),
        *reservations(names, asked),
        *inversion_reservations(names, inverted),
    ]


def only_blind(audit: Audit) -> bool:
    """Return whether the attacks of an audit are blind, all of them, so that their errors say nothing of the target.

    Args:
        audit: with attacks on features or without.
    """
    return {one.name for one in audit.attacks} == {BLIND}


def _single(audit: Audit) -> list[str]:
    features, asked = shows_features([audit]), audit.membership
    others = features or audit.inversion is not None
    told = [] if asked is None else membership_alone(asked, " on the predictions" if others else "")
    told += [] if audit.inversion is None else inversion_alone(audit.inversion)
    return [_alone(audit), *_recognized(audit), *told] if features else [*told, _right(audit)]


def _hardening(target: TargetFacts) -> str:
    """Name what was done to a target."""
    return "Pruning" if target.compression is not None and len(target.defenses) == 1 else "Hardening"


def _compared(subject: str, old: Audit, new: Audit, *, features: bool) -> list[str]:
    """Compare what features, predictions and weights give away, where anybody asked; what it costs is said once."""
    said = [_compare(subject, old, new)] if features else []
    inverted = old.inversion is not None or new.inversion is not None
    if old.membership is not None or new.membership is not None or not (features or inverted):
        said += membership_compared(subject, old.membership, new.membership, "" if said else _cost(old, new))
    if inverted:
        said += inversion_compared(subject, old.inversion, new.inversion, "" if said else _cost(old, new))
    return said


def refuted(audits: Sequence[Audit]) -> list[str]:
    """Say which certificates an attack has shown not to hold.

    Args:
        audits: one or several.

    Returns:
        A sentence for each certificate whose floor lies above the error of an attack.

    Example:
        >>> refuted([])
        []
    """
    owners = [f" of “{name}”" for name in columns(audits)] if len(audits) > 1 else [""]
    pairs = zip(owners, audits, strict=False)  # no audit at all has no owner either
    return list(filter(None, (failure(audit, one, owner) for owner, audit in pairs for one in audit.certificates)))


def failure(audit: Audit, certificate: Certificate, owner: str = "") -> str:
    """Say which attack got below the floor of a certificate.

    Args:
        audit: holds the certificate and the attacks.
        certificate: one of the audit's.
        owner: whose certificate it is, such as " of “after”".

    Returns:
        A sentence, or "" where no attack did.
    """
    result = audit.beaten(certificate)
    if result is None or certificate.floor is None:
        return ""
    return (
        f"The assumption failed: {_scored(result)} reached "
        f"MSE {show_interval(result.mse, '#.3g')}, below the floor {show_number(certificate.floor, '#.3g')} that the "
        f"{certificate.name} certificate{owner} claims; do not rely on this certificate."
    )


def closest(audit: Audit, certificate: Certificate) -> str:
    """Say how near the attacks of an audit came to the floor of a certificate.

    Args:
        audit: holds the certificate and the attacks.
        certificate: one of the audit's.

    Returns:
        A sentence, or "" where there is no floor, or where an attack got below it (`failure` says so).
    """
    if certificate.floor is None or audit.beaten(certificate):
        return ""
    floor = f"its floor, MSE {show_number(certificate.floor, '#.3g')}"
    result = audit.strongest(once=True)
    if result is None:
        return f"No attack was run against {floor}."
    reached = f"the strongest, {_scored(result)}, reached {show_interval(result.mse, '#.3g')}"
    several = " Attacks that see several releases of a picture are not covered." if audit.strongest() is not result else ""
    if result.mse.value < certificate.floor:
        return f"These pictures cannot tell whether an attack got below {floor}: {reached}.{several}"
    return f"No attack of this audit got below {floor}: {reached}.{several}"


def _scored(result: AttackResult) -> str:
    return f"{describe_attack(result)}, on {result.pictures:,} {_PICTURES[result.part]}"


def _alone(audit: Audit) -> str:
    right = _right(audit)
    result = audit.strongest()
    if result is None:
        return f"No attack was scored on pictures of inference time: this audit says nothing about what leaks. {right}"
    if only_blind(audit):
        return f"{ONLY_BLIND} {right}"
    numbers = f"MSE {show_number(result.mse.value, '#.3g')}, PSNR {show_number(result.psnr.value, '.1f')} dB"
    return (
        f"The strongest attack ({_attack(result)}) rebuilds pictures that it never trained on "
        f"with {numbers} and SSIM {show_number(result.ssim.value, '.2f')}. {right}"
    )


def _recognized(audit: Audit, owner: str = "") -> list[str]:
    """Say what a classifier names in the reconstructions that show it most, where one was asked and can name it at all."""
    result = most_recognized(audit)
    if result is None or result.recognized is None:
        return []
    told = result.recognized
    chance = f"chance {show_number(100 * told.chance, '.1f')} %"
    if not told.on_real.low > told.chance:
        return [
            f"The classifier itself cannot name the {told.of}: it is right on {show_share(told.on_real)} of the pictures as "
            f"sent, {chance}. What it names in reconstructions says nothing."
        ]
    share, sent = (show_number(100 * one.value, ".1f") for one in (told.accuracy, told.on_real))
    guess = "" if told.accuracy.low > told.chance else ", which is no more than a guess"
    known = f"by {describe_attack(result)}; {chance}; of the pictures as sent {sent} %"
    return [f"Of the reconstructions{owner}, {share} % show the right {told.of} ({known}){guess}."]


def _compare(subject: str, old: Audit, new: Audit) -> str:
    before, after = old.strongest(), new.strongest()
    cost = _cost(old, new)
    if only_blind(old) or only_blind(new):
        return f"{subject} {cost}. What leaks cannot be compared: not every audit ran an attack that sees what is sent."
    if before is None or after is None:
        return f"{subject} {cost}. What leaks cannot be compared: not every audit scored an attack on pictures of inference time."
    numbers = _numbers(before, after)
    if _overlap(before.mse, after.mse):
        return f"{subject} makes no difference to the adversary's error that these pictures can show ({numbers}), and {cost}."
    better = after.mse.value > before.mse.value
    low, high = sorted((before.mse.value, after.mse.value))
    ratio = high / low if low > 0 else math.inf
    factor = f" {ratio:,.{2 if ratio < 2 else 1}f} times" if math.isfinite(ratio) else ""
    change = f"raises the adversary's error{factor}" if better else f"makes it worse: the adversary's error is{factor} lower"
    split = better == (after.ssim.value > before.ssim.value) and not _overlap(before.ssim, after.ssim)
    doubt = " SSIM says the opposite: look at the pictures before you trust either." if split else ""
    return f"{subject} {change} ({numbers}) and {cost}.{doubt}"


def _device(old: TargetFacts, new: TargetFacts) -> list[str]:
    """Say what the head takes in place of what it took, and where it ends, if either is another."""
    before, after = old.head_memory, new.head_memory
    moved = f"ends after {new.cut} in place of {old.cut}" if new.cut != old.cut and old.cut and new.cut else ""
    resized = f"takes {show_bytes(after)} in place of {show_bytes(before)}" if before and after and before != after else ""
    told = " and ".join(filter(None, [moved, resized]))
    return [f"The head {told}."] if told else []


def _numbers(before: AttackResult, after: AttackResult) -> str:
    """Write both errors, each with its attack where these differ: a stronger adversary is no effect of a defense."""
    differ = (before.name, before.access) != (after.name, after.access)
    errors = [show_number(result.mse.value, "#.3g") + (f" by {_attack(result)}" if differ else "") for result in (before, after)]
    return f"MSE {' → '.join(errors)}"


def _attack(result: AttackResult) -> str:
    return f"{result.name}, which sees {'nothing' if result.name == BLIND else f'the {result.access}'}"


def _right(audit: Audit) -> str:
    share = f"{show_number(100 * audit.accuracy.value, '.1f')} %"
    if audit.task == "reidentification":
        return f"For {share} of the queries the first picture that the target finds is of the same individual (rank-1)."
    return f"The target is right on {share} of the test pictures."


def _cost(old: Audit, new: Audit) -> str:
    name, before, after = headline(new), old.accuracy, new.accuracy
    if headline(old) != name:
        return "has another task, so that what it costs cannot be compared"
    points = 100 * (after.value - before.value)
    if abs(points) < 0.05:
        return f"leaves {name} at {show_number(100 * after.value, '.1f')} %"
    doubt = " (the intervals overlap)" if _overlap(before, after) else ""
    return f"{'gains' if points > 0 else 'costs'} {show_number(abs(points), '.1f')} points of {name}{doubt}"


def _overlap(a: Interval, b: Interval) -> bool:
    return not (a.high < b.low or b.high < a.low)  # so that an interval that is not a number shows no difference
