# SPDX-License-Identifier: Apache-2.0
"""Zeros are not written, and come back; what is damaged is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import sfumato as sf
from sfumato.errors import WeightsError
from sfumato.files import read_tensors, tensor_bytes, write_tensors
from sfumato.packing import FACT, pack
from sfumato.pruning.admm import prune
from sfumato.pruning.weights import each, single

PRESET = (1 / 0.8, 1 / 0.2, 1 / 0.05, 1 / 0.06, 1 / 0.25)


def sparse(shape: tuple[int, ...], every: int, dtype: torch.dtype) -> Tensor:
    """One element in `every` is not zero, the last among them."""
    made = torch.zeros(shape)
    made.view(-1)[every - 1 :: every] = torch.arange(1, made.numel() // every + 1) % 100 + 1.0
    return made.to(dtype)


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.int64, torch.int32, torch.int8],
    ids=str,
)
@pytest.mark.parametrize("shape", [(7, 11, 3, 5), (1155,), (1200, 1)], ids=str)
def test_every_number_format_comes_back_to_the_bit(dtype: torch.dtype, shape: tuple[int, ...], tmp_path: Path) -> None:
    tensor = sparse(shape, 15, dtype)
    path = write_tensors(tmp_path / "t.safetensors", {"w": tensor, "b": torch.ones(3)}, {"k": "v"})
    assert load_file(path)["w"].shape == (tensor.numel() // 15,)
    tensors, facts = read_tensors(path)
    assert facts == {"k": "v"}
    assert set(tensors) == {"w", "b"}
    assert (tensors["w"].dtype, tensors["w"].shape) == (dtype, shape)
    assert bits(tensors["w"]) == bits(tensor)


def test_negative_zero_infinity_and_nan_come_back_too(tmp_path: Path) -> None:
    tensor = torch.zeros(40, 40)
    tensor[0, :4] = torch.tensor([-0.0, torch.inf, torch.nan, 1e-45])
    path = write_tensors(tmp_path / "t.safetensors", {"w": tensor})
    assert load_file(path)["w"].shape == (4,)
    assert bits(read_tensors(path)[0]["w"]) == bits(tensor)


def test_a_tensor_of_zeros_alone_and_a_transposed_one_come_back(tmp_path: Path) -> None:
    tensors = {"none": torch.zeros(50, 20), "t": sparse((30, 40), 20, torch.float32).t(), "flags": torch.eye(60) > 0}
    path = write_tensors(tmp_path / "t.safetensors", tensors)
    assert len(load_file(path)) == 6
    found = read_tensors(path)[0]
    assert all(torch.equal(found[name], value) for name, value in tensors.items())


@pytest.mark.parametrize(
    "tensors",
    [
        {"dense": torch.ones(100, 100)},
        {"half": sparse((100, 100), 1, torch.float32)},
        {"small": torch.zeros(20), "scalar": torch.tensor(0), "empty": torch.zeros(0, 3)},
    ],
    ids=lambda tensors: next(iter(tensors)),
)
def test_what_would_not_get_smaller_is_written_as_it_is(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    ours = write_tensors(tmp_path / "a.safetensors", tensors, {"k": "v"})
    save_file(tensors, tmp_path / "b.safetensors", metadata={"k": "v"})
    assert ours.read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_the_smaller_of_the_two_forms_is_chosen_to_the_byte() -> None:
    def packed(used: int) -> bool:
        tensor = torch.zeros(8000)
        tensor[:used] = 1
        return len(pack({"w": tensor})[0]) == 2

    # 4 bytes for each value, 1,000 of places and 128 of the header against 32,000
    assert packed(7717)
    assert not packed(7718)


def test_a_name_that_is_taken_leaves_the_tensor_dense() -> None:
    assert pack({"w": torch.zeros(1000), "w#places": torch.ones(3)})[1] == {}


def test_a_pruned_lenet_is_an_eighth_on_disk(tmp_path: Path) -> None:
    split = sf.whole(sf.build_model("lenet5", classes=10, shape=(1, 28, 28)))
    groups = single(split)
    counts = each(groups, PRESET)
    with torch.no_grad():
        for group, count in zip(groups, counts, strict=True):
            prune(group, count)
    dense = len(tensor_bytes(split.state_dict(), sparse=False))
    path = write_tensors(tmp_path / "w.safetensors", split.state_dict())
    assert dense > 4 * 61_706
    assert path.stat().st_size < dense / 8
    found = read_tensors(path)[0]
    assert all(torch.equal(found[name], value) for name, value in split.state_dict().items())


def damaged(facts: str | None = None, **changes: Tensor | None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A file of one sparse tensor, with other facts or tensors."""
    tensors, known = pack({"w": torch.eye(100)})
    named = {"w": changes.get("values", tensors["w"]), "w#places": changes.get("places", tensors["w#places"])}
    return {name: value for name, value in named.items() if value is not None}, {FACT: known[FACT] if facts is None else facts}


@pytest.mark.parametrize(
    "content",
    [
        damaged("{"),
        damaged("[1]"),
        damaged(json.dumps({"v": [100, 100]})),
        damaged(json.dumps({"w": "100"})),
        damaged(json.dumps({"w": [100, 101]})),
        damaged(json.dumps({"w": [-100, -100]})),
        damaged(json.dumps({"w": [100.0, 100]})),
        damaged(json.dumps({"w": [1 << 40, 1 << 40]})),
        damaged(places=None),
        damaged(values=None),
        damaged(values=torch.ones(99)),
        damaged(values=torch.ones(100, 1)),
        damaged(places=torch.ones(1250)),
        damaged(places=torch.ones(1250, dtype=torch.uint8)),
        damaged(places=torch.ones(1249, dtype=torch.uint8)),
    ],
    ids=lambda content: f"{content[1][FACT]} {[(name, *value.shape, value.dtype) for name, value in content[0].items()]}",
)
def test_a_damaged_file_is_refused(content: tuple[dict[str, Tensor], dict[str, str]], tmp_path: Path) -> None:
    tensors, facts = content
    save_file(tensors, tmp_path / "w.safetensors", metadata=facts)
    with pytest.raises(WeightsError, match="expected a whole safetensors file.*loads no pickles"):
        read_tensors(tmp_path / "w.safetensors")


def test_the_same_file_undamaged_is_read(tmp_path: Path) -> None:
    tensors, facts = damaged()
    save_file(tensors, tmp_path / "w.safetensors", metadata=facts)
    assert torch.equal(read_tensors(tmp_path / "w.safetensors")[0]["w"], torch.eye(100))
