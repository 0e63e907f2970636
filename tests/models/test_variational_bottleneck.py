# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from sfumato.models.variational import Answers, Gaussian, Pass, VariationalBottleneck


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slow_divergence(mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    rows = zip(mean.astype(float), std.astype(float), strict=True)
    return np.array([sum(-0.5 * (1 + 2 * math.log(s) - m**2 - s**2) for m, s in zip(*row, strict=True)) for row in rows])


class TestBottleneck:
    def made(self, answers: Answers = "sample", draws: int = 8) -> VariationalBottleneck:
        return VariationalBottleneck(6, 3, width=2, answers=answers, draws=draws, shared=Pass())

    def test_features_become_a_mean_and_a_positive_deviation(self) -> None:
        layer, features = self.made(), torch.randn(5, 6)
        raw = layer.gaussian(features).detach().numpy().astype(float)
        found = layer.distribution(features)
        np.testing.assert_allclose(found.mean.detach(), raw[:, :2], atol=1e-6)
        np.testing.assert_allclose(found.std.detach(), np.log1p(np.exp(raw[:, 2:] - 5)), rtol=1e-4)

    def test_a_deviation_that_vanishes_has_a_finite_divergence_and_gradient(self) -> None:
        layer = self.made()
        with torch.no_grad():
            layer.gaussian.bias[2:] = -1e4
        found = layer.distribution(torch.zeros(3, 6)).divergence
        assert found.isfinite().all()
        found.sum().backward()
        assert layer.gaussian.bias.grad is not None
        assert layer.gaussian.bias.grad.isfinite().all()

    @pytest.mark.parametrize("training", [True, False])
    def test_one_sample_is_mean_and_deviation_times_noise(self, training: bool) -> None:
        layer, features = self.made().train(training), torch.randn(5, 6)
        layer.shared.stream = stream(3)
        found = layer.distribution(features)
        noise = torch.empty(1, 5, 2).normal_(generator=stream(3))[0]
        expected = (found.mean + found.std * noise) @ layer.classifier.weight.T + layer.classifier.bias
        torch.testing.assert_close(layer(features), expected)

    def test_the_mean_answers_without_noise(self) -> None:
        layer, features = self.made("mean").eval(), torch.randn(5, 6)
        torch.testing.assert_close(layer(features), nn.Linear.forward(layer.classifier, layer.distribution(features).mean))

    def test_the_expectation_is_that_of_the_probabilities_of_draws(self) -> None:
        layer, features = self.made("expectation", draws=5).eval(), torch.randn(4, 6)
        layer.gaussian.bias.data[2:] = 7.0  # a deviation of about 2
        layer.shared.stream = stream(3)
        found, noise = layer.distribution(features), torch.empty(5, 4, 2).normal_(generator=stream(3))
        draws = (nn.Linear.forward(layer.classifier, found.mean + found.std * one).softmax(1) for one in noise)
        expected = torch.stack(list(draws)).mean(0)
        answer = layer(features)
        torch.testing.assert_close(answer.exp(), expected)
        layer.classifier.answers = "mean"
        assert (layer(features).softmax(1) - expected).abs().max() > 1e-2  # another function than the answer of the mean

    def test_a_stream_is_for_one_pass_and_then_the_ambient_one_is_drawn_from(self) -> None:
        layer, features, handed = self.made().eval(), torch.randn(5, 6), stream(3)
        layer.shared.stream = handed
        layer(features)
        before = handed.get_state()
        torch.manual_seed(1)
        first = layer(features)
        torch.manual_seed(1)
        assert torch.equal(layer(features), first)
        assert torch.equal(handed.get_state(), before)

    def test_a_copy_shares_nothing_and_may_be_made_in_the_middle_of_a_step(self) -> None:
        layer = self.made()
        layer.shared.stream = stream()
        layer(torch.randn(5, 6)).sum()
        layer.shared.stream = stream()
        again = copy.deepcopy(layer)
        assert again.shared is again.classifier.shared
        assert again.shared is not layer.shared
        assert again.shared.stream is None
        assert again.shared.seen is None

    @pytest.mark.parametrize("answers", ["mean", "sample"])
    def test_it_can_be_exported(self, answers: Answers) -> None:
        layer, features = self.made(answers).eval(), torch.randn(5, 6)
        exported = torch.export.export(layer, (features,)).module()
        assert exported(features).shape == (5, 3)
        if answers == "mean":
            torch.testing.assert_close(exported(features), layer(features))


def test_the_divergence_is_that_of_its_formula_and_of_draws() -> None:
    gaussian = Gaussian(torch.randn(3, 4, generator=stream()), torch.rand(3, 4, generator=stream(1)) + 0.3)
    np.testing.assert_allclose(gaussian.divergence, slow_divergence(gaussian.mean.numpy(), gaussian.std.numpy()), rtol=1e-5)
    at = torch.distributions.Normal(gaussian.mean.double(), gaussian.std.double())
    r = at.mean + at.stddev * torch.randn(200_000, 3, 4, dtype=torch.float64)
    drawn = (at.log_prob(r) - torch.distributions.Normal(0.0, 1.0).log_prob(r)).sum(2)
    torch.testing.assert_close(drawn.mean(0).float(), gaussian.divergence, atol=0.03, rtol=0)
    assert Gaussian(torch.zeros(1, 4), torch.ones(1, 4)).divergence.item() == 0
