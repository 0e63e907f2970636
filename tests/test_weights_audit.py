# SPDX-License-Identifier: Apache-2.0
"""A classifier that is there and people in, an audit of its weights out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import quadrants
import sfumato as sf
from sfumato.attacks.weights.brepmi import BREPMI
from sfumato.attacks.weights.gmi import GMI
from sfumato.attacks.weights.kedmi import KEDMI
from sfumato.data.identities import disjoint
from sfumato.data.resident import ResidentPictures
from sfumato.defenses.base import Defense
from sfumato.defenses.compose import Compose
from sfumato.errors import ConfigError, DataError, ModelError, UnknownNameError
from sfumato.inversion_types import ClassPictures, Inversion
from sfumato.priors import for_target
from sfumato.priors.base import Prior, PriorKind
from sfumato.priors.settings import SMOKE, PriorSettings
from sfumato.priors.train import new_prior
from sfumato.target import Target

TINY = PriorSettings(width=4, latent=8, steps=1, batch_size=4)
JUDGE = sf.Evaluator(model="lenet5", epochs=1, gate=0.0)
KEEN = sf.Evaluator(model="quadrants:brightest", epochs=1, flip=False)
QUICK = GMI(steps=2, per_class=2)


class Quarters(nn.Module):
    """The first four latents are how white the quarters of a picture are."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(4.0))

    def forward(self, latent: Tensor) -> Tensor:
        return quadrants.shown(torch.sigmoid(self.gain * latent[:, :4]))


class Flat(nn.Module):
    """A critic that likes every picture."""

    def forward(self, x: Tensor) -> Tensor:
        return 0 * x.mean((1, 2, 3))


def quarters_prior() -> Prior:
    return Prior("gan", Quarters(), Flat(), latent=8, image_shape=quadrants.SHAPE)


def tiny(kind: PriorKind = "gan", shape: tuple[int, int, int] = (1, 8, 8)) -> Prior:
    return new_prior(kind, shape, TINY, classes=4)


@pytest.fixture(scope="module")
def people() -> sf.Data:
    return quadrants.people(4, each=8)


@pytest.fixture
def audit(people: sf.Data) -> Callable[..., Inversion]:
    net = sf.build_model("cnn4", classes=4, shape=quadrants.SHAPE, options={"width": 0.25})

    def run(target: object = net, data: sf.Data = people, attacks: object = QUICK, **named: object) -> Inversion:
        asked = {"priors": {"gan": tiny()}, "evaluator": JUDGE, **named}
        return sf.audit_inversion(target, data, attacks, **asked)  # type: ignore[arg-type]

    return run


def test_an_attack_rebuilds_what_a_target_knows_and_the_evaluator_says_so(audit: Callable[..., Inversion]) -> None:
    found = audit(
        quadrants.target(),
        attacks=GMI(steps=60, per_class=3),
        priors={"gan": quarters_prior()},
        evaluator=KEEN,
        title="quarters",
    )
    strongest = found.strongest()
    assert found.evaluator.accuracy.value == 1
    assert strongest is not None
    assert strongest.top1.value == 1
    assert strongest.confidence.value > 0.99
    assert strongest.knn.value < found.ceiling.knn.value
    assert (found.title, found.outputs, found.identities, found.chance) == ("quarters", 4, 4, 0.25)


def test_an_audit_says_which_attacks_with_which_seeds_on_which_classes(audit: Callable[..., Inversion]) -> None:
    walks = BREPMI(per_class=1, budget=16, draws=4, directions=2)
    found = audit(attacks={"one": QUICK, "walks": walks}, seeds=(3, 4), classes=(2, 0))
    assert [(result.name, result.seed) for result in found.results] == [("one", 3), ("walks", 3), ("one", 4), ("walks", 4)]
    assert {tuple(one.name for one in result.classes) for result in found.results} == {("person 0", "person 2")}
    assert (found.identities, found.outputs, found.seeds) == (2, 4, (3, 4))
    assert found.results[1].queries > 0
    assert found.results[0].queries == 0


def test_attacks_are_named_as_in_the_registry(audit: Callable[..., Inversion], monkeypatch: pytest.MonkeyPatch) -> None:
    made = ClassPictures(torch.zeros(1, 2, *quadrants.SHAPE), torch.ones(1, dtype=torch.bool))
    monkeypatch.setattr(GMI, "invert", lambda *_: made)
    found = audit(attacks=["gmi-original", GMI(steps=1)], classes=[0])
    assert [(result.name, result.settings["steps"]) for result in found.results] == [("gmi-original", 1500), ("gmi", 1)]


class Blank(Defense):
    """Lets nothing of the features through."""

    name = "blank"

    def protect(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        return 0 * z


class Mute(Defense):
    """Answers the same to every picture."""

    name = "mute"

    def release(self, logits: Tensor) -> Tensor:
        return torch.zeros_like(logits)


@pytest.mark.parametrize(("defense", "found"), [(Blank, False), (Mute, True)])
def test_a_defended_target_is_attacked_as_deployed(defense: type[Defense], found: bool, audit: Callable[..., Inversion]) -> None:
    target = Target(quadrants.target().split, Compose(defense()))
    (result,) = audit(target, attacks=GMI(steps=60, per_class=2), priors={"gan": quarters_prior()}, evaluator=KEEN).results
    assert result.confidence.value == 0.25, "what it says of the pictures is what it says to everybody"
    assert (result.top1.value == 1) == found, "who has the weights does without the answers, and not without the features"


def test_a_module_a_split_and_a_target_are_the_same_and_are_left_as_they_are_found(audit: Callable[..., Inversion]) -> None:
    made = quadrants.target()
    made.train()
    before = {name: weight.clone() for name, weight in made.state_dict().items()}
    found = [audit(target) for target in (made, made.split, nn.Sequential(made.split))]
    assert len({(one.results[0].confidence, one.results[0].knn) for one in found}) == 1
    assert made.training
    assert all(torch.equal(before[name], weight) for name, weight in made.state_dict().items())
    assert all(weight.grad is None for weight in made.parameters())


def test_priors_that_are_given_are_taken_and_missing_ones_are_trained_once(
    audit: Callable[..., Inversion], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[str, PriorSettings]] = []

    def noted(kind: PriorKind, public: object, settings: PriorSettings, **named: object) -> Prior:
        trained.append((kind, settings))
        assert (named["view"] is not None) == (kind == "inversion"), "only such a prior learns from the target"
        return tiny(kind)

    monkeypatch.setattr(for_target, "train_prior", noted)
    both = {"gmi": QUICK, "again": GMI(steps=1), "kedmi": KEDMI(steps=2)}
    found = audit(attacks=both, seeds=(0, 1))
    assert [kind for kind, _ in trained] == ["inversion"]
    assert [(prior.kind, prior.source) for prior in found.priors] == [
        ("gan", "given"),
        ("inversion", "trained on 64 public pictures"),
    ]
    trained.clear()
    audit(attacks=both, priors="smoke")
    assert trained == [("gan", SMOKE["gan"]), ("inversion", SMOKE["inversion"])]


def test_private_pictures_are_there_only_where_they_are_asked_for(audit: Callable[..., Inversion], people: sf.Data) -> None:
    assert all(exhibit.private is None for exhibit in audit().gallery)
    shown = {exhibit.name: exhibit.private for exhibit in audit(show_private=True).gallery}
    private = people.part("private")
    for label, name in enumerate(people.classes):
        pixels = shown[name]
        assert pixels is not None
        assert torch.equal(pixels, private.read((private.labels == label).nonzero()[: len(pixels), 0]))


def test_the_watch_hears_of_everything_that_takes_time(audit: Callable[..., Inversion]) -> None:
    told: dict[str, tuple[int, int]] = {}
    audit(watch=lambda name, done, total: told.__setitem__(name, (done, total)))
    assert set(told) == {"evaluator of quadrants", "gmi"}
    assert all(done == total for done, total in told.values())


def test_pictures_that_were_left_out_are_counted(audit: Callable[..., Inversion], people: sf.Data) -> None:
    private, public = people.part("private"), people.part("public")
    twice = public.read(torch.arange(len(public)))
    twice[0] = private.read(torch.tensor([5]))[0]
    doubled = people.with_parts(public=ResidentPictures(twice, public.labels), pretrain=public.subset(torch.arange(0)))
    apart, left_out = disjoint(doubled, tolerated=0.1)
    assert audit(data=dataclasses.replace(apart, left_out=left_out)).overlap == 1


def _without(part: str) -> Callable[[sf.Data], sf.Data]:
    return lambda data: data.with_parts(**{part: data.part(part).subset(torch.arange(0))})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"attacks": ()}, ConfigError, "needs at least one attack, such as 'kedmi'"),
        ({"attacks": ["loss"]}, UnknownNameError, "no attack on weights named 'loss'"),
        ({"attacks": "kedm"}, UnknownNameError, "did you mean 'kedmi'"),
        ({"seeds": ()}, ConfigError, r"seeds must be one or more different numbers, got \[\]"),
        ({"seeds": (1, 1)}, ConfigError, "seeds must be one or more different numbers"),
        ({"classes": ()}, ConfigError, r"classes must be different numbers from 0 to 3, those of the target, got \[\]"),
        ({"classes": (0, 4)}, ConfigError, r"classes must be different numbers from 0 to 3, .* got \[0, 4\]"),
        ({"classes": (-1,)}, ConfigError, "classes must be different numbers from 0 to 3"),
        ({"classes": (2, 2)}, ConfigError, r"got \[2, 2\]; leave them out for all"),
        ({"priors": "smok"}, ConfigError, "priors must be one of smoke, full, got 'smok'"),
        ({"priors": {"gna": tiny()}}, ConfigError, "the kind of a prior must be one of gan, inversion, style, conditional, got"),
        ({"priors": {"gan": tiny("style")}}, ConfigError, "expected a prior of kind 'gan', found the prior .* of kind 'style'"),
        ({"priors": {"gan": tiny(shape=(1, 16, 16))}}, ConfigError, r"expected a prior of pictures \(1, 8, 8\)"),
        ({"data": _without("public")}, DataError, "needs pictures in part 'public' of quadrants, found none; part people with"),
        ({"data": _without("test")}, DataError, "needs pictures in part 'test'"),
        ({"target": quadrants.target(3)}, ModelError, "give its last layer 4 outputs"),
        ({"evaluator": sf.Evaluator(model="cnn4", options={"width": 0.25})}, ConfigError, "must be of another architecture"),
    ],
)
def test_what_cannot_be_audited_is_refused_before_anything_is_trained(
    change: dict[str, object],
    error: type[Exception],
    message: str,
    audit: Callable[..., Inversion],
    people: sf.Data,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sfumato.judge.train_classifier", lambda *_, **__: pytest.fail("trained"))
    monkeypatch.setattr(for_target, "train_prior", lambda *_, **__: pytest.fail("trained"))
    made = {name: value(people) if name == "data" else value for name, value in change.items()}  # type: ignore[operator]
    with pytest.raises(error, match=message):
        audit(**made)


def test_data_that_nobody_parted_are_refused(audit: Callable[..., Inversion]) -> None:
    whole = sf.load_data((torch.rand(40, 1, 8, 8), torch.arange(40) % 4))
    with pytest.raises(DataError, match="needs pictures in part 'public'.* part people with by_identity"):
        audit(data=whole)
