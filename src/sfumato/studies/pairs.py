# SPDX-License-Identifier: Apache-2.0
"""Pairs of reconstructions for people to compare: of each class what one attack made on two rows of a study, and a real one.

Nothing is computed: the reconstructions are those that the study judged, which the attack ranks first, and the real pictures
are read from the data set.

Source: ho2024tldmi, Appendix G and Figure 9, whose interface follows an2022mirror.
Equations: none.
Departures: which real picture of a class is shown is drawn by the seed, since the paper does not say.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from sfumato.audit import data_facts
from sfumato.data.base import Data
from sfumato.data.loader import shuffled
from sfumato.errors import ConfigError, DataError, StorageError
from sfumato.files import read_json, read_tensors
from sfumato.inversion_types import InversionResult
from sfumato.plain import plain
from sfumato.seeds import generator
from sfumato.store import STAGES
from sfumato.studies.results import Cell, Results
from sfumato.types import Pixels
from sfumato.workplace import Workplace, read_data

_PEOPLE = ("portraits", "lfw-gray", "celeb21", "celeba", "facescrub", "pubfig83", "vggface2", "ffhq")  # the data sets of faces
_WRITTEN = ("definition.json", "done.json")  # of a stage


@dataclass(frozen=True)
class PairFacts:
    """What pairs are of: enough to report answers without a picture.

    Attributes:
        fingerprint: SHA-256 of everything that is shown and of what it is taken for, hexadecimal.
        study: name of the study.
        size: name of its size.
        data: name of the data set.
        rows: the two rows.
        attack: whose reconstructions they are.
        seed: of the rows.
        classes: the class of each pair, by its number.
        unreached: of each row, the classes among these that the attack did not get to: its pictures of them are the prior's.

    Example:
        >>> facts = PairFacts("3f2a", "small", "smoke", "digits", ("plain", "noise"), "gmi", 0, (3, 5))
        >>> Pairs(facts, torch.zeros(2, 1, 8, 8), torch.zeros(2, 2, 1, 8, 8)).question
        'Which of the two below is closer to the picture above?'
    """

    fingerprint: str
    study: str
    size: str
    data: str
    rows: tuple[str, str]
    attack: str
    seed: int
    classes: tuple[int, ...]
    unreached: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Pairs:
    """Pairs to show.

    Attributes:
        facts: what they are of.
        real: a private picture of each class, (N, C, H, W), uint8, on the CPU.
        made: what the attack made of each class on each of the two rows, (2, N, C, H, W), uint8, on the CPU.
    """

    facts: PairFacts
    real: Pixels = field(repr=False)
    made: Pixels = field(repr=False)

    def __len__(self) -> int:
        return len(self.real)

    @property
    def question(self) -> str:
        """What people are asked, for faces or for anything else."""
        if self.facts.data in _PEOPLE:
            return "Which of the two below looks more like the person above?"
        return "Which of the two below is closer to the picture above?"


@dataclass(frozen=True)
class _Made:
    """What an attack made on one row: its classes, ascending, and of each the picture that it ranks first."""

    classes: tuple[int, ...]
    pixels: Pixels
    reached: torch.Tensor


def load_pairs(
    results: Results,
    workplace: Workplace,
    *,
    rows: Sequence[str] = (),
    attack: str = "",
    seed: int | None = None,
    count: int | None = None,
) -> Pairs:
    """Take the pairs of a study that was run.

    Args:
        results: of the study.
        workplace: where it was run; its stages and its data are read.
        rows: the labels of two rows; may be left out where there are no others whose weights were attacked.
        attack: its name in the study; may be left out where there is one.
        seed: of the rows; None takes the first that the study was run with.
        count: how many classes at most, drawn by the seed; None takes all.

    Raises:
        ConfigError: there is no choice, or a choice that the study does not have, or rows that attacked different classes.
        DataError: the rows are of different pictures, or the pictures are no longer those of the study.
        StorageError: what the attack made is not in the store.
    """
    seed = results.seeds[0] if seed is None else seed
    if seed not in results.seeds:
        raise ConfigError(f"expected a seed that the study was run with, {_listed(results.seeds)}, got {seed}; give one of these")
    first, second = _cells(results, rows, seed)
    attack = _attack(first, second, attack)
    shown = [cell.data and (cell.data.name, cell.data.fingerprint) for cell in (first, second)]
    if shown[0] != shown[1]:
        raise DataError(
            f"expected rows of the same pictures, found others in '{first.row}' than in '{second.row}'; choose two alike"
        )
    data = _data(results, first, workplace)
    made = [_stored(cell, attack, workplace.store.root) for cell in (first, second)]
    if made[0].classes != made[1].classes:
        raise ConfigError(
            f"expected the same classes attacked in both rows, found {len(made[0].classes)} in '{first.row}' and "
            f"{len(made[1].classes)} in '{second.row}', or others; choose two rows with the same identities in [inversion]"
        )
    chosen = shuffled(len(made[0].classes), generator(seed, "pairs", "classes"))[:count].sort().values
    classes = tuple(made[0].classes[place] for place in chosen.tolist())
    missed = [int((~one.reached[chosen]).sum()) for one in made]
    facts = PairFacts(
        fingerprint="",
        study=results.study.name,
        size=results.size,
        data=data.name,
        rows=(first.row, second.row),
        attack=attack,
        seed=seed,
        classes=classes,
        unreached=(missed[0], missed[1]),
    )
    return _sealed(Pairs(facts, _real(data, classes, seed), torch.stack([one.pixels[chosen] for one in made])))


def _sealed(pairs: Pairs) -> Pairs:
    """Return the pairs with their fingerprint."""
    made = hashlib.sha256(json.dumps(plain(pairs.facts), sort_keys=True).encode())
    for pixels in (pairs.real, pairs.made):
        made.update(str(tuple(pixels.shape)).encode() + pixels.contiguous().numpy().tobytes())
    return replace(pairs, facts=replace(pairs.facts, fingerprint=made.hexdigest()))


def _cells(results: Results, rows: Sequence[str], seed: int) -> tuple[Cell, Cell]:
    """Return the cells of two rows."""
    there = {cell.row: cell for cell in results.cells if cell.seed == seed and cell.inversion is not None and not cell.error}
    name = results.study.name
    if len(there) < 2:
        raise ConfigError(
            f"expected two rows of the study '{name}' whose weights were attacked with seed {seed}, found "
            f"{_listed(there) or 'none'}; choose a study with attacks on weights, and run it with: sfumato study run"
        )
    chosen = tuple(rows) or tuple(there)
    unknown = [row for row in chosen if row not in there]
    if unknown or len(set(chosen)) != 2 or len(chosen) != 2:
        raise ConfigError(
            f"expected two different rows of the study '{name}', got {_listed(rows) or 'none'}; give --rows twice, "
            f"each time one of {_listed(there)}"
        )
    return there[chosen[0]], there[chosen[1]]


def _attack(first: Cell, second: Cell, attack: str) -> str:
    """Return the name of an attack that was run on both cells."""
    others = {one.name for one in _attacks(second)}
    both = list(dict.fromkeys(one.name for one in _attacks(first) if one.name in others))
    if not both:
        raise ConfigError(f"no attack was run on both '{first.row}' and '{second.row}'; choose two other rows")
    if attack in both or (not attack and len(both) == 1):
        return attack or both[0]
    raise ConfigError(f"expected an attack that was run on both rows, got '{attack}'; give --attack, one of {_listed(both)}")


def _attacks(cell: Cell) -> tuple[InversionResult, ...]:
    return cell.inversion.attacks if cell.inversion else ()


def _stored(cell: Cell, attack: str, root: Path) -> _Made:
    """Read what an attack made on one row, with the first of its seeds."""
    result = next(one for one in _attacks(cell) if one.name == attack)
    for folder in sorted((root / STAGES).glob("inversion-*")):
        if not (folder / "done.json").exists():
            continue
        advice = f"remove {folder} and run the study again"
        definition, cost = (read_json(folder / name, expected="an attack", advice=advice) for name in _WRITTEN)
        assert isinstance(definition, dict) and isinstance(cost, dict)  # noqa: S101, PT018 -- as the attack wrote them
        # Two stages may differ in their priors only; what the attack took, to the last digit, says which one was judged.
        if (definition.get("target"), definition.get("seed"), cost.get("seconds")) == (cell.target, result.seed, result.seconds):
            tensors, _ = read_tensors(folder / "pictures.safetensors")
            return _Made(tuple(definition["classes"]), tensors["pixels"][:, 0], tensors["reached"])
    raise StorageError(
        f"expected in {root / STAGES} what {result.name} made of '{cell.row}' with seed {result.seed}, found it gone; "
        "make it again with: sfumato study run, and name the folder of runs with --runs where it is another one"
    )


def _data(results: Results, cell: Cell, workplace: Workplace) -> Data:
    """Read the pictures of a cell again."""
    study = results.study
    data = read_data(study.recipe(study.row(cell.row), results.size, seed=cell.seed), workplace)
    assert cell.data is not None  # noqa: S101 -- looked at before
    found = data_facts(data).fingerprint
    if found != cell.data.fingerprint:
        raise DataError(
            f"expected the pictures that the study was run with, {cell.data.fingerprint[:16]}, found {found[:16]} in "
            f"{data.name}: they have changed since; put them back, or run the study again"
        )
    return data


def _real(data: Data, classes: Sequence[int], seed: int) -> Pixels:
    """Read one private picture of each class."""
    private = data.part("train")
    own = [(private.labels == number).nonzero().flatten() for number in classes]
    drawn = [
        places[shuffled(len(places), generator(seed, "pairs", "real", number))[0]]
        for number, places in zip(classes, own, strict=True)
    ]
    return private.read(torch.stack(drawn)).cpu()


def _listed(names: Iterable[object]) -> str:
    return ", ".join(f"'{name}'" if isinstance(name, str) else str(name) for name in names)
