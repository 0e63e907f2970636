# SPDX-License-Identifier: Apache-2.0
"""Audits for the tests of records and reports, made by hand or by hypothesis, and a reader of the pages made of them."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from statistics import NormalDist

import torch
from hypothesis import strategies as st

from sfumato.inversion_types import (
    ClassResult,
    EvaluatorFacts,
    Inversion,
    InversionExhibit,
    InversionResult,
    PriorFacts,
    Rebuilt,
    Yardstick,
)
from sfumato.membership_types import Bound, Membership, MembershipResult, Roc, Slice
from sfumato.types import AttackResult, Audit, Certificate, Compression, DataFacts, Exhibit, Interval, Recognition, TargetFacts


def near(value: float, width: float = 0.01) -> Interval:
    return Interval(value, value * (1 - width), value * (1 + width))


def result(mse: float = 0.01, **changes: object) -> AttackResult:
    plain = AttackResult(
        "decoder",
        "inference",
        "best",
        0,
        "features",
        512,
        near(mse),
        near(20.0),
        near(21.0),
        near(0.8),
        None,
        1.5,
        4000,
        {"epochs": 50},
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def recognition(share: float = 0.5, sent: float = 0.9, width: float = 0.1) -> Recognition:
    """Of four drivers."""
    return Recognition("driver", near(share, width), 0.25, near(sent, width))


def private(share: float = 0.5, **changes: object) -> AttackResult:
    """A result with a region and a recognizer."""
    return result(**{"regions": {"inside": near(0.03), "outside": near(0.008)}, "recognized": recognition(share), **changes})  # type: ignore[arg-type]


def target(*defenses: str) -> TargetFacts:
    return TargetFacts(
        "vgg11", "c2", defenses, 10, (1, 4, 5), (8, 2, 2), {"float32": 12345, "uint8": 32}, 67890, 4321, 100, 200, 271560
    )


def pixels(channels: int = 1, count: int = 2, seed: int = 0) -> torch.Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, 4, 5), generator=stream, dtype=torch.uint8)


def audit(mse: float = 0.01, accuracy: float = 0.98, *defenses: str, **changes: object) -> Audit:
    plain = Audit(
        title="digits",
        target=target(*defenses),
        data=DataFacts("digits", "ab" * 32, {"test": 1000}),
        accuracy=near(accuracy, 0.001),
        attacks=(result(mse), result(2 * mse, name="mirror", selection="last"), result(mse, part="train")),
        exhibits=(
            Exhibit("inference", pixels()),
            Exhibit("inference", pixels(seed=1), "decoder", "best"),
            Exhibit("inference", pixels(seed=2), "mirror", "last"),
            Exhibit("train", pixels(seed=3)),
            Exhibit("train", pixels(seed=4), "decoder", "best"),
        ),
        untested=("attacks with a generative prior",),
        seeds=(0, 1),
        versions={"torch": "2.13.0"},
        hardware="2 CPU cores",
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def before_and_after(mse: float = 0.041, accuracy: float = 0.96) -> list[Audit]:
    return [audit(), audit(mse, accuracy, "Noise(sigma=0.025)")]


def searched(first: float = 0.9, *defenses: str, mse: float = 0.01) -> Audit:
    """An audit of a target that finds individuals."""
    utility = {"rank-1": near(first, 0.001), "rank-5": near(0.95), "rank-10": near(0.96), "mAP": near(0.7)}
    return audit(mse, first, *defenses, task="reidentification", utility=utility)


def certificate(floor: float | None = 0.005, **changes: object) -> Certificate:
    plain = Certificate(
        "entropy",
        "The features leave open most of a picture.",
        floor,
        {"information_bits": 811.25, "dimensions": 512.0},
        ("The features follow the mixture.",),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


REFUSED = Bound(None, None, None, "too few non-members (500): 0.1 % false alarms need at least 10,000; score more")


def gaussian_roc(auc: float, nonmembers: int) -> Roc:
    """The curve of scores from two normal distributions of equal width, at every whole number of false alarms."""
    normal = NormalDist()
    apart = 2**0.5 * normal.inv_cdf(auc)
    fpr = [count / nonmembers for count in range(1, nonmembers)]
    return Roc((0.0, *fpr, 1.0), (0.0, *(normal.cdf(normal.inv_cdf(share) + apart) for share in fpr), 1.0))


def bound(value: float, width: float = 0.3) -> Bound:
    return Bound(value, value * (1 - width), value * (1 + width))


def inference(name: str = "lira", area: float = 0.7, **changes: object) -> MembershipResult:
    """A result of an attack on the predictions: 500 members, 500 non-members."""
    plain = MembershipResult(
        name=name,
        seed=0,
        access="logits",
        members=500,
        nonmembers=500,
        targets=1,
        references=16,
        adaptive=True,
        auc=near(area, 0.03),
        tpr_at_1=bound(0.071),
        tpr_at_01=REFUSED,
        balanced_accuracy=near(0.6, 0.03),
        advantage=near(0.2, 0.1),
        epsilon=0.42,
        roc=gaussian_roc(area, 50),
        slices={
            "class 3": Slice(50, 52, 0.2, near(0.8), near(0.7)),
            "class 4": Slice(50, 48, -0.01, near(0.9), near(0.8)),
        },
        seconds=0.25,
        queries=2000,
        settings={"variance": "global"},
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def turned(name: str = "lira", area: float = 0.8, **changes: object) -> MembershipResult:
    """A result over 16 models in turn: enough non-members to quote 0.1 %."""
    pooled = {"targets": 16, "members": 8000, "nonmembers": 16_000, "references": 14, "tpr_at_01": bound(0.012)}
    return inference(name, area, **{**pooled, **changes})


def membership(*results: MembershipResult, **changes: object) -> Membership:
    """What was found of the predictions: 98 % right on members, 87.4 % on the others, so that the gap attack reaches 55.3 %."""
    loss = inference("loss", 0.6, references=0, tpr_at_1=bound(0.02), balanced_accuracy=near(0.56))
    plain = Membership(
        results=results or (loss, inference()),
        members=500,
        nonmembers=500,
        duplicates=0,
        accuracy=(near(0.98), near(0.874)),
        references=16,
        canaries="",
        untested=("attacks with 64 reference models",),
        seeds=(0,),
        versions={"torch": "2.13.0"},
        hardware="2 CPU cores",
        title="a table of logits",
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


COMPRESSED = Compression(61470, 3815, 246_000, 21_500, 416_520, 40_011, (0.151, 0.149))


def asked(found: Membership | None = None, *defenses: str, **changes: object) -> Audit:
    """An audit of the predictions only, of a model that is not split."""
    whole = replace(target(*defenses), cut="", head_parameters=0, head_macs=0, head_memory=0, feature_shape=(1, 4, 5))
    plain = {"attacks": (), "exhibits": (), "target": whole, "membership": found or membership()}
    return audit(0.01, 0.98, *defenses, **{**plain, **changes})


def rebuilt(name: str = "gmi", accuracy: float = 0.3, **changes: object) -> InversionResult:
    """A result of an attack on the weights: five pictures of each of 20 classes of 40."""
    plain = InversionResult(
        name=name,
        seed=0,
        access="weights",
        prior="gan",
        identities=20,
        per_class=5,
        top1=near(accuracy, 0.1),
        top5=near(min(1.0, 1.5 * accuracy), 0.1),
        confidence=near(0.97),
        named=near(0.96),
        knn=near(412.0, 0.05),
        centroid=near(18.5, 0.05),
        frechet=88.25,
        kid=-0.0125,
        classes=(ClassResult("anna", 0.2, 0.95, 530.0), ClassResult("ben", 0.8, 0.99, 301.0)),
        seconds=41.5,
        settings={"iterations": 300},
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def judge(accuracy: float = 0.962, gate: float = 0.8) -> EvaluatorFacts:
    return EvaluatorFacts("resnet18", near(accuracy), gate, 11_200_000)


def yardstick(knn: float, top1: float) -> Yardstick:
    return Yardstick(near(knn, 0.02), near(12.5), 6.5, 0.001, near(top1, 0.05))


def exhibit(name: str = "anna", private: torch.Tensor | None = None, *attacks: Rebuilt) -> InversionExhibit:
    """A class of which GMI made one picture right and one wrong, and KEDMI none that it could start from."""
    shown = (
        Rebuilt("kedmi", 0, pixels(3, seed=1), (0.991, 0.874), (True, False)),
        Rebuilt("brepmi", 0, pixels(3, seed=2), (0.02, 0.01), (False, False), reached=False),
    )
    return InversionExhibit(name, private, attacks or shown)


def inversion(*results: InversionResult, **changes: object) -> Inversion:
    """What was found of the weights: KEDMI is right on 60 %, its prior alone on 12 %, chance is 2.5 %."""
    plain = Inversion(
        results=results or (rebuilt(), rebuilt("kedmi", 0.6, prior="inversion")),
        identities=20,
        outputs=40,
        evaluator=judge(),
        floor=yardstick(210.0, 0.96),
        ceiling=yardstick(980.0, 0.026),
        priors=(
            PriorFacts("gan", 41.5, near(0.1), 2000, "trained on the public part"),
            PriorFacts("inversion", 44.0, near(0.12), 800),
        ),
        overlap=0,
        untested=("attacks with StyleGAN priors of photographs",),
        seeds=(0,),
        versions={"torch": "2.13.0"},
        hardware="2 CPU cores",
        title="portraits",
        gallery=(exhibit(), exhibit("ben")),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def weighed(found: Inversion | None = None, *defenses: str, accuracy: float = 0.98, **changes: object) -> Audit:
    """An audit of the weights only."""
    return replace(asked(membership(), *defenses), **{  # type: ignore[arg-type]
        "membership": None, "inversion": found or inversion(), "accuracy": near(accuracy, 0.001), "title": "portraits", **changes
    })  # fmt: skip


class Page(HTMLParser):
    """Every tag of a page with its attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def without_pixels(record: Audit) -> Audit:
    found = record.inversion
    return replace(record, exhibits=(), inversion=found and replace(found, gallery=()))


def assert_same_gallery(read: Inversion, written: Inversion) -> None:
    def flat(found: Inversion) -> list[torch.Tensor]:
        shown = [[exhibit.private, *(one.pixels for one in exhibit.rebuilt)] for exhibit in found.gallery]
        return [pixels for several in shown for pixels in several if pixels is not None]

    def words(found: Inversion) -> str:
        return repr(
            [
                (
                    exhibit.name,
                    exhibit.private is None,
                    [(one.attack, one.seed, one.confidence, one.right, one.reached) for one in exhibit.rebuilt],
                )
                for exhibit in found.gallery
            ]
        )

    assert words(read) == words(written)
    for one, other in zip(flat(read), flat(written), strict=True):
        assert one.dtype == torch.uint8
        assert torch.equal(one, other)


def assert_same(read: Audit, written: Audit) -> None:
    assert repr(without_pixels(read)) == repr(without_pixels(written))  # repr, since NaN differs from itself
    if read.inversion and written.inversion:
        assert_same_gallery(read.inversion, written.inversion)
    assert len(read.exhibits) == len(written.exhibits)
    for one, other in zip(read.exhibits, written.exhibits, strict=True):
        assert (one.part, one.attack, one.selection, one.seed) == (other.part, other.attack, other.selection, other.seed)
        assert one.pixels.dtype == torch.uint8
        assert torch.equal(one.pixels, other.pixels)


intervals = st.builds(Interval, st.floats(), st.floats(), st.floats())
values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
attacks = st.builds(
    AttackResult,
    name=st.text(),
    part=st.sampled_from(["train", "inference"]),
    selection=st.sampled_from(["only", "best", "last"]),
    seed=st.integers(),
    access=st.sampled_from(["labels", "logits", "features", "weights"]),
    pictures=st.integers(),
    mse=intervals,
    psnr=intervals,
    psnr_mean=intervals,
    ssim=intervals,
    lpips=st.none() | intervals,
    seconds=st.floats(),
    queries=st.integers(),
    settings=st.dictionaries(st.text(), values | st.lists(values), max_size=3),
    regions=st.dictionaries(st.sampled_from(["inside", "outside"]), intervals),
    recognized=st.none() | st.builds(Recognition, st.text(), intervals, st.floats(), intervals),
)
certificates = st.builds(
    Certificate,
    name=st.text(),
    statement=st.text(),
    floor=st.none() | st.floats(),
    values=st.dictionaries(st.text(), st.floats(), max_size=3),
    assumptions=st.lists(st.text(), max_size=2).map(tuple),
)
bounds = st.builds(Bound, *(st.none() | st.floats() for _ in range(3)), st.text())
curves = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=5).map(
    lambda pairs: Roc(tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs))
)
inferences = st.builds(
    MembershipResult,
    name=st.text(),
    seed=st.integers(),
    access=st.sampled_from(["labels", "logits", "features", "weights"]),
    members=st.integers(),
    nonmembers=st.integers(),
    targets=st.integers(),
    references=st.integers(),
    adaptive=st.booleans(),
    auc=intervals,
    tpr_at_1=bounds,
    tpr_at_01=bounds,
    balanced_accuracy=intervals,
    advantage=intervals,
    epsilon=st.floats(),
    roc=curves,
    slices=st.dictionaries(
        st.text(), st.builds(Slice, st.integers(), st.integers(), st.floats(), intervals, intervals), max_size=2
    ),
    seconds=st.floats(),
    queries=st.integers(),
    settings=st.dictionaries(st.text(), values | st.lists(values), max_size=3),
)
memberships = st.builds(
    Membership,
    results=st.lists(inferences, max_size=3).map(tuple),
    members=st.integers(),
    nonmembers=st.integers(),
    duplicates=st.integers(),
    accuracy=st.tuples(intervals, intervals),
    references=st.integers(),
    canaries=st.text(),
    untested=st.lists(st.text(), max_size=2).map(tuple),
    seeds=st.lists(st.integers(), max_size=3).map(tuple),
    versions=st.dictionaries(st.text(), st.text(), max_size=3),
    hardware=st.text(),
    title=st.text(),
)

inverted = st.builds(
    InversionResult,
    name=st.text(),
    seed=st.integers(),
    access=st.sampled_from(["labels", "logits", "features", "weights"]),
    prior=st.text(),
    identities=st.integers(),
    per_class=st.integers(),
    top1=intervals,
    top5=intervals,
    confidence=intervals,
    named=intervals,
    knn=intervals,
    centroid=intervals,
    frechet=st.floats(),
    kid=st.floats(),
    face=st.none() | intervals,
    factors=st.none() | intervals,
    unreached=st.integers(0, 20),
    classes=st.lists(st.builds(ClassResult, st.text(), st.floats(), st.floats(), st.floats(), st.booleans()), max_size=2).map(
        tuple
    ),
    seconds=st.floats(),
    queries=st.integers(),
    settings=st.dictionaries(st.text(), values | st.lists(values), max_size=3),
)
yardsticks = st.builds(Yardstick, intervals, intervals, st.floats(), st.floats(), intervals, st.none() | intervals)
inversions = st.builds(
    Inversion,
    results=st.lists(inverted, max_size=3).map(tuple),
    identities=st.integers(),
    outputs=st.integers(1, 1000),
    evaluator=st.builds(EvaluatorFacts, st.text(), intervals, st.floats(0, 1), st.integers()),
    floor=yardsticks,
    ceiling=yardsticks,
    priors=st.lists(st.builds(PriorFacts, st.text(), st.floats(), intervals, st.integers(), st.text()), max_size=2).map(tuple),
    overlap=st.integers(),
    untested=st.lists(st.text(), max_size=2).map(tuple),
    seeds=st.lists(st.integers(), max_size=3).map(tuple),
    versions=st.dictionaries(st.text(), st.text(), max_size=3),
    hardware=st.text(),
    title=st.text(),
    gallery=st.sampled_from([(), (exhibit(),), (exhibit("ben", pixels(3, seed=5)), exhibit())]),
)
compressions = st.builds(
    Compression, *(st.integers() for _ in range(6)), milliseconds=st.none() | st.tuples(st.floats(), st.floats())
)
audits = st.builds(
    audit,
    title=st.text(),
    accuracy=st.just(0.5),
    attacks=st.lists(attacks, max_size=3).map(tuple),
    untested=st.lists(st.text(), max_size=3).map(tuple),
    seeds=st.lists(st.integers(), max_size=3).map(tuple),
    versions=st.dictionaries(st.text(), st.text(), max_size=3),
    hardware=st.text(),
    certificates=st.lists(certificates, max_size=2).map(tuple),
    task=st.sampled_from(["classification", "reidentification"]),
    utility=st.dictionaries(st.text(), intervals, max_size=4),
    membership=st.none() | memberships,
    inversion=st.none() | inversions,
    target=st.builds(replace, st.just(target()), cut=st.text(max_size=2), compression=st.none() | compressions),
)
