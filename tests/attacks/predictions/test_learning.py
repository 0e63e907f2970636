# SPDX-License-Identifier: Apache-2.0
"""What learned attacks share: which rows they learn from, and the loop that trains on them, against literal NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from membership_toys import gaussian, memorizing
from sfumato.attacks.predictions import learning
from sfumato.attacks.predictions.learning import fit, from_known, from_references, mean_over_views, sample
from sfumato.errors import ConfigError, DataError
from sfumato.seeds import generator


def test_all_answers_are_rows_where_there_are_not_too_many() -> None:
    evidence = gaussian(30, models=3, views=2).evidence
    rows = sample(from_references(evidence), 1000, generator(0))
    references = evidence.references
    assert references is not None
    expected = [
        (model.logits[example, view], evidence.labels[example], kept[example])
        for model, kept in zip(references.answers, references.keep, strict=True)
        for example in range(30)
        for view in range(2)
    ]
    logits, labels, member = (torch.stack(column) for column in zip(*expected, strict=True))
    assert torch.equal(rows.logits, logits)
    assert torch.equal(rows.labels, labels)
    assert torch.equal(rows.member, member.float())
    assert rows.sensitivity is None


def test_a_sample_is_drawn_from_every_model_and_view_where_there_are_more() -> None:
    evidence = gaussian(50, models=4, views=3).evidence
    lessons = from_references(evidence)
    every, some, other = (
        sample(lessons, 600, generator(0)),
        sample(lessons, 100, generator(0)),
        sample(lessons, 100, generator(1)),
    )
    assert len(every.member) == 600
    assert len(some.member) == 100
    assert not torch.equal(some.logits, other.logits)
    places = [
        ((every.logits == row).all(1) & (every.labels == label)).nonzero()[0, 0]
        for row, label in zip(some.logits, some.labels, strict=True)
    ]
    assert torch.equal(every.member[torch.stack(places)], some.member)
    assert {int(place) // 150 for place in places} == {0, 1, 2, 3}
    assert {int(place) % 3 for place in places} == {0, 1, 2}


def test_sensitivities_come_with_the_example_itself() -> None:
    evidence = gaussian(20, models=2, views=3).evidence
    rows = sample(from_references(evidence), 1000, generator(0), sensitivity=True)
    references = evidence.references
    assert references is not None
    assert torch.equal(rows.logits, torch.cat([one.logits[:, 0] for one in references.answers]))
    assert rows.sensitivity is not None
    assert torch.equal(
        rows.sensitivity, torch.cat([one.sensitivity for one in references.answers if one.sensitivity is not None])
    )


def test_a_reference_without_sensitivity_is_refused() -> None:
    evidence = gaussian(20, models=2).evidence
    assert evidence.references is not None
    first, second = evidence.references.answers
    references = replace(evidence.references, answers=(first, replace(second, sensitivity=None)))
    with pytest.raises(ConfigError, match="of all 2 reference models is needed, found that of 1"):
        sample(from_references(replace(evidence, references=references)), 100, generator(0), sensitivity=True)


def test_the_target_teaches_about_known_examples_only() -> None:
    toy = gaussian(40, models=0, views=2)
    rows = sample(from_known(toy.evidence), 1000, generator(0))
    assert torch.equal(rows.logits, toy.evidence.target.logits[~toy.asked].flatten(0, 1))
    assert torch.equal(rows.member, toy.member[~toy.asked].repeat_interleave(2).float())


def test_members_are_counted_by_class_over_all_models() -> None:
    evidence = gaussian(60, models=3).evidence
    counts = from_references(evidence).counts()
    assert evidence.references is not None
    for place in range(4):
        own = evidence.references.keep[:, evidence.labels == place]
        assert counts[:, place].tolist() == [int((~own).sum()), int(own.sum())]


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_members_are_refused(count: int) -> None:
    evidence = memorizing(40, models=2).evidence
    assert evidence.references is not None
    keep = torch.zeros_like(evidence.references.keep)
    keep[0, :count] = True
    lessons = from_references(replace(evidence, references=replace(evidence.references, keep=keep)))
    with pytest.raises(DataError, match=rf"mine learns .* of all classes, found {count} and {80 - count}"):
        lessons.require("mine")


class Logistic(nn.Module):
    """Logistic regression from zero; counts the rows that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        logit: Tensor = self.layer(x)
        return logit[:, 0]


def test_training_is_descent_on_the_cross_entropy_with_a_moving_rate() -> None:
    x, member = torch.randn(12, 3), (torch.rand(12) < 0.5).float()
    network = Logistic()
    fit(
        network, (x,), member, optimizer=torch.optim.SGD(network.parameters(), lr=0.5), epochs=4, batch_size=12,
        stream=generator(0), factor=lambda share: 1 - share,
    )  # fmt: skip
    weight, bias = np.zeros(3), 0.0
    for epoch in range(4):
        error = 1 / (1 + np.exp(-(x.numpy() @ weight + bias))) - member.numpy()
        rate = 0.5 * (1 - epoch / 4)
        weight, bias = weight - rate * (error[:, None] * x.numpy()).mean(0), bias - rate * error.mean()
    assert network.layer.weight.detach().numpy()[0] == pytest.approx(weight, abs=1e-6)
    assert network.layer.bias.item() == pytest.approx(bias, abs=1e-6)
    assert not network.training


def test_every_epoch_sees_every_row_once() -> None:
    seen: list[Tensor] = []
    network = Logistic()
    network.register_forward_hook(lambda module, given, out: seen.append(given[0][:, 0]))
    x = torch.arange(10).float().unsqueeze(1).expand(-1, 3)
    fit(network, (x,), torch.ones(10), optimizer=learning.adam(network, 1e-9), epochs=2, batch_size=4, stream=generator(0))
    assert [len(batch) for batch in seen] == [4, 4, 2] * 2
    first, second = torch.cat(seen[:3]), torch.cat(seen[3:])
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(10))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("chunk", [1, 7, 8192])
def test_what_a_network_says_of_views_is_averaged_whatever_the_chunks(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "_CHUNK", chunk)

    class Sum(nn.Module):
        def forward(self, logits: Tensor, other: Tensor) -> Tensor:
            return logits.sum(1) * other[:, 0]

    logits, other = torch.randn(5, 3, 4), torch.randn(5, 2)
    found = mean_over_views(Sum(), logits, other)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx([float(logits[n].sum() / 3 * other[n, 0]) for n in range(5)], abs=1e-5)
