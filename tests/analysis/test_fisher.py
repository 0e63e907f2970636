# SPDX-License-Identifier: Apache-2.0
"""Fisher information against a slow loop in NumPy, against vmap and against closed forms; and what it must leave alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from nets import small_net
from sfumato.analysis.fisher import classification_fisher, fisher_information, inversion_fisher
from sfumato.analysis.fisher_profile import FisherProfile
from sfumato.analysis.maps import last_of_each_size
from sfumato.data.resident import ResidentPictures
from sfumato.errors import ConfigError, DataError, ModelError
from sfumato.seeds import generator
from sfumato.split import split


def deep() -> nn.Sequential:
    """Convolutions with and without bias, norms, dropout, two sizes of maps and two linear layers; norms with statistics."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1, bias=False),
            nn.BatchNorm2d(3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(3, 4, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(64, 5),
            nn.Tanh(),
            nn.Linear(5, 3),
        )
        model.train()
        model(torch.rand(20, 1, 8, 8))
    return model


def random_pictures(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    return torch.randint(0, 256, (count, 1, 8, 8), generator=generator(seed, "x")).to(torch.uint8), torch.arange(count) % 3


def stored(count: int = 7, seed: int = 0) -> ResidentPictures:
    return ResidentPictures(*random_pictures(count, seed))


def reference(model: nn.Module, loss: Callable[[int], Tensor], count: int) -> np.ndarray:
    """The mean squared gradient of each sample over the parameters of each layer that weighs, by batches of one and NumPy."""
    model.eval()
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    rows = []
    for number in range(count):
        model.zero_grad()
        loss(number).backward()
        values = [[np.zeros(p.numel()) if p.grad is None else p.grad.numpy().ravel() for p in one.parameters()] for one in layers]
        rows.append([np.mean(np.concatenate(one).astype(np.float64) ** 2) for one in values])
    return np.array(rows)


def embed(model: nn.Module, x: Tensor) -> Tensor:
    return nn.Sequential(*list(model.children())[:-1])(x)


def test_naming_is_the_mean_of_squares_of_single_gradients() -> None:
    model, pictures = deep(), stored()
    found = classification_fisher(model, pictures)
    x, labels = pictures.read(torch.arange(7)) / 255, pictures.labels
    wanted = reference(model, lambda n: F.cross_entropy(model(x[n : n + 1]), labels[n : n + 1]), 7)
    assert found.layers == ("0", "4", "8", "10")
    assert found.parameters == (27, 112, 325, 18)
    assert (found.before, found.samples, found.task) == (3, 7, "classification")
    np.testing.assert_allclose(found.each.numpy(), wanted, rtol=1e-5, atol=1e-14)
    np.testing.assert_allclose(found.values, wanted.mean(0), rtol=1e-5)


def test_the_square_of_the_gradient_of_a_batch_is_another_number() -> None:
    model, pictures = deep(), stored()
    found = classification_fisher(model, pictures)
    x, labels = pictures.read(torch.arange(7)) / 255, pictures.labels
    of_batch = reference(model, lambda _: F.cross_entropy(model(x), labels), 1)[0]
    assert all(value > 2 * other for value, other in zip(found.values, of_batch, strict=True))


def test_all_at_once_gives_what_one_after_the_other_does() -> None:
    model, pictures = deep(), stored()
    found = classification_fisher(model, pictures)
    weights = {name: one.detach() for name, one in model.named_parameters() if name.split(".")[0] in found.layers}

    def loss(given: dict[str, Tensor], x: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, given, (x[None],)), label[None])

    model.eval()
    x = pictures.read(torch.arange(7)) / 255
    together = vmap(grad(loss), in_dims=(None, 0, 0))(weights, x, pictures.labels)
    for place, layer in enumerate(found.layers):
        flat = torch.cat([one.flatten(1) for name, one in together.items() if name.split(".")[0] == layer], 1)
        torch.testing.assert_close(found.each[:, place], flat.double().square().mean(1), rtol=1e-5, atol=1e-14)


@pytest.mark.parametrize(("distance", "order"), [("l2", 2), ("l1", 1)])
def test_rebuilding_is_the_distance_to_the_fixed_mean_of_the_class(distance: str, order: int) -> None:
    model, private = deep(), stored(9)
    x_hat, labels = torch.rand(4, 1, 8, 8, generator=generator(1, "x_hat")), torch.tensor([2, 0, 2, 1])
    found = inversion_fisher(model, x_hat, labels, private, distance=distance)  # type: ignore[arg-type]
    model.eval()
    with torch.no_grad():
        phi = embed(model, private.read(torch.arange(9)) / 255)
        centers = torch.stack([phi[private.labels == label].mean(0) for label in range(3)])
    wanted = reference(model, lambda n: (embed(model, x_hat[n : n + 1])[0] - centers[labels[n]]).norm(order), 4)
    np.testing.assert_allclose(found.each.numpy(), wanted, rtol=1e-4, atol=1e-14)
    assert found.values[-1] == 0  # it comes after the embedding
    assert min(found.encoder.values) > 0
    assert found.encoder.layers == ("0", "4", "8")
    assert sum(share.value for share in found.encoder.shares) == pytest.approx(1)
    assert found.labels.tolist() == [2, 0, 2, 1]


def test_a_perceptual_distance_is_that_of_unit_maps_to_private_pictures_in_turn() -> None:
    model, private = deep(), stored(4)  # of class 0 two private pictures, of the others one each
    x_hat, labels = torch.rand(4, 1, 8, 8, generator=generator(1, "x_hat")), torch.tensor([0, 0, 0, 2])
    found = inversion_fisher(model, x_hat, labels, private, distance="perceptual")
    model.eval()

    def maps(x: Tensor) -> list[Tensor]:
        first = model[2](model[1](model[0](x)))
        return [first, model[5](model[4](model[3](first)))]

    def loss(number: int) -> Tensor:
        with torch.no_grad():
            true = maps(private.read(torch.tensor([[0, 3, 0, 2][number]])) / 255)
        total = torch.zeros(())
        for one, other in zip(maps(x_hat[number : number + 1]), true, strict=True):
            a, b = (v[0] / v[0].pow(2).sum(0).clamp_min(1e-20).sqrt() for v in (one, other))
            total = total + ((a - b) ** 2).sum(0).mean()
        return total

    np.testing.assert_allclose(found.each.numpy(), reference(model, loss, 4), rtol=1e-4, atol=1e-14)
    assert found.values[2:] == (0.0, 0.0)  # layers after the last map
    assert min(found.values[:2]) > 0


def test_maps_are_the_last_of_each_size_and_only_where_a_convolution_works() -> None:
    model = deep().eval()
    assert last_of_each_size(model, torch.zeros(1, 1, 8, 8)) == [model[2], model[5]]
    pooled = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(1, 2, 1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 2))
    assert last_of_each_size(pooled, torch.zeros(1, 1, 8, 8)) == [pooled[2]]
    with pytest.raises(ModelError, match=r"compares maps, and no layer of Sequential gives one .*take 'l2'"):
        last_of_each_size(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), torch.zeros(1, 1, 8, 8))


def test_a_linear_model_has_a_closed_form() -> None:
    """The gradient of its cross-entropy is (p - 1_y) x^T for the matrix and p - 1_y for the bias."""
    model, pictures = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), stored()
    x, labels = (pictures.read(torch.arange(7)).flatten(1) / 255).numpy().astype(float), pictures.labels.numpy()
    logits = x @ model[1].weight.detach().numpy().T + model[1].bias.detach().numpy()
    apart = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(3)[labels]
    wanted = (apart**2).sum(1) * ((x**2).sum(1) + 1) / (3 * 64 + 3)
    np.testing.assert_allclose(classification_fisher(model, pictures).each[:, 0].numpy(), wanted, rtol=1e-5)


def test_a_linear_encoder_has_a_closed_form() -> None:
    """The gradient of |A x - c|_2 by A is u x^T, u of norm 1: its squares add up to |x|^2 whatever the centroid is."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4, bias=False), nn.Linear(4, 3))
    x_hat = torch.rand(5, 1, 8, 8, generator=generator(2, "x_hat"))
    found = inversion_fisher(model, x_hat, torch.tensor([0, 1, 2, 0, 1]), stored())
    np.testing.assert_allclose(found.each[:, 0].numpy(), (x_hat**2).sum((1, 2, 3)).numpy() / 256, rtol=1e-5)
    assert found.each[:, 1].tolist() == [0.0] * 5


def test_a_picture_on_its_centroid_has_no_information_and_no_nan() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Linear(4, 3)).double()
    x, label = torch.full((1, 1, 8, 8), 1.0), torch.tensor([0])
    private = ResidentPictures(torch.full((1, 1, 8, 8), 255, dtype=torch.uint8), label)
    model.float()
    assert inversion_fisher(model, x, label, private).values == (0.0, 0.0)


def test_the_model_is_left_as_it_was_found_and_frozen_layers_count() -> None:
    model, pictures = deep(), stored()
    free = classification_fisher(model, pictures)
    model[0].requires_grad_(False)
    model[4].eval()
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    state = {name: one.clone() for name, one in model.state_dict().items()}
    before = torch.get_rng_state()
    with torch.no_grad():
        frozen = classification_fisher(model, pictures)
    assert frozen.each.equal(free.each)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(one.equal(state[name]) for name, one in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.get_rng_state().equal(before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_dropout_is_off_and_a_picture_does_not_depend_on_its_company() -> None:
    model, pictures = deep(), stored()
    found = classification_fisher(model, pictures)
    alone = classification_fisher(model, pictures.subset(torch.tensor([4])))
    assert alone.each[0].equal(found.each[4])


def test_a_cut_changes_neither_names_nor_numbers() -> None:
    model, pictures = small_net(3), stored()
    whole, halves = classification_fisher(model, pictures), classification_fisher(split(small_net(3), at="1"), pictures)
    assert (whole.layers, whole.each.tolist()) == (halves.layers, halves.each.tolist())


def test_a_weight_that_two_layers_share_is_that_of_both() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64, bias=False), nn.Tanh(), nn.Linear(64, 64, bias=False), nn.Linear(64, 3))
    model[3].weight = model[1].weight
    pictures = stored(2)
    found = classification_fisher(model, pictures)
    x, labels = pictures.read(torch.arange(2)) / 255, pictures.labels
    wanted = reference(model, lambda n: F.cross_entropy(model(x[n : n + 1]), labels[n : n + 1]), 2)
    np.testing.assert_allclose(found.each.numpy(), wanted, rtol=1e-5)
    assert found.values[0] == found.values[1] > 0


def test_any_loss_has_a_profile_and_one_without_weights_has_none() -> None:
    told: list[tuple[int, int]] = []
    found = fisher_information(
        deep(),
        lambda network, x, number: x.sum(),
        torch.rand(2, 1, 8, 8),
        torch.tensor([0, 1]),
        task="nothing",
        watch=lambda done, total: told.append((done, total)),
    )
    assert found.values == (0.0,) * 4
    assert np.isnan([share.value for share in found.shares]).all()
    assert told == [(1, 2), (2, 2)]


def test_what_cannot_be_measured_is_refused() -> None:
    model, none = deep(), torch.zeros(0, dtype=torch.int64)
    with pytest.raises(DataError, match="a mean over pictures, found none"):
        classification_fisher(model, stored().subset(none))
    with pytest.raises(DataError, match="found no reconstruction"):
        inversion_fisher(model, torch.zeros(0, 1, 8, 8), none, stored())
    with pytest.raises(DataError, match=r"found none of the classes \[7\]"):
        inversion_fisher(model, torch.zeros(2, 1, 8, 8), torch.tensor([0, 7]), stored())
    with pytest.raises(ConfigError, match="distance must be one of l2, l1, perceptual, got 'lpips'"):
        inversion_fisher(model, torch.zeros(1, 1, 8, 8), torch.tensor([0]), stored(), distance="lpips")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"must be a torch\.nn\.Linear"):
        classification_fisher(nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten()), stored())
    nn.init.constant_(next(model.parameters()), float("nan"))
    with pytest.raises(ModelError, match="the gradients of 7 of 7 pictures are not finite"):
        classification_fisher(model, stored())


def profile(*rows: list[float], labels: list[int] | None = None, before: int | None = None) -> FisherProfile:
    each = torch.tensor(rows, dtype=torch.float64)
    names = tuple(f"layer {number}" for number in range(each.shape[1]))
    given = torch.tensor(labels or list(range(len(rows))))
    return FisherProfile("toy", names, (1,) * len(names), len(names) - 1 if before is None else before, each, given)


def test_shares_add_up_and_the_first_third_of_an_even_profile_is_a_third() -> None:
    for layers in (1, 2, 3, 4, 5, 14):
        even = profile([2.0] * layers, [4.0] * layers)
        assert even.first_third.value == pytest.approx(1 / 3)
        assert [share.value for share in even.shares] == pytest.approx([1 / layers] * layers)
    assert profile([6.0, 2.0, 1.0, 1.0]).first_third.value == pytest.approx(0.6 + 0.2 / 3)


@pytest.mark.parametrize(
    ("values", "rho"),
    [([4.0, 3.0, 2.0, 1.0], -1.0), ([1.0, 2.0, 5.0, 9.0], 1.0), ([3.0, 1.0, 2.0, 0.0], -0.8), ([2.0, 2.0, 1.0, 0.0], -0.948683)],
)
def test_rank_with_depth_is_spearmans(values: list[float], rho: float) -> None:
    """The last has a tie: ranks 3.5, 3.5, 2, 1 against 1, 2, 3, 4."""
    assert profile(values).rank_with_depth.value == pytest.approx(rho, abs=1e-6)


def test_intervals_are_over_classes() -> None:
    stream = np.random.default_rng(0)
    values = np.abs(stream.normal(1, 0.5, (12, 3)))
    rows, labels = np.repeat(values, 40, 0).tolist(), np.repeat(np.arange(12), 40).tolist()
    many, few = profile(*rows, labels=labels), profile(*values.tolist())
    assert many.first_third.value == pytest.approx(few.first_third.value)
    wide = [one.first_third.high - one.first_third.low for one in (many, few)]
    assert wide[0] == pytest.approx(wide[1], rel=1e-6)  # copies of a class's pictures tell nothing new
    draws = stream.integers(0, 12, (4000, 12))
    shares = values[draws].mean(1)
    low, high = np.quantile(shares[:, 0] / shares.sum(1), [0.025, 0.975])
    assert (few.first_third.low, few.first_third.high) == pytest.approx((low, high), abs=0.01)
    assert few.shares[0].low == pytest.approx(few.first_third.low)


def test_pictures_of_one_class_alone_are_drawn_themselves() -> None:
    one = profile([1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [2.0, 2.0, 2.0], labels=[5, 5, 5])
    assert one.first_third.low < one.first_third.value < one.first_third.high
    assert profile([1.0, 2.0, 3.0]).first_third.low == pytest.approx(1 / 6)
