# SPDX-License-Identifier: Apache-2.0
"""A judge of another architecture than the target's, which is measured on people that it knows in pictures that it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import quadrants
import sfumato as sf
from quadrants import CPU, SHAPE
from sfumato.defenses.compose import Compose
from sfumato.errors import ConfigError, ModelError, UnknownNameError, WeightsError
from sfumato.evaluator import Evaluator
from sfumato.files import write_tensors
from sfumato.judge import assemble_judge, prepare_judge, teach_judge
from sfumato.models.resolve import build_model
from sfumato.target import Target

OTHER = nn.Linear(1, 1)


def flat(classes: int, shape: tuple[int, int, int]) -> nn.Module:
    """Embeds a picture as no vector."""
    del classes, shape
    return nn.AvgPool2d(4)


def headless(classes: int, shape: tuple[int, int, int]) -> nn.Module:
    """Names the brightest quarter, with no linear layer."""
    del classes, shape
    return nn.Sequential(nn.AvgPool2d(4), nn.Flatten())


def test_it_tells_what_its_last_layer_is_given_and_what_that_says() -> None:
    judge = quadrants.court(evaluator=Evaluator(model="quadrants:brightest", face="quadrants:pooled")).judge
    quarters = torch.rand(5, 4)
    seen = judge(quadrants.shown(quarters))
    assert torch.allclose(seen.embedding, quarters, atol=1e-6)
    assert torch.allclose(seen.logits, 10 * quarters, atol=1e-5)
    assert seen.face is not None
    assert torch.allclose(seen.face, 2 * quarters, atol=1e-6)


def test_stored_pictures_are_seen_as_any_in_batches_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    judge, test = quadrants.court().judge, quadrants.people().part("test")
    whole = judge(test.read(torch.arange(len(test))) / 255)
    monkeypatch.setattr("sfumato.judge.BATCH", 5)
    for seen in (judge.read(test), judge(test.read(torch.arange(len(test))) / 255)):
        assert torch.equal(seen.logits, whole.logits)
        assert torch.equal(seen.embedding, whole.embedding)
        assert seen.face is None


def test_modes_are_left_as_they_are_found() -> None:
    judge = quadrants.court().judge
    judge.network.train()
    judge(torch.rand(2, *SHAPE))
    assert judge.network.training


def test_it_learns_the_private_pictures_and_is_measured_on_the_held_out_ones() -> None:
    data = quadrants.people(each=20)
    evaluator = Evaluator(model="cnn4", epochs=4, flip=False, gate=0.9)
    judge = prepare_judge(evaluator, data, quadrants.target(), device=CPU)
    facts = judge.facts(data)
    assert (facts.model, facts.gate, facts.trusted) == ("cnn4", 0.9, True)
    assert facts.accuracy.value > 0.95
    assert facts.parameters == sum(parameter.numel() for parameter in build_model("cnn4", classes=4, shape=SHAPE).parameters())
    swapped = data.with_parts(test=data.part("test").relabeled((data.part("test").labels + 1) % 4, {}))
    assert judge.facts(swapped).accuracy.value < 0.05
    assert not judge.facts(swapped).trusted


def test_it_is_trained_on_part_private_alone_with_flips_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("sfumato.judge.train_classifier", lambda *given, **_: seen.append(given[1:]))
    data = quadrants.people()
    for flip in (True, False):
        judge = assemble_judge(Evaluator(model="cnn4", epochs=3, flip=flip), data, OTHER, device=CPU)
        teach_judge(judge, data)
        pictures, settings = seen[-1]
        assert pictures is data.part("private")
        assert (settings.epochs, settings.augment.flip, settings.augment.idle) == (3, flip, not flip)


def test_one_with_weights_is_not_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfumato.judge.train_classifier", lambda *_, **__: pytest.fail("trained"))
    file = write_tensors(tmp_path / "given.safetensors", quadrants.brightest(4, SHAPE, gain=3.0).state_dict())
    evaluator = Evaluator(model="quadrants:brightest", weights=file)
    judge = prepare_judge(evaluator, quadrants.people(), OTHER, device=CPU)
    assert judge(torch.ones(1, *SHAPE)).logits.tolist() == [[3.0] * 4]
    assert judge.facts(quadrants.people()).accuracy.value == 1


def test_weights_of_the_users_own_embedding_are_loaded(tmp_path: Path) -> None:
    kernel = torch.full((1, 1, 4, 4), 0.5 / 16)
    file = write_tensors(tmp_path / "face.safetensors", {"0.weight": kernel})
    evaluator = Evaluator(model="cnn4", face="quadrants:pooled", face_weights=file, face_size=16)
    judge = assemble_judge(evaluator, quadrants.people(), OTHER, device=CPU)
    face = judge(torch.ones(1, *SHAPE)).face
    assert face is not None
    assert face.tolist() == [[0.5] * 16]
    foreign = write_tensors(tmp_path / "foreign.safetensors", {"1.weight": kernel})
    evaluator = Evaluator(model="cnn4", face="quadrants:pooled", face_weights=foreign)
    with pytest.raises(WeightsError, match="foreign.safetensors holds the weights of another model"):
        assemble_judge(evaluator, quadrants.people(), OTHER, device=CPU)


@pytest.mark.parametrize("face", ["test_judge:flat", "nowhere:net"])
def test_an_embedding_that_is_none_is_said(face: str) -> None:
    evaluator = Evaluator(model="cnn4", face=face)
    error, message = (UnknownNameError, "no module") if "nowhere" in face else (ModelError, r"\(3, E\), found \(3, 1, 2, 2\)")
    with pytest.raises(error, match=message):
        assemble_judge(evaluator, quadrants.people(), OTHER, device=CPU)(torch.ones(3, *SHAPE))


@pytest.mark.parametrize(
    ("model", "options", "known_as", "target"),
    [
        ("cnn4", {}, None, "cnn4"),
        ("vgg11", {"width": 0.25}, None, "vgg11"),
        ("vgg11", {"width": 0.25}, "vgg11", "pruned"),
    ],
)
def test_a_judge_of_the_targets_own_architecture_is_refused(
    model: str, options: dict[str, object], known_as: str | None, target: str
) -> None:
    net = OTHER if target == "pruned" else build_model(target, classes=4, shape=SHAPE, options=options, seed=3)
    attacked = net if target == "pruned" else sf.split(net, at="c1")
    with pytest.raises(ConfigError, match=f"of another architecture than the target, found {model} for both; name another"):
        assemble_judge(Evaluator(model=model, options=options), quadrants.people(), attacked, known_as=known_as, device=CPU)


def test_a_defense_with_weights_of_its_own_does_not_hide_the_architecture() -> None:
    defense = sf.Noise(sigma=0.1)
    defense.register_parameter("scale", nn.Parameter(torch.ones(1)))
    attacked = Target(sf.split(build_model("cnn4", classes=4, shape=SHAPE), at="c1"), Compose(defense))
    with pytest.raises(ConfigError, match="found cnn4 for both"):
        assemble_judge(Evaluator(model="cnn4"), quadrants.people(), attacked, device=CPU)


def test_a_judge_of_the_targets_name_is_refused_whatever_its_options() -> None:
    net = build_model("cnn4", classes=4, shape=SHAPE)
    with pytest.raises(ConfigError, match="found cnn4 for both"):
        assemble_judge(Evaluator(model="cnn4", options={"width": 0.5}), quadrants.people(), net, known_as="cnn4", device=CPU)


def test_a_judge_without_an_embedding_is_refused_before_it_is_trained() -> None:
    with pytest.raises(ModelError, match="an embedding is what the last layer of a model is given"):
        assemble_judge(Evaluator(model="test_judge:headless"), quadrants.people(), OTHER, device=CPU)
