# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sfumato.data.answers import FLOOR, read_answers
from sfumato.data.known import draw_known
from sfumato.errors import ConfigError, DataError, MissingDataError

Arrays = dict[str, Any]


def table(seed: int, count: int = 30, classes: int = 3, views: int | None = None) -> Arrays:
    draw = np.random.default_rng(seed)
    shape = (count, classes) if views is None else (count, views, classes)
    return {"logits": draw.normal(size=shape).astype(np.float32), "labels": np.arange(count) % classes}


def written(folder: Path, members: Arrays | None = None, nonmembers: Arrays | None = None) -> tuple[Path, Path]:
    paths = folder / "members.npz", folder / "nonmembers.npz"
    for seed, (path, arrays) in enumerate(zip(paths, (members, nonmembers), strict=True)):
        np.savez(path, **(table(seed) if arrays is None else arrays))
    return paths


def probabilities(seed: int, **changes: Any) -> Arrays:
    arrays = table(seed, **changes)
    raised = np.exp(arrays["logits"].astype(np.float64))
    return {"probabilities": raised / raised.sum(-1, keepdims=True), "labels": arrays["labels"]}


@pytest.mark.parametrize("views", [None, 2])
def test_answers_are_read_members_first(tmp_path: Path, views: int | None) -> None:
    sides = [table(0, 30, views=views), table(1, 24, views=views)]
    found = read_answers(*written(tmp_path, *sides))
    expected = np.concatenate([side["logits"].reshape(-1, views or 1, 3) for side in sides])
    assert found.logits.dtype == torch.float32
    assert found.logits.tolist() == expected.tolist()
    assert found.labels.tolist() == [*sides[0]["labels"], *sides[1]["labels"]]
    assert found.member.tolist() == [True] * 30 + [False] * 24
    assert (found.duplicates, found.shared) == (0, 0)


@pytest.mark.parametrize("kind", [np.float16, np.float64, np.int32])
def test_numbers_of_any_kind_are_answers(tmp_path: Path, kind: type) -> None:
    sides = [{**side, "logits": (side["logits"] * 1000).astype(kind)} for side in (table(0), table(1))]
    assert read_answers(*written(tmp_path, *sides)).logits[0, 0].tolist() == sides[0]["logits"][0].astype(np.float32).tolist()


def test_of_probabilities_the_logarithms_are_taken_with_a_floor(tmp_path: Path) -> None:
    sides = probabilities(0), probabilities(1)
    sides[0]["probabilities"][0] = [1.0, 0.0, 0.0]
    found = read_answers(*written(tmp_path, *sides))
    assert found.logits[0, 0].tolist() == pytest.approx([0.0, np.log(FLOOR), np.log(FLOOR)])
    assert found.logits[:, 0].softmax(-1).numpy() == pytest.approx(np.concatenate([s["probabilities"] for s in sides]), abs=1e-6)


@pytest.mark.parametrize("decimals", [0, 2, 3])
def test_rounded_probabilities_are_probabilities(tmp_path: Path, decimals: int) -> None:
    sides = [
        {
            **side,
            "probabilities": np.eye(3)[side["probabilities"].argmax(1)]
            if decimals == 0
            else side["probabilities"].round(decimals),
        }
        for side in (probabilities(0, count=90), probabilities(1, count=90))
    ]
    assert bool(read_answers(*written(tmp_path, *sides)).logits.isfinite().all())


@pytest.mark.parametrize("arrays", [probabilities(0), {**table(0), "logits": np.eye(3, dtype=int)[table(0)["labels"]]}])
def test_probabilities_under_the_name_of_logits_are_refused(tmp_path: Path, arrays: Arrays) -> None:
    given = {"logits": next(iter(value for name, value in arrays.items() if name != "labels")), "labels": arrays["labels"]}
    with pytest.raises(
        DataError, match=r"lies in \[0, 1\] and sums to 1, so they are probabilities; name the array probabilities"
    ):
        read_answers(*written(tmp_path, given))


def with_nan(arrays: Arrays) -> Arrays:
    arrays["logits"][[4, 9], 1] = [np.nan, np.inf]
    return arrays


WRONG: list[tuple[Callable[[], Arrays], str]] = [
    (lambda: {"logits": table(0)["logits"]}, "expected the arrays logits .* and labels, found logits; name them so"),
    (lambda: {"labels": table(0)["labels"]}, "expected the arrays logits .* and labels, found labels; name them so"),
    (lambda: {"scores": np.zeros(3)}, "found scores; name them so"),
    (lambda: {**table(0), **probabilities(0)}, "not both"),
    (lambda: with_nan(table(0)), "logits must be finite as float32, found others in 2 of 30 rows, first in row 4; leave"),
    (lambda: {**table(0), "logits": table(0)["logits"].astype(np.float64) * 1e300}, "found others in 30 of 30 rows"),
    (lambda: {**table(0), "logits": np.zeros(30)}, r"found float64 of shape \(30,\)"),
    (lambda: {**table(0), "logits": np.zeros((30, 1))}, r"with C > 1, found float64 of shape \(30, 1\)"),
    (lambda: {**table(0), "logits": np.zeros((0, 3))}, r"found float64 of shape \(0, 3\)"),
    (lambda: {**table(0), "logits": np.full((30, 3), "a")}, "must be real numbers .* found <U1"),
    (lambda: {**table(0), "labels": np.arange(30.0) % 3}, "labels must be integers .* found float64 of shape"),
    (lambda: {**table(0), "labels": np.eye(3, dtype=int)[np.arange(30) % 3]}, r"found int64 of shape \(30, 3\); convert them"),
    (lambda: {**table(0), "labels": np.arange(30) % 3 + 1}, "labels must be 0 to 2, as answers have 3 classes, found 1 to 3"),
    (lambda: {**table(0), "labels": np.arange(30) % 3 - 1}, "found -1 to 1; number the classes from 0"),
    (lambda: {**table(0), "labels": np.arange(29) % 3}, "found 29 labels and 30 answers"),
    (lambda: {**probabilities(0), "probabilities": table(0)["logits"]}, r"must lie in \[0, 1\] and sum to 1, found \d+ of 30"),
    (lambda: {**probabilities(0), "probabilities": np.full((30, 3), 0.9)}, "found 30 of 30 that do not, first row 0"),
    (lambda: table(0, classes=4), "must be answers of one model, found 1 views of 4 classes and 1 views of 3 classes"),
    (lambda: table(0, views=2), "found 2 views of 3 classes and 1 views of 3 classes"),
    (
        lambda: {**table(0), "labels": np.zeros(30, int)},
        "found too few: class 1 has 0 and 10; class 2 has 0 and 10; add examples",
    ),
    (lambda: {**table(0), "labels": np.array([2] + [0, 1] * 14 + [1])}, "found too few: class 2 has 1 and 10; add"),
]


@pytest.mark.parametrize(("arrays", "message"), WRONG, ids=range(len(WRONG)))
def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path, arrays: Callable[[], Arrays], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_answers(*written(tmp_path, arrays()))


def test_no_more_than_five_classes_are_named(tmp_path: Path) -> None:
    sides = table(0, classes=20, count=40), {**table(1, classes=20, count=40), "labels": np.arange(40) % 10}
    with pytest.raises(DataError, match=r"class 10 has 2 and 0; .*; class 14 has 2 and 0; and 5 more classes; add"):
        read_answers(*written(tmp_path, *sides))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    members, nonmembers = written(tmp_path)
    nonmembers.unlink()
    with pytest.raises(MissingDataError, match=r"at .*nonmembers.npz, found no such file; check the path"):
        read_answers(members, nonmembers)
    with pytest.raises(MissingDataError, match="found no such file"):
        read_answers(members, tmp_path)


@pytest.mark.parametrize("content", [b"", b"logits,labels\n1,2\n", b"\x80\x04]\x94."])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    members, nonmembers = written(tmp_path)
    members.write_bytes(content)
    with pytest.raises(DataError, match="expected a whole .npz file, found another kind or a part; write it"):
        read_answers(members, nonmembers)
    with members.open("wb") as file:  # as savez would give it another ending
        np.save(file, np.zeros((3, 3)))
    with pytest.raises(DataError, match="expected a whole .npz file, found another kind or a part; write it"):
        read_answers(members, nonmembers)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    members, nonmembers = written(tmp_path)
    content = bytearray(members.read_bytes())
    members.write_bytes(content[:-100])
    with pytest.raises(DataError, match="found another kind or a part"):
        read_answers(members, nonmembers)
    content[250:260] = b"0123456789"
    members.write_bytes(content)
    with pytest.raises(DataError, match="expected a whole .npz file, found a damaged one"):
        read_answers(members, nonmembers)


def test_an_entry_that_is_no_array_is_refused(tmp_path: Path) -> None:
    members, nonmembers = written(tmp_path)
    with zipfile.ZipFile(members, "w") as file:
        file.writestr("logits", "1 2 3")
        file.writestr("labels", "1 2 3")
    with pytest.raises(DataError, match="logits must be real numbers"):
        read_answers(members, nonmembers)


class Trap:
    """An object that notices when it is unpickled."""

    sprung = False

    def __setstate__(self, state: object) -> None:
        Trap.sprung = True


def test_python_objects_are_refused_and_not_made(tmp_path: Path) -> None:
    logits = np.empty(30, dtype=object)
    logits[:] = [Trap() for _ in logits]
    logits[0].state = 1
    with pytest.raises(DataError, match="Python objects are refused, since reading them runs code: convert with numpy.asarray"):
        read_answers(*written(tmp_path, {**table(0), "logits": logits}))
    assert not Trap.sprung


def test_members_among_the_nonmembers_are_refused_with_their_count(tmp_path: Path) -> None:
    sides = table(0, 300), table(1, 300)
    sides[1]["logits"][30:33] = sides[0]["logits"][0:3]  # their labels are equal too
    with pytest.raises(
        DataError, match=r"but 3 of 300 rows of .*nonmembers.npz have the answer and the label of a row of .*members"
    ):
        read_answers(*written(tmp_path, *sides))
    sides[1]["labels"] = (sides[1]["labels"] + 1) % 3  # the same answer about another label is another example
    assert read_answers(*written(tmp_path, *sides)).shared == 0


def test_repeated_rows_of_one_side_are_counted(tmp_path: Path) -> None:
    sides = table(0, 300), table(1, 300)
    sides[0]["logits"][[3, 6]] = sides[0]["logits"][0]
    sides[1]["logits"][30] = sides[1]["logits"][0]
    found = read_answers(*written(tmp_path, *sides))
    assert (found.duplicates, found.shared) == (3, 0)


@pytest.mark.parametrize(("repeats", "coarse"), [(3, False), (4, True)])
def test_equal_rows_of_coarse_answers_are_counted(tmp_path: Path, repeats: int, coarse: bool) -> None:
    sides = table(0, 300), table(1, 300)
    sides[0]["logits"][3 : 3 + 3 * repeats : 3] = sides[0]["logits"][0]
    sides[1]["logits"][[0, 3]] = sides[0]["logits"][[0, 6 + 3 * repeats]]
    if not coarse:
        with pytest.raises(DataError, match="but 2 of 300 rows"):
            read_answers(*written(tmp_path, *sides))
        return
    found = read_answers(*written(tmp_path, *sides))
    assert (found.duplicates, found.shared) == (repeats, 2)


def named(labels: int, right: int, *, seed: int = 0) -> Arrays:
    """Labels alone, of two classes: so many of each are right."""
    truth = np.arange(2 * labels) % 2
    told = np.where(np.arange(2 * labels) // 2 < right, truth, 1 - truth)
    order = np.random.default_rng(seed).permutation(2 * labels)
    return {"probabilities": np.eye(2)[told[order]], "labels": truth[order]}


@pytest.mark.parametrize(("inside", "outside"), [((20, 15), (20, 15)), ((20, 15), (30, 20)), ((30, 20), (20, 15))])
def test_a_side_that_is_all_on_the_other_is_refused_however_coarse(
    tmp_path: Path, inside: tuple[int, int], outside: tuple[int, int]
) -> None:
    """In another order, too."""
    said = rf"members.npz \({2 * inside[0]} rows\) and .*nonmembers.npz \({2 * outside[0]}\) is in the other, as often"
    with pytest.raises(DataError, match=said):
        read_answers(*written(tmp_path, named(*inside), named(*outside, seed=1)))


@pytest.mark.parametrize(("inside", "outside"), [((20, 15), (20, 14)), ((20, 16), (30, 15)), ((30, 15), (20, 16))])
def test_labels_alone_that_coincide_in_part_are_counted(
    tmp_path: Path, inside: tuple[int, int], outside: tuple[int, int]
) -> None:
    found = read_answers(*written(tmp_path, named(*inside), named(*outside, seed=1)))
    assert found.shared == 2 * outside[0]


def test_zeros_of_either_sign_are_equal(tmp_path: Path) -> None:
    sides = table(0), table(1)
    sides[0]["logits"][0], sides[1]["logits"][0] = [0.0, 1.0, 2.0], [-0.0, 1.0, 2.0]
    with pytest.raises(DataError, match="but 1 of 30 rows"):
        read_answers(*written(tmp_path, *sides))


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.25, 25), (0.5, 50), (0.77, 77)])
def test_known_examples_are_a_share_of_each_side_and_class(share: float, expected: int) -> None:
    member, labels = torch.arange(250) < 100, (torch.arange(250) ** 2) % 7
    known = draw_known(member, labels, share, torch.Generator().manual_seed(0))
    assert int((known == 1).sum()) == expected
    assert bool(member[known == 1].all())
    assert not bool(member[known == 0].any())
    assert int((known == 0).sum()) == int(150 * share)
    for label in labels.unique():
        for side in (0, 1):
            chosen = (labels == label) & (member == bool(side))
            assert abs(int((known[chosen] == side).sum()) - share * int(chosen.sum())) <= 1


def test_known_examples_are_drawn_anew_by_another_stream_only() -> None:
    member, labels = torch.arange(40) < 20, torch.arange(40) % 2
    draws = [draw_known(member, labels, 0.5, torch.Generator().manual_seed(seed)).tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_of_known_examples_leaves_some_to_ask_about(share: float) -> None:
    with pytest.raises(ConfigError, match=r"known must be a share within \[0, 1\)"):
        draw_known(torch.arange(4) < 2, torch.zeros(4, dtype=torch.int64), share, torch.Generator())
