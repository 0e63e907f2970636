# SPDX-License-Identifier: Apache-2.0
"""A study that is small enough for tests: two pairs, one of which needs a defense that is not there."""

from __future__ import annotations

import tomllib

from sfumato.studies.load import read_study
from sfumato.studies.study import Study

STUDY = """
title = "A small study"
source = "nobody2026, Table 1"
planned = ["magic"]
columns = ["accuracy", "decoder/train/mse", "decoder/infer/mse"]
gain = { train = 50.0, infer = 25.0 }
notes = ["Numbers are made up."]

[size.smoke]
data = { name = "digits" }
model = { name = "lenet5", cut = "c1" }
train = { epochs = 1 }
audit = { pictures = 8 }
[[size.smoke.attacks]]
name = "decoder"
blocks = 0
channels = 4
fitting = { epochs = 1 }
[[size.smoke.attacks]]
name = "mean"

[[rows]]
label = "Plain"
published = [91.86, 0.001, 0.002]

[[rows]]
label = "Noise"
defenses = [{ name = "noise", sigma = 0.1 }]
published = [90.5, 0.002, 0.004]

[[rows]]
label = "Noise+Dropout"
over = "Noise"
adds = [{ name = "dropout", p = 0.5 }]
published = [90.0, 0.004, 0.006]

[[rows]]
label = "Magic"
defenses = [{ name = "magic" }]
published = [99.0, 0.5, 0.5]

[[rows]]
label = "Magic+Dropout"
over = "Magic"
adds = [{ name = "dropout", p = 0.5 }]
published = [99.0, 0.5, 0.5]

[[averages]]
label = "Average without"
of = "without"
published = [94.75, 0.251, 0.252]

[[averages]]
label = "Average with"
of = "with"
published = [94.5, 0.252, 0.253]
"""


def small_study(old: str = "", new: str = "") -> Study:
    assert old in STUDY
    return read_study(tomllib.loads(STUDY.replace(old, new, 1) if old else STUDY), name="small")
