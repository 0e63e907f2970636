# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch

from sfumato.data.base import Data, Reading
from sfumato.data.partition import partition
from sfumato.data.picture import Encoded
from sfumato.data.reid import assemble, check_identities, read_parts
from sfumato.data.resident import ResidentPictures
from sfumato.data.retrieval import Sightings, posed
from sfumato.errors import CorruptPictureError, DataError, MissingDataError

MakeBytes = Callable[..., bytes]
See = Callable[..., Sightings]


@pytest.fixture
def see(picture_bytes: MakeBytes) -> See:
    """Makes pictures such as "a1": of individual a, by camera 1. Their content says who and where; "!" is broken."""

    def make(pairs: Sequence[str]) -> Sightings:
        def pictures() -> Iterator[Encoded]:
            for pair in pairs:
                content = b"broken" if pair.endswith("!") else picture_bytes(ord(pair[0]) * 1000 + ord(pair[1]))
                yield Encoded(pair, content, 0)

        return Sightings(tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs), pictures)

    return make


TRAIN = ["k2", "b1", "k1", "b2", "k1"]
QUERY, GALLERY = ["c3", "b1", "a1"], ["a2", "c1", "b3", "z1"]


def test_numbers_and_tags(see: See) -> None:
    data = assemble("pets", see(TRAIN), posed(see(QUERY), see(GALLERY)), Reading(), size=None)
    assert (data.name, data.classes, data.task) == ("pets", ("b", "k"), "reidentification")
    assert data.part("train").labels.tolist() == [1, 0, 1, 0, 1]
    assert data.part("train").tags["camera"].tolist() == [1, 0, 0, 1, 0]
    # b is trained on; a, c and z have the next numbers
    assert data.part("query").labels.tolist() == [3, 0, 2]
    assert data.part("gallery").labels.tolist() == [2, 3, 0, 4]
    assert data.part("test").labels.tolist() == [3, 0, 2, 2, 3, 0, 4]
    assert data.part("query").tags["camera"].tolist() == [2, 0, 0]
    assert data.part("gallery").tags["camera"].tolist() == [1, 0, 2, 0]
    check_identities(data)


@pytest.mark.parametrize("budget", [1 << 20, 500])
def test_labels_belong_to_their_pictures(see: See, tmp_path: Path, budget: int) -> None:
    reading = Reading(budget=budget, spool=tmp_path)
    data = assemble("pets", see(TRAIN), posed(see(QUERY), see(GALLERY)), reading, size=None)
    apart = assemble("pets", see(QUERY + GALLERY), posed(see(["x1"]), see(["x2"])), Reading(), size=None).part("train")
    for part, rows in (("test", range(7)), ("query", range(3)), ("gallery", range(3, 7))):
        pictures = data.part(part)
        assert torch.equal(pictures.read(torch.arange(len(pictures))), apart.read(torch.tensor(rows)))


def test_bad_pictures_are_left_out_with_what_is_known_of_them(see: See) -> None:
    train, test = see(["b1", "b2!", "k1", "k2", "b3"]), posed(see(["a1!", "b1"]), see(["a2", "b2!", "b3"]))
    with pytest.raises(CorruptPictureError, match="b2!"):
        assemble("pets", train, test, Reading(), size=None)
    data = assemble("pets", train, test, Reading(skip_bad=True), size=None)
    assert data.skipped == ("b2!", "a1!", "b2!")
    assert data.part("train").labels.tolist() == [0, 1, 1, 0]
    assert data.part("train").tags["camera"].tolist() == [0, 0, 1, 2]
    assert [data.part(part).labels.tolist() for part in ("query", "gallery", "test")] == [[0], [2, 0], [0, 2, 0]]


def test_parts_that_are_not_given_are_made(see: See) -> None:
    pictures = [f"{person}{camera}" for person in "abcde" for camera in "1122"]
    train = see(pictures)
    data = read_parts("pets", {"train": train}, Reading(), size=None, seed=0)
    assert [len(data.part(part)) for part in ("train", "test", "query", "gallery")] == [12, 8, 4, 4]
    assert len(data.classes) == 3
    assert sorted(data.part("test").labels.tolist()) == [3] * 4 + [4] * 4
    data = read_parts("pets", {"train": train, "test": see(["x1", "x2"])}, Reading(), size=None, seed=0)
    assert [len(data.part(part)) for part in ("train", "test", "query", "gallery")] == [20, 2, 1, 1]
    with pytest.raises(MissingDataError, match="pets: query and gallery belong together, found only gallery"):
        read_parts("pets", {"train": train, "gallery": train}, Reading(), size=None, seed=0)


@pytest.mark.parametrize(
    ("query", "gallery", "message"),
    [
        (["a1", "b1"], ["a1", "b2"], "none for a; add one"),
        ([f"{person}1" for person in "abcdefg"], ["a2"], "none for b, c, d, e, f and 1 more; add one"),
        ([], ["a1"], "an individual of the test that two cameras saw, found none"),
    ],
)
def test_queries_without_an_answer_are_found_before_anything_is_decoded(
    see: See, query: list[str], gallery: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        assemble("pets", see(["!!"]), posed(see(query), see(gallery)), Reading(), size=None)


def people(pairs: Sequence[tuple[int, int]]) -> ResidentPictures:
    told = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    return ResidentPictures(torch.zeros(len(told), 1, 2, 2, dtype=torch.uint8), told[:, 0], tags={"camera": told[:, 1]})


GOOD = {"train": people([(0, 0), (0, 0), (1, 0), (1, 1)]), "query": people([(2, 0)]), "gallery": people([(2, 0), (2, 1), (3, 0)])}
BARE = ResidentPictures(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 0]), tags={"driver": torch.zeros(2)})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gallery": BARE}, 'needs the tag "camera" of every picture, but gallery has driver; where cameras are unknown'),
        ({"train": people([(0, 0), (1, 0), (1, 1)])}, "but train has one only of anna; add another, or leave them out$"),
        ({"query": people([(2, 0), (1, 0)])}, "none for ben; add one"),
        ({"query": people([(2, 0), (7, 0)])}, "none for number 7; add one"),
        ({"query": people([])}, "found none; there is nothing to ask"),
        ({"gallery": people([(2, 0), (2, 1)])}, "a gallery of one individual makes every answer right; add pictures of others"),
    ],
)
def test_what_re_identification_needs(changed: Mapping[str, ResidentPictures], message: str) -> None:
    data = Data(name="people", classes=("anna", "ben"), parts=GOOD, task="reidentification")
    check_identities(data)
    with pytest.raises(DataError, match=f"^people: .*{message}"):
        check_identities(data.with_parts(**changed))


def test_public_pictures_can_leave_one_only() -> None:
    test = people([(2, 0), (2, 1)])
    data = Data(name="people", classes=("anna", "ben"), parts={**GOOD, "test": test}, task="reidentification")
    with pytest.raises(DataError, match="private has one only of anna, ben; .* or lower public="):
        check_identities(partition(data, public=0.5, seed=0))
    check_identities(partition(data, seed=0))
