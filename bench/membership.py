# SPDX-License-Identifier: Apache-2.0
"""Membership inference beside the Adversarial Robustness Toolbox: the same targets, the same examples, CPU time and strength.

Two jobs: A, 5,000 members and 20 epochs, hardly overfits; B, 1,000 members and 60 epochs, does. Both tools attack the network
that ART trained, are given half of the examples with their membership, and are measured on the other half. ART runs each of its
attacks that learn from answers, and shadow models. Ours are the score-based ones, LiRA and RMIA with 16 reference models among
them; training these counts. They train for 2 epochs where the target had 20 or 60: sixteen whole trainings cost more than all of
ART. What LiRA and RMIA reach here is less than they could; online LiRA, which compares the target with models like it, suffers
most.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

import sfumato as sf
from bench.row import Row
from sfumato.attacks.naming import named_attacks
from sfumato.attacks.predictions.base import Evidence, MembershipAttack
from sfumato.attacks.predictions.lira import LiRA
from sfumato.data.resident import ResidentPictures
from sfumato.metrics.membership import auc, tpr_at
from sfumato.reference import answer
from sfumato.target import Target

OURS: Mapping[str, MembershipAttack] = {
    **named_attacks(
        ("gap", "loss", "confidence", "entropy", "modified-entropy", "shokri", "salem", "nasr", "lira", "rmia"), MembershipAttack
    ),
    "lira, offline": LiRA(online=False),
}
REFERENCES = 16


@dataclass(frozen=True)
class Job:
    """One of the two jobs.

    Attributes:
        name: "A" or "B".
        members: how many; as many others are not.
        epochs: of the target.
        reference_epochs: of each reference model.
    """

    name: str
    members: int
    epochs: int
    reference_epochs: int


JOBS = (Job("A", 5000, 20, 2), Job("B", 1000, 60, 2))


def run() -> list[Row]:
    """Run both jobs with both tools."""
    try:
        import art  # noqa: F401
    except ImportError as error:
        raise SystemExit(f"this benchmark needs ART: `make bench` installs it ({error})") from error
    return [row for job in JOBS for row in _rows(job)]


def _rows(job: Job) -> list[Row]:
    x, y = _examples(2 * job.members)
    classifier = _fitted(job, x[: job.members], y[: job.members])
    known = np.arange(2 * job.members) % job.members < job.members // 2
    art = _art(classifier, x, y, known, job)
    ours = _sfumato(classifier.model, x, y, known, job)
    best = {measure: max(result[measure] for result in art.values()) for measure in ("auc", "tpr_at_1")}
    mine = {measure: max(result[measure] for result in ours["attacks"].values()) for measure in ("auc", "tpr_at_1")}
    spent = sum(result["cpu_s"] for result in art.values())
    details = {"art": art, "sfumato": ours, "art_cpu_s": spent, "sfumato_cpu_s": ours["cpu_s"]}
    return [
        Row(f"membership, job {job.name}: CPU time of ours over ART's", ours["cpu_s"] / spent, "", "<=", 1.0, details),
        Row(f"membership, job {job.name}: AUC of ours less ART's best", mine["auc"] - best["auc"], "", ">=", 1e-9),
        Row(f"membership, job {job.name}: TPR at 1 % FPR, ours less ART's", mine["tpr_at_1"] - best["tpr_at_1"], "", ">=", 1e-9),
    ]


def _examples(count: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Draw pictures like digits: ten blurred patterns under noise, a tenth of the labels drawn anew."""
    draw = np.random.default_rng(0)
    patterns = np.kron(draw.normal(size=(10, 7, 7)), np.ones((4, 4))) * 0.35
    truth = draw.integers(0, 10, count)
    x = patterns[truth] + 0.9 * draw.normal(size=(count, 28, 28))
    y = np.where(draw.random(count) < 0.1, draw.integers(0, 10, count), truth)
    return x[:, None].astype(np.float32), y.astype(np.int64)


def _lenet(seed: int) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
        )  # fmt: skip


def _classifier(seed: int) -> Any:
    """Return ART's wrapper of a fresh network."""
    from art.estimators.classification import PyTorchClassifier

    network = _lenet(seed)
    return PyTorchClassifier(
        network,
        loss=nn.CrossEntropyLoss(),
        optimizer=torch.optim.Adam(network.parameters(), lr=1e-3),
        input_shape=(1, 28, 28),
        nb_classes=10,
        device_type="cpu",
    )


def _fitted(job: Job, x: npt.NDArray[np.float32], y: npt.NDArray[np.int64]) -> Any:
    """Train the target as a user of ART does."""
    np.random.seed(0)  # noqa: NPY002 -- ART shuffles by it
    made = _classifier(0)
    made.fit(x, y, batch_size=128, nb_epochs=job.epochs)
    return made


def _art(
    classifier: Any, x: npt.NDArray[np.float32], y: npt.NDArray[np.int64], known: npt.NDArray[np.bool_], job: Job
) -> dict[str, dict[str, float]]:
    """Run ART's attacks: those that learn of the known half, the rule, and shadow models."""
    from art.attacks.inference.membership_inference import (
        MembershipInferenceBlackBox,
        MembershipInferenceBlackBoxRuleBased,
        ShadowModels,
    )

    member = np.arange(len(x)) < job.members
    inside, outside, asked = known & member, known & ~member, ~known

    def learned(kind: str, inputs: str = "prediction") -> npt.NDArray[np.float64]:
        attack = MembershipInferenceBlackBox(classifier, attack_model_type=kind, input_type=inputs)
        attack.fit(x[inside], y[inside], x[outside], y[outside])
        return _flat(attack.infer(x[asked], y[asked], probabilities=True))

    def rule() -> npt.NDArray[np.float64]:
        return _flat(MembershipInferenceBlackBoxRuleBased(classifier).infer(x[asked], y[asked]))

    def shadows() -> npt.NDArray[np.float64]:
        models = ShadowModels(_classifier(1), num_shadow_models=4)
        sides = models.generate_shadow_dataset(x[outside], np.eye(10, dtype=np.float32)[y[outside]])
        (_, inner_y, inner), (_, outer_y, outer) = sides
        attack = MembershipInferenceBlackBox(classifier, attack_model_type="rf")
        attack.fit(None, inner_y, None, outer_y, pred=inner, test_pred=outer)
        return _flat(attack.infer(x[asked], y[asked], probabilities=True))

    attacks: Mapping[str, Callable[[], npt.NDArray[np.float64]]] = {
        **{f"black box, {kind}": lambda kind=kind: learned(kind) for kind in ("nn", "rf", "gb", "lr")},  # type: ignore[misc]
        "black box, nn on the loss": lambda: learned("nn", "loss"),
        "rule": rule,
        "shadow models, rf": shadows,
    }
    found = {}
    for name, attack in attacks.items():
        torch.manual_seed(0)
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scores = attack()
        spent = time.process_time() - start
        found[name] = {**_strength(torch.from_numpy(scores), torch.from_numpy(member[asked])), "cpu_s": spent}
    return found


def _sfumato(
    network: nn.Module, x: npt.NDArray[np.float32], y: npt.NDArray[np.int64], known: npt.NDArray[np.bool_], job: Job
) -> dict[str, Any]:
    """Run ours: train the references, ask everybody, attack."""
    start = time.process_time()
    pictures = ResidentPictures(torch.from_numpy(x), torch.from_numpy(y))
    member = torch.arange(len(x)) < job.members
    data = sf.Data(
        "digits", tuple(map(str, range(10))), {"train": pictures, "test": pictures.subset(torch.arange(10)), "private": pictures}
    )
    game = sf.Game(sf.play(data, members=job.members))
    order = sf.Train(
        epochs=job.reference_epochs,
        batch_size=64,
        optimizer=sf.Optimizer(name="adam", learning_rate=5e-3, weight_decay=0),
    )

    def training(half: sf.Data, seed: int) -> Target:
        return sf.harden(sf.whole(_lenet(seed)), half, train=order, seed=seed)

    references = sf.train_references(training, game, count=REFERENCES, workers=1)
    trained = time.process_time() - start
    told = torch.where(torch.from_numpy(known), member.long(), -1)
    evidence = Evidence(
        target=answer(Target(sf.whole(network), sf.Compose()), pictures),
        labels=pictures.labels,
        references=references,
        known=told,
    )
    asked, attacks = torch.from_numpy(~known), {}
    for name, attack in OURS.items():
        begun = time.process_time()
        scores = attack(evidence).scores[asked]
        attacks[name] = {**_strength(scores, member[asked]), "cpu_s": time.process_time() - begun}
    return {"attacks": attacks, "references_cpu_s": trained, "cpu_s": time.process_time() - start}


def _flat(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64).reshape(len(values), -1)[:, -1]


def _strength(scores: Tensor, member: Tensor) -> dict[str, float]:
    rate = tpr_at(scores.double(), member, 0.01).value
    assert rate is not None
    return {"auc": auc(scores.double(), member).value, "tpr_at_1": rate}
