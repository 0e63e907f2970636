# SPDX-License-Identifier: Apache-2.0
"""The transformer over classes against literal NumPy, and what it makes of sensitivities."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from membership_toys import gaussian
from sfumato.attacks.predictions.base import Answers
from sfumato.attacks.predictions.samia import Samia, SelfAttention
from sfumato.attacks.predictions.threshold import Threshold
from sfumato.errors import ConfigError


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def gelu(x: np.ndarray) -> np.ndarray:
    return np.asarray(x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))))


def normalized(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray((x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * w + b)


def literal(state: dict[str, np.ndarray], p: np.ndarray, sensitivity: np.ndarray, label: np.ndarray) -> float:
    """What the network says of one example, a token at a time."""
    given = np.concatenate([p, sensitivity, label])
    given = (given - state["norm.running_mean"]) / np.sqrt(state["norm.running_var"] + 1e-5)
    given = given * state["norm.weight"] + state["norm.bias"]
    classes = len(p)
    tokens = np.stack([given[[k, classes + k, 2 * classes + k]] for k in range(classes)])
    x = gelu(tokens @ state["token.weight"].T + state["token.bias"])
    for layer in range(3):
        own = {name.split(".", 3)[3]: value for name, value in state.items() if name.startswith(f"encoder.layers.{layer}.")}
        query, key, value = np.split(x @ own["self_attn.in_proj_weight"].T + own["self_attn.in_proj_bias"], 3, axis=1)
        heads = [
            softmax(query[:, part] @ key[:, part].T / math.sqrt(16)) @ value[:, part]
            for part in (slice(16 * head, 16 * head + 16) for head in range(4))
        ]
        attended = np.concatenate(heads, 1) @ own["self_attn.out_proj.weight"].T + own["self_attn.out_proj.bias"]
        x = normalized(x + attended, own["norm1.weight"], own["norm1.bias"])
        inner = gelu(x @ own["linear1.weight"].T + own["linear1.bias"]) @ own["linear2.weight"].T + own["linear2.bias"]
        x = normalized(x + inner, own["norm2.weight"], own["norm2.bias"])
    hidden = np.maximum(0, state["head.0.weight"] @ x.flatten() + state["head.0.bias"])
    return float((state["head.2.weight"] @ hidden + state["head.2.bias"])[0])


def test_the_network_is_a_transformer_over_classes() -> None:
    network = SelfAttention(3)
    with torch.no_grad():  # statistics that are not 0 and 1
        for _ in range(3):
            network(torch.randn(16, 3), torch.rand(16, 3), torch.eye(3)[torch.randint(3, (16,))])
    network.eval()
    state = {name: value.double().numpy() for name, value in network.state_dict().items()}
    logits, sensitivity, label = torch.randn(4, 3), torch.rand(4, 3), torch.eye(3)[torch.randint(3, (4,))]
    found = network(logits, sensitivity, label).tolist()
    for row in range(4):
        p = softmax(logits[row].double().numpy())
        assert found[row] == pytest.approx(literal(state, p, sensitivity[row].numpy(), label[row].numpy()), abs=1e-4)


def test_sensitivities_alone_tell_members_where_answers_do_not() -> None:
    toy = gaussian(600, models=4, shift=0.0)
    references = toy.evidence.references
    assert references is not None

    def marked(answers: Answers, member: Tensor) -> Answers:
        return Answers(answers.logits, torch.where(member, 0.1, 1.0).unsqueeze(1) * torch.rand(len(member), 4))

    others = tuple(marked(one, row) for one, row in zip(references.answers, references.keep, strict=True))
    evidence = replace(
        toy.evidence, target=marked(toy.evidence.target, toy.member), references=replace(references, answers=others)
    )
    assert abs(toy.auc(Threshold()(evidence).scores) - 0.5) < 0.1
    assert toy.auc(Samia()(evidence).scores) > 0.95


def test_it_looks_at_the_example_itself() -> None:
    evidence = gaussian(100, models=2, views=3).evidence
    assert evidence.references is not None

    def first(answers: Answers) -> Answers:
        return Answers(answers.logits[:, :1], answers.sensitivity)

    alone = replace(
        evidence, target=first(evidence.target),
        references=replace(evidence.references, answers=tuple(first(one) for one in evidence.references.answers)),
    )  # fmt: skip
    assert torch.equal(Samia(epochs=1)(evidence).scores, Samia(epochs=1)(alone).scores)


def test_references_must_have_been_asked_for_their_sensitivity_too() -> None:
    evidence = gaussian(40, models=2).evidence
    assert evidence.references is not None
    answers = tuple(Answers(one.logits) for one in evidence.references.answers)
    with pytest.raises(ConfigError, match="of all 2 reference models is needed, found that of 0"):
        Samia()(replace(evidence, references=replace(evidence.references, answers=answers)))


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be at least 1"):
        Samia(rows=0)
