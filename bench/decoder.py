# SPDX-License-Identifier: Apache-2.0
"""The decoder attack against the reference recipe written straightforwardly: CPU time to the error it ends with."""

from __future__ import annotations

import time
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

import sfumato as sf
from bench.row import Row
from sfumato.attacks.features.decoder import Decoder
from sfumato.data.loader import as_images
from sfumato.demo import demo_recipe
from sfumato.models.inverter import ResidualDecoder
from sfumato.seeds import ambient, generator
from sfumato.target import Target
from sfumato.types import Part

EPOCHS = 50
SCORED = 500


def run() -> list[Row]:
    """Measure on the demonstration's undefended target, with the demonstration's network."""
    recipe = demo_recipe("digits", "before")
    data = sf.load_data("digits")
    model = sf.build_model(recipe.model, classes=10, shape=data.shape, options=recipe.options)
    target = sf.harden(sf.split(model, at=recipe.split.cut), data, train=recipe.train)
    attack = recipe.attacks["decoder"]
    assert isinstance(attack, Decoder)
    wanted, slow = _reference(target, data, attack)
    reached, fast, epochs = _ours(target, data, attack, wanted)
    details = {
        "reference_mse": wanted, "reference_cpu_s": slow, "reference_epochs": EPOCHS,
        "sfumato_mse": reached, "sfumato_cpu_s": fast, "sfumato_epochs": epochs,
    }  # fmt: skip
    faster = slow / fast if reached <= wanted else 0.0
    return [Row("decoder attack, times faster to the reference's error", faster, "x", ">=", 2.0, details)]


def _score(network: torch.nn.Module, target: Target, data: sf.Data) -> float:
    """Return the error on pictures that no attack trained on."""
    x = as_images(data.part("inference").read(torch.arange(SCORED)), target.device)
    network.eval()
    with torch.no_grad():
        return F.mse_loss(network(target.features(x)), x).item()


def _reference(target: Target, data: sf.Data, attack: Decoder) -> tuple[float, float]:
    """Run the release's recipe as it is written: the frozen head on every picture at every epoch.

    Returns:
        Its error and its CPU seconds.
    """
    pictures = data.part("auxiliary")
    with ambient(0, "reference"):
        z = target.features(torch.zeros(1, *data.shape))
        network = ResidualDecoder(tuple(z.shape[1:]), data.shape, blocks=attack.blocks, channels=attack.channels)
    start = time.process_time()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS, eta_min=1e-5)
    for epoch in range(EPOCHS):
        network.train()
        for index in torch.randperm(len(pictures), generator=generator(0, "order", epoch)).split(256):
            x = as_images(pictures.read(index), target.device)
            with torch.no_grad():
                z = target.features(x)
            loss = F.mse_loss(network(z), x)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        schedule.step()
    spent = time.process_time() - start
    return _score(network, target, data), spent


def _ours(target: Target, data: sf.Data, attack: Decoder, wanted: float) -> tuple[float, float, int]:
    """Run the attack as users do, whole, with the shortest run of a ladder that reaches the error.

    Returns:
        The error, the CPU seconds of that whole run, and its epochs.
    """
    for epochs in (7, 10, 14, 20, 28, 40):
        tried = replace(attack, fitting=replace(attack.fitting, epochs=epochs))
        x = as_images(data.part("inference").read(torch.arange(SCORED)), target.device)
        with torch.no_grad():
            victims: dict[Part, Tensor] = {"inference": target.features(x)}
        start = time.process_time()
        found = tried(target, data.part("auxiliary"), victims, seed=0)
        spent = time.process_time() - start
        error = F.mse_loss(found.reconstructions["inference"][0].x_hat, x).item()
        if error <= wanted:
            break
    return error, spent, epochs
