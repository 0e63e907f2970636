# SPDX-License-Identifier: Apache-2.0
"""Arguments of every defense of the registry for the small net; a new one adds a row."""

from __future__ import annotations

ROWS: dict[str, dict[str, object]] = {
    "bottleneck": {"channels": 2},
    "cem": {"floor": 0.1},
    "noise": {"sigma": 0.3},
    "dropout": {"p": 0.3},
    "distcorr": {"weight": 0.5},
    "noise_nopeek": {"sigma": 0.3, "weight": 0.5},
    "ressfl": {"pretrain": 1, "blocks": 0, "channels": 4},
    "noise_arl": {"sigma": 0.3, "blocks": 0, "channels": 4},
    "app": {"blocks": 0, "channels": 4},
    "skip": {"p": 0.5},
    "patrol": {"alpha": [0.01]},
    "patrol-paper": {},
    "minmax": {"warmup": 0, "passes": 0},
    "dpsgd": {},
    "mcmia": {"ratio": 4.0},
    "relaxloss": {"alpha": 0.3},
    "hamp": {},
    "label_smoothing": {"alpha": -0.1},
    "mid": {},
    "bido": {},
    "midre": {},
    "trap_mid": {},
    "tl_dmi": {"freeze": "0"},
    "early_stopping": {},
    "memguard": {"epochs": 5},
    "rounding": {"digits": 1},
    "top_k": {"k": 1},
}
