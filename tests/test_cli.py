# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import inversion_recipes
import quadrants
import sfumato as sf
import sfumato.cli
import sfumato.display
from sfumato.files import read_tensors, write_tensors
from sfumato.registry import TABLE

RECIPE = """
[data]
name = "folder"
path = "pictures"
[model]
name = "own_nets:small"
cut = "1"
[train]
epochs = 1
batch_size = 8
[[attacks]]
name = "decoder"
blocks = 0
channels = 4
fitting.epochs = 1
[audit]
pictures = 8
"""
NETS = """
from torch import nn

def small(classes, shape, wrong=0):
    channels, height, width = shape
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * height * width, classes + wrong)
    )

def fixed(classes, shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
"""


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


Command = Callable[..., Outcome]


def write_pictures(folder: Path, side: int = 8) -> None:
    """Two classes of 12 gray pictures: a bright half, left or right, over noise."""
    stream = np.random.default_rng(0)
    for place, name in enumerate(("left", "right")):
        (folder / name).mkdir(parents=True)
        for number in range(12):
            pixels = stream.integers(0, 80, (side, side), dtype=np.uint8)
            pixels[:, place * side // 2 : (place + 1) * side // 2] += 150
            Image.fromarray(pixels).save(folder / name / f"{number:02}.png")


def write_recipe(*changes: tuple[str, str], name: str = "tiny", more: str = "") -> str:
    text = RECIPE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    Path(f"{name}.toml").write_text(text + more)
    return f"{name}.toml"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a newcomer: pictures and nets of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("SFUMATO_RUNS", "SFUMATO_DATA"):
        monkeypatch.delenv(name, raising=False)
    write_pictures(tmp_path / "pictures")
    (tmp_path / "own_nets.py").write_text(NETS)
    return tmp_path


@pytest.fixture
def sfumato_(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command line in this process."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["sfumato", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            sfumato.cli.main()
        return Outcome(int(stopped.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def refused(sfumato_: Command, place: Path) -> Callable[..., str]:
    """Runs a command that must be refused, cleanly, and returns the message."""

    def run(*arguments: object) -> str:
        status, out, err = sfumato_(*arguments)
        assert status == 2, err
        assert out == ""
        assert err.startswith("sfumato: ")
        assert err.count("sfumato: ") == 1
        assert "Traceback" not in err
        assert_no_run(place)
        return err.removeprefix("sfumato: ")

    return run


def assert_no_run(place: Path) -> None:
    left = [path for path in place.glob("runs/*") if path.name != "stages"]
    assert left == []
    assert [*place.rglob("done.json")] == []
    assert [*place.rglob("*.part")] == []


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# What a person can do


def test_list_shows_every_name_of_the_registry(sfumato_: Command) -> None:
    whole, models = sfumato_("list"), sfumato_("list", "models")
    assert (whole.status, models.status) == (0, 0)
    for family, entries in TABLE.items():
        for name, entry in entries.items():
            assert f" {name} " in whole.out
            assert entry.summary in whole.out
            assert (f" {name} " in models.out) == (family == "models")


def test_cuts_shows_every_clean_cut_in_80_columns(sfumato_: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sfumato.display, "_FILE_WIDTH", 80)
    status, out, _ = sfumato_("cuts", "vgg11")
    title, _, above, below, rule, *rows = out.splitlines()
    assert status == 0
    assert title.startswith("vgg11, pictures 3x32x32, 10 classes")
    assert above.split() == ["shape", "bytes", "bytes", "head", "head", "head", "tail", "tail"]
    assert below.split() == ["cut", "of", "z", "float32", "uint8", "memory", "params", "MACs", "params", "MACs"]
    assert set(rule) == {"─"}
    assert "…" not in out
    assert max(map(len, out.splitlines())) <= 80
    cells = {row.split()[0]: row.split()[1:] for row in rows}
    assert cells["c2"] == ["128x8x8", "32,768", "8,192", "306", "kB", "76.0k", "20.6M", "9.68M", "133M"]
    assert {f"c{number}" for number in range(1, 9)} < set(cells)


def test_cuts_of_a_model_of_ones_own(sfumato_: Command) -> None:
    status, out, _ = sfumato_("cuts", "own_nets:small", "--shape", "1x8x8", "--classes", "2")
    assert status == 0
    assert [line.split()[:3] for line in out.splitlines()[5:]] == [
        ["0", "4x8x8", "1,024"],
        ["1", "4x8x8", "1,024"],
        ["2", "256", "1,024"],
    ]


def test_cuts_for_a_device_are_those_whose_heads_fit_and_hold_weights(sfumato_: Command, refused: Callable[..., str]) -> None:
    own = ("cuts", "own_nets:small", "--shape", "1x8x8", "--classes", "2")
    for limits in (("--memory", "160B"), ("--memory", "1MB", "--macs", "2304")):
        assert [line.split()[0] for line in sfumato_(*own, *limits).out.splitlines()[5:]] == ["0", "1", "2"]
    assert sfumato_(*own, "--memory", "159").out.splitlines()[-1] == (
        "no head fits: the smallest head, cut after '0', takes 160 bytes without defenses"
    )
    deep = sfumato_("cuts", "vgg11", "--memory", "310kB").out.splitlines()[5:]
    assert [deep[0].split()[0], deep[-1].split()[0]] == ["c1.0", "c2"]
    assert refused("cuts", "vgg11", "--macs", "few").startswith("macs must be a positive number")


def test_train_says_what_the_head_takes_and_refuses_one_that_does_not_fit(sfumato_: Command, refused: Callable[..., str]) -> None:
    message = refused("train", write_recipe(more='[device]\nmemory = "150B"\n'))
    assert message == (
        "the head does not fit the device: cut after '1' it takes 160 bytes, its defenses included, and the device has 150 "
        'bytes; what fits:\n  - this cut, pruned:\n    [[defenses]]\n    name = "patrol"\n    keep = { memory = "150B" }\n'
    )
    out = sfumato_("train", write_recipe(more='[device]\nmemory = "160B"\n')).out
    assert out.splitlines()[-2] == "head: 40 parameters, 160 B, 2.3 k MACs"


def test_train_writes_a_run_and_a_second_one_finds_it(sfumato_: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = write_recipe()
    status, out, err = sfumato_("train", recipe)
    assert (status, err.split("\n")[:2]) == (0, ["train tiny: started", "train tiny: done"])
    assert out.splitlines()[-1] == "run: runs/tiny"
    assert sorted(path.name for path in Path("runs/tiny").iterdir()) == ["recipe.toml", "run.json", "weights.safetensors"]
    monkeypatch.setattr("sfumato.targets.fit", lambda *_, **__: pytest.fail("trained again"))
    again = sfumato_("train", recipe)
    assert (again.status, again.out) == (0, out)
    assert again.err.splitlines().count("train tiny (found): done") == 1


def test_a_search_says_its_ranks(sfumato_: Command, place: Path) -> None:
    (place / "street.toml").write_text(
        """
        data = { name = "street", identities = 8, test_identities = 4, size = 16 }
        model = { name = "own_nets:small", cut = "1" }
        train = { epochs = 1, batch_size = 16 }
        attacks = [{ name = "mean" }]
        """
    )
    status, out, _ = sfumato_("train", "street.toml")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()[:4]] == ["rank-1", "rank-5", "rank-10", "mAP"]
    assert "Rank-1" in sfumato_("audit", "street.toml").out
    facts = json.loads(Path("runs/street/run.json").read_text())
    assert facts["accuracy"] == facts["utility"]["rank-1"]


def test_audit_attacks_once_and_an_attack_that_is_added_finds_the_target(
    sfumato_: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe()
    first = sfumato_("audit", recipe)
    assert first.status == 0
    assert "PSNR" in first.out
    assert (
        "\nThe strongest attack (decoder, which sees the features) rebuilds pictures that it never trained on with" in first.out
    )
    assert sorted(path.name for path in Path("runs/tiny").iterdir()) == [
        "audit.json", "recipe.toml", "report.html", "report.md", "run.json", "weights.safetensors",
    ]  # fmt: skip
    record = json.loads(Path("runs/tiny/audit.json").read_text())
    assert {(result["name"], result["part"]) for result in record["attacks"]} == {("decoder", "train"), ("decoder", "inference")}

    monkeypatch.setattr("sfumato.targets.fit", lambda *_, **__: pytest.fail("trained again"))
    with monkeypatch.context() as also:
        also.setattr("sfumato.pipeline.run_attack", lambda *_, **__: pytest.fail("attacked again"))
        assert sfumato_("audit", recipe)[:2] == first[:2]
    write_recipe(more='[[attacks]]\nname = "likelihood"\nsteps = 2\n')
    assert sfumato_("audit", recipe).status == 0
    record = json.loads(Path("runs/tiny/audit.json").read_text())
    assert {result["name"] for result in record["attacks"]} == {"decoder", "likelihood"}


def write_answers(count: int = 200) -> tuple[str, str]:
    """What a model answered that is surer of its members."""
    stream, names = np.random.default_rng(0), ("members.npz", "nonmembers.npz")
    for name, sure in zip(names, (3.0, 1.0), strict=True):
        labels = np.arange(count) % 4
        logits = stream.normal(size=(count, 4)).astype(np.float32)
        logits[np.arange(count), labels] += sure
        np.savez(name, logits=logits, labels=labels)
    return names


ANSWERS = ("--attack", "loss", "--attack", "gap")
BOTH = ("--logits", "members.npz", "nonmembers.npz")


def test_audit_of_answers_shows_a_table_of_80_columns_and_what_it_says(
    sfumato_: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sfumato.display, "_FILE_WIDTH", 80)
    status, out, err = sfumato_("audit", "--logits", *write_answers(), *ANSWERS)
    assert (status, err) == (0, "")
    table, said = out.split("200 members and 200 non-members.")
    assert max(map(len, table.splitlines())) <= 80
    assert "…" not in table
    lines = table.splitlines()
    (first,) = [number for number, line in enumerate(lines) if line.startswith("loss ")]
    assert lines[first + 1].startswith("200 + 200 ")
    assert [line.split()[0] for line in lines if line.startswith(("loss ", "gap "))] == ["loss", "gap"]
    assert "too few" in table
    assert "The strongest attack (loss) finds " in said
    assert "(the gap attack)" in said
    assert not Path("runs").exists()


@pytest.mark.parametrize("ending", ["html", "md", "json"])
def test_audit_of_answers_writes_a_report(ending: str, sfumato_: Command) -> None:
    status, out, _ = sfumato_("audit", "--logits", *write_answers(), *ANSWERS, "-o", f"new/report.{ending}")
    assert (status, out.splitlines()[-1]) == (0, f"report: new/report.{ending}")
    assert "members.npz" in Path(f"new/report.{ending}").read_text(encoding="utf-8")


def test_json_of_answers_is_all_that_is_printed(sfumato_: Command) -> None:
    status, out, err = sfumato_("audit", "--logits", *write_answers(), *ANSWERS, "--json", "--output", "report.html")
    assert (status, err) == (0, "")
    record = json.loads(out)
    assert (record["format"], record["surface"], record["members"], record["nonmembers"]) == (1, "predictions", 200, 200)
    loss, gap = record["attacks"]
    assert (loss["name"], gap["name"]) == ("loss", "gap")
    for number in ("auc", "tpr_at_1", "balanced_accuracy"):
        assert loss[number]["low"] <= loss[number]["value"] <= loss[number]["high"]
    assert loss["auc"]["value"] > 0.8
    assert loss["tpr_at_01"]["value"] is None
    assert loss["tpr_at_01"]["missing"].startswith("too few non-members (200)")
    assert Path("report.html").exists()


def test_json_of_a_recipe_is_all_that_is_printed(sfumato_: Command) -> None:
    status, out, _ = sfumato_("audit", write_recipe(), "--json", "-o", "extra.md")
    assert status == 0
    assert out.isascii()
    assert json.loads(out) == json.loads(Path("runs/tiny/audit.json").read_text(encoding="utf-8"))
    assert Path("extra.md").read_text(encoding="utf-8").startswith("# What the features give away")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "an audit needs a recipe or --logits MEMBERS NONMEMBERS, got neither; give one: "),
        (("tiny.toml", *BOTH), "an audit needs a recipe or --logits MEMBERS NONMEMBERS, got both; give one: "),
        (("tiny.toml", "--attack", "loss"), "--attack goes with --logits, got it with tiny.toml; a recipe names its attacks"),
        (("--logits", "members.npz", "none.npz"), "none.npz"),
        ((*BOTH, "--attack", "los"), "no attack on predictions named 'los' (did you mean 'loss'?)"),
        ((*BOTH, "-o", "x.pdf"), "expected a report ending in .html, .md, .json, got 'x.pdf'; choose one of these"),
        (("tiny.toml", "-o", "x.pdf"), "expected a report ending in .html, .md, .json, got 'x.pdf'; choose one of these"),
        (("--logits", "members.npz", "members.npz"), "members and non-members must be different examples"),
    ],
)
def test_an_audit_of_nothing_or_of_two_things(arguments: tuple[str, ...], expected: str, refused: Callable[..., str]) -> None:
    write_recipe()
    write_answers(40)
    assert expected in refused("audit", *arguments)


def test_report_shows_runs_side_by_side(sfumato_: Command) -> None:
    for name, sigma in (("before", 0.0), ("after", 0.5)):
        assert sfumato_("audit", write_recipe(name=name, more=f'[[defenses]]\nname = "noise"\nsigma = {sigma}\n')).status == 0
    for ending in ("html", "md", "json"):
        status, out, _ = sfumato_("report", "runs/before", "runs/after/audit.json", "-o", f"new/both.{ending}")
        assert (status, out.splitlines()[-1]) == (0, f"report: new/both.{ending}")
        text = Path(f"new/both.{ending}").read_text()
        assert "before" in text
        assert "after" in text


def test_training_another_target_removes_the_audit_of_the_last_one(sfumato_: Command) -> None:
    sfumato_("audit", write_recipe())
    sfumato_("train", write_recipe())
    assert Path("runs/tiny/audit.json").exists()
    Path("runs/tiny/notes.txt").write_text("mine")
    sfumato_("train", write_recipe(("batch_size = 8", "batch_size = 4")))
    assert sorted(path.name for path in Path("runs/tiny").iterdir()) == [
        "notes.txt", "recipe.toml", "run.json", "weights.safetensors",
    ]  # fmt: skip


# Bad input: recipes


def test_all_faults_of_a_recipe_are_reported_at_once(refused: Callable[..., str]) -> None:
    changes = (("batch_size = 8", 'batch_sise = 8\nprecision = "float8"'), ("pictures = 8", "pictures = 0"))
    message = refused("train", write_recipe(*changes, ('"decoder"', '"decodr"'), more='[modle]\nname = "x"\n'))
    assert message.startswith("tiny.toml: 5 problems\n")
    for part in (
        "modle: unknown key (did you mean 'model'?)",
        "train.batch_sise: unknown key (did you mean 'batch_size'?)",
        "train.precision: expected 'float32' or 'bfloat16', found 'float8'",
        "attacks[0].name: no attack named 'decodr' (did you mean 'decoder'?)",
        "audit: pictures must be at least 1, got 0",
    ):
        assert f"\n  - {part}" in message


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("epochs = 1\nb", "epocs = 1\nb", "train.epocs: unknown key (did you mean 'epochs'?)"),
        ("epochs = 1\nb", 'epochs = "one"\nb', "train.epochs: expected a valid integer, found 'one'"),
        ('path = "pictures"', "path = 3", "data.path: expected a valid string, found 3"),
        ('cut = "1"', "", "model.cut: missing"),
        ('name = "decoder"', 'name = "decoder"\nlabel = [1]', "attacks[0].label: expected a string, found [1]"),
        ('path = "pictures"', 'path = "pictures"\nauxiliary = "public"', 'data: auxiliary = "public" needs public pictures'),
        ("[audit]", "[audit]\nseeds = [1, 1]", "audit: seeds must be different integers >= 0, got [1, 1]"),
        ("[audit]", '[device]\nmemory = "2.9 XB"\n[audit]', "device: memory must be a positive number, or a text such as"),
        ("[audit]", "[device]\nmacs = 1e6\nmemry = 3\n[audit]", "device.memry: unknown key (did you mean 'memory'?)"),
        ("[audit]", "[device]\n[audit]", "device: a device must limit memory or macs"),
        ("[data]", "[data", "not TOML: "),
    ],
)
def test_a_fault_of_a_recipe(old: str, new: str, expected: str, refused: Callable[..., str]) -> None:
    message = refused("audit", write_recipe((old, new)))
    assert message.startswith("tiny.toml: 1 problem\n")
    assert f"  - {expected}" in message


def test_a_recipe_that_is_not_there_or_not_text(refused: Callable[..., str]) -> None:
    assert refused("train", "none.toml") == (
        "expected a recipe (TOML) at none.toml, found none: No such file or directory; check the path\n"
    )
    assert "found a file that is not text; check the path" in refused("train", "pictures/left/00.png")


def test_an_audit_without_an_attack_is_refused_before_training(refused: Callable[..., str]) -> None:
    text = write_recipe(("[[attacks]]", "[unused]"))
    Path(text).write_text(RECIPE.split("[[attacks]]")[0])
    assert "recipe 'tiny' has no attack; add a table [[attacks]]" in refused("audit", text)


# Bad input: data


def test_missing_data_says_which_files_and_where_they_go(refused: Callable[..., str]) -> None:
    message = refused("train", write_recipe(('name = "folder"\npath = "pictures"', 'name = "mnist"')), "--data-root", "sets")
    assert message.startswith("mnist: its files are not there. Looked for\n  in sets/")
    assert "train-images-idx3-ubyte" in message
    assert "--data-root or SFUMATO_DATA (now sets)" in message
    message = refused("train", write_recipe(('"pictures"', '"none"')))
    assert message == "folder: expected a file or folder at none, but nothing is there; correct the path\n"


def test_a_corrupt_picture_is_named_and_may_be_skipped(refused: Callable[..., str], sfumato_: Command) -> None:
    recipe, bad = write_recipe(), Path("pictures/left/05.png").resolve()
    bad.write_bytes(bad.read_bytes()[:50])
    message = refused("audit", recipe)
    assert str(bad) in message
    assert "--skip-bad" in message
    status, out, _ = sfumato_("audit", recipe, "--skip-bad")
    assert status == 0
    assert f"left out 1 picture that could not be decoded: {bad}" in out
    record = json.loads(Path("runs/tiny/audit.json").read_text())
    assert record["data"]["skipped"] == [str(bad)]
    for ending in ("html", "md"):
        assert "05.png" in Path(f"runs/tiny/report.{ending}").read_text()


def test_a_corrupt_row_is_named_and_may_be_skipped(refused: Callable[..., str], sfumato_: Command) -> None:
    files = sorted(Path("pictures").rglob("*.png"))
    pictures = [file.read_bytes() for file in files]
    pictures[3] = b"no picture"
    pq.write_table(pa.table({"image": pictures, "label": [file.parent.name for file in files]}), "rows.parquet")
    recipe = write_recipe(('name = "folder"\npath = "pictures"', 'name = "parquet"\npath = "rows.parquet"'))
    message = refused("audit", recipe)
    assert "rows.parquet, row 3" in message
    assert "--skip-bad" in message
    assert sfumato_("audit", recipe, "--skip-bad").status == 0
    assert json.loads(Path("runs/tiny/audit.json").read_text())["data"]["skipped"] == ["rows.parquet, row 3"]


def test_pictures_of_unequal_size(refused: Callable[..., str], sfumato_: Command) -> None:
    Image.new("L", (9, 8)).save("pictures/left/05.png")
    message = refused("train", write_recipe())
    assert "pictures must be of equal size" in message
    assert "05.png is 9x8" in message
    assert sfumato_("train", write_recipe(('path = "pictures"', 'path = "pictures"\nsize = 8'))).status == 0


def test_pictures_of_another_size_than_the_model_takes(refused: Callable[..., str], place: Path) -> None:
    write_pictures(place / "large", side=12)
    message = refused("train", write_recipe(('"pictures"', '"large"'), ('"own_nets:small"', '"own_nets:fixed"')))
    assert message.startswith("own_nets:fixed must take pictures of 1x12x12, but failed on two of them: ")
    assert message.endswith("check the model's input size and channels\n")


# Bad input: models, cuts and weights


def test_a_cut_that_does_not_exist(refused: Callable[..., str]) -> None:
    assert refused("train", write_recipe(('cut = "1"', 'cut = "9"'))) == "the model has no cut '9'; clean cuts: 0, 1, 2\n"


def test_a_cut_that_is_not_clean(refused: Callable[..., str]) -> None:
    inside = '"resnet18"\nwidth = 0.125\ncut = "layer1.0.body"'
    assert refused("train", write_recipe(('"own_nets:small"\ncut = "1"', inside))) == (
        "cut 'layer1.0.body' is not clean: 2 values cross it (stem, layer1.0.body); nearest clean cuts: 'stem' and 'add'\n"
    )


def test_a_model_that_does_not_answer_for_the_classes(refused: Callable[..., str]) -> None:
    message = refused("train", write_recipe(('cut = "1"', 'cut = "1"\nwrong = 3')))
    assert "own_nets:small must answer two pictures with float logits of shape (2, 2), one a class" in message
    assert "of shape (2, 5); give its last layer 2 outputs" in message


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vgg12", "(did you mean 'vgg1"),
        ("own_nets:smal", "module 'own_nets' has no function 'smal' (did you mean 'small'?)"),
        ("nowhere:net", "no module named 'nowhere' for the model 'nowhere:net'"),
        ("own_nets:", "a model of your own is named 'module:function'"),
    ],
)
def test_a_model_that_does_not_exist(name: str, expected: str, refused: Callable[..., str]) -> None:
    assert expected in refused("train", write_recipe(("own_nets:small", name)))
    assert expected in refused("cuts", name)


class Bomb:
    """Leaves a trace where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, ("unpickled",)


def test_weights_that_cannot_be_loaded(refused: Callable[..., str]) -> None:
    recipe = write_recipe(('cut = "1"', 'cut = "1"\nweights = "start.safetensors"'))
    start = Path("start.safetensors")
    assert refused("train", recipe) == "expected a safetensors file at start.safetensors, found none; check the path\n"
    whole = {"0.weight": torch.zeros(4, 1, 3, 3), "0.bias": torch.zeros(4), "3.weight": torch.zeros(2, 256)}
    write_tensors(start, whole)
    start.write_bytes(start.read_bytes()[:-9])
    assert "expected a whole safetensors file, found start.safetensors" in refused("train", recipe)
    start.write_bytes(pickle.dumps(Bomb()))
    assert "Sfumato loads no pickles" in refused("train", recipe)
    assert not Path("unpickled").exists()
    torch.save(whole, start)
    assert "safetensors.torch.save_file(model.state_dict(), ...)" in refused("train", recipe)
    write_tensors(start, whole)
    message = refused("train", recipe)
    assert message.startswith("start.safetensors holds the weights of another model: 1 missing (3.bias)")
    write_tensors(start, {**whole, "3.bias": torch.zeros(2), "3.weight": torch.zeros(2, 4 * 12 * 12)})
    assert "1 of another shape (3.weight (2, 576) for (2, 256))" in refused("train", recipe)


# Bad input: the disk, options, interrupts


def test_no_write_that_fails_leaves_half_a_run(
    refused: Callable[..., str], sfumato_: Command, monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    """Let each write of an audit fail in its turn, until there is none left to fail."""
    recipe, fsync = write_recipe(), os.fsync
    for writes in range(20):
        left = [None] * writes

        def fails_in_its_turn(file: int, left: list[None] = left) -> None:
            if not left:
                no_space()
            left.pop()
            fsync(file)

        monkeypatch.setattr(os, "fsync", fails_in_its_turn)
        status, out, err = sfumato_("audit", recipe)
        if status == 0:
            break
        assert (status, out) == (2, "")
        assert "Traceback" not in err
        assert "sfumato: cannot write runs/" in err
        assert err.endswith("no space left on the disk; free some, or choose another folder\n")
        assert not Path("runs/tiny").exists()
        assert [*place.rglob("*.part")] == []
        shutil.rmtree("runs")
    assert writes == 15
    assert Path("runs/tiny/report.html").exists()


def test_a_full_disk_while_copying_leaves_the_run_that_was_there(sfumato_: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sfumato_("audit", write_recipe()).status == 0
    before = {path: path.read_bytes() for path in Path("runs/tiny").iterdir()}
    monkeypatch.setattr("shutil.copyfile", no_space)
    status, _, err = sfumato_("audit", write_recipe(("batch_size = 8", "batch_size = 4")))
    assert status == 2
    assert "no space left on the disk" in err
    assert {path: path.read_bytes() for path in Path("runs/tiny").iterdir()} == before
    assert sorted(path.name for path in Path("runs").iterdir()) == ["stages", "tiny"]


def test_no_space_for_streamed_pictures(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwrite", no_space)
    message = refused("train", write_recipe(('path = "pictures"', 'path = "pictures"\nbudget = 1000')))
    assert message.startswith("the decoded pictures need 1536 bytes in ")
    assert "No space left on device; free some space" in message


@pytest.mark.parametrize("runs", ["tiny.toml", "tiny.toml/below"])
def test_a_folder_of_runs_that_cannot_be_written(runs: str, refused: Callable[..., str]) -> None:
    message = refused("train", write_recipe(), "--runs", runs)
    assert message.startswith(f"--runs {runs}: expected a folder that can be written or made, but ")
    assert message.endswith("tiny.toml is a file; give another one\n")


def test_a_folder_of_runs_without_permission(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _, mode: not mode & os.W_OK)  # the tests may run as root, who may write anywhere
    assert "is a folder that may not be written; give another one" in refused("train", write_recipe())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--resume", "--restart"), "--resume and --restart exclude each other; give one"),
        (("--device", "gpu"), '--device must be "auto", "cpu" or a CUDA device that is there, got "gpu"; leave it out'),
        (("--device", "cuda:99"), 'got "cuda:99"'),
        (("--device", "meta"), 'got "meta"'),
    ],
)
def test_a_bad_option(options: tuple[str, ...], expected: str, refused: Callable[..., str]) -> None:
    assert expected in refused("train", write_recipe(), *options)


@pytest.mark.parametrize("shape", ["3,32", "3,32,0", "three", "-1,8,8", "²,8,8", ""])
def test_a_bad_shape(shape: str, refused: Callable[..., str]) -> None:
    message = refused("cuts", "lenet5", "--shape", shape)
    assert message == f'--shape must be channels, height and width, such as "3,32,32", got "{shape}"\n'


def test_no_classes(refused: Callable[..., str]) -> None:
    assert "classes must be at least 1, got 0" in refused("cuts", "lenet5", "--classes", "0")


def test_a_report_of_nothing(refused: Callable[..., str], place: Path) -> None:
    (place / "empty").mkdir()
    assert refused("report", "empty") == (
        "expected the folder of an audited run at empty, found no empty/audit.json; make one with: sfumato audit RECIPE\n"
    )
    assert refused("report", "none").startswith("expected the folder of an audited run at none, found no none;")
    (place / "empty" / "audit.json").write_text("{")
    assert "empty/audit.json" in refused("report", "empty")
    assert not Path("report.html").exists()


def test_a_report_of_another_ending(sfumato_: Command) -> None:
    sfumato_("audit", write_recipe())
    status, out, err = sfumato_("report", "runs/tiny", "-o", "x.doc")
    assert (status, out) == (2, "")
    assert err == "sfumato: expected a report ending in .html, .md, .json, got 'x.doc'; choose one of these\n"


@pytest.mark.parametrize("arguments", [("list", "nothing"), ("lst",), ("train",), ("train", "--resum", "x"), ("cuts",)])
def test_usage(arguments: tuple[str, ...], sfumato_: Command) -> None:
    status, out, err = sfumato_(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("Usage: sfumato")


# In a process of its own


def python_m(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "sfumato", *arguments]


def test_a_process_that_is_refused_exits_with_2_and_one_message(place: Path) -> None:
    done = subprocess.run(python_m("train", write_recipe(("epochs = 1\nb", "epocs = 1\nb"))), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("sfumato: tiny.toml: 1 problem\n  - train.epocs: unknown key (did you mean 'epochs'?)")
    assert_no_run(place)


def test_help_names_every_command() -> None:
    done = subprocess.run(python_m("--help"), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for command in ("demo", "list", "cuts", "train", "audit", "report"):
        assert f" {command} " in done.stdout


def test_an_interrupted_training_resumes_to_the_same_weights(sfumato_: Command, place: Path) -> None:
    recipe = write_recipe(("epochs = 1\nb", "epochs = 80\nb"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        python_m("train", recipe),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    while process.poll() is None and not [*place.rglob("checkpoint.safetensors")]:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "\nsfumato: stopped; what is done is kept, and the same command with --resume goes on\n" in err
    assert "Traceback" not in err
    assert_no_run(place)
    (checkpoint,) = place.rglob("checkpoint.safetensors")
    done = len(json.loads(read_tensors(checkpoint)[1]["history"]))
    assert 0 < done < 80

    neither = sfumato_("train", recipe)
    assert neither.status == 2
    assert "go on with --resume, or start over with --restart" in neither.err
    assert sfumato_("train", recipe, "--resume").status == 0
    assert not checkpoint.exists()
    assert sfumato_("train", recipe, "--runs", "whole").status == 0
    resumed, whole = (read_tensors(f"{runs}/tiny/weights.safetensors")[0] for runs in ("runs", "whole"))
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


# People in a classifier


@pytest.fixture
def people(place: Path) -> Path:
    """A recipe that attacks weights, in the folder of the newcomer."""
    (place / "people.toml").write_text(inversion_recipes.RECIPE)
    return place / "people.toml"


def test_an_audit_of_weights_writes_private_pictures_only_where_they_are_asked_for(
    sfumato_: Command, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, out, _ = sfumato_("audit", people)
    assert status == 0
    assert "The strongest attack on the weights (gmi, which sees the weights): " in out
    assert out.splitlines()[-1] == "report: runs/people/report.html"

    def private() -> list[object]:
        record = json.loads(Path("runs/people/audit.json").read_text())
        assert record["inversion"]["identities"] == 3
        return [exhibit["private"] for exhibit in record["inversion"]["gallery"]]

    assert private() == [None] * 3
    hidden = Path("runs/people/report.html").read_text()
    assert "--show-private" in hidden
    computed = inversion_recipes.note(monkeypatch)
    printed = sfumato_("audit", people, "--show-private", "--json", "-o", "shown.html")
    assert computed == []
    assert printed.status == 0
    record = json.loads(printed.out)
    assert record == json.loads(Path("runs/people/audit.json").read_text())
    assert all(private())
    shown = Path("shown.html").read_text()
    assert shown.count("data:image/png") > hidden.count("data:image/png")
    assert "--show-private" not in shown
    again = json.loads(sfumato_("audit", people, "--json").out)
    assert [exhibit["private"] for exhibit in again["inversion"]["gallery"]] == [None] * 3
    assert private() == [None] * 3, "who no longer asks leaves none in the folder of the run"


def test_report_shows_audits_of_weights_alone_side_by_side(sfumato_: Command, place: Path) -> None:
    data = quadrants.people(each=8)
    judge, net = sf.Evaluator(model="lenet5", epochs=1, gate=0.0), sf.build_model("cnn4", classes=4, shape=data.shape)
    settings = sf.PriorSettings(width=4, latent=8, steps=1, batch_size=4)
    prior = sf.train_prior("gan", data.part("public"), settings)
    attack = sf.GMI(steps=1, per_class=2)
    for name in ("before", "after"):
        found = sf.audit_inversion(net, data, attack, priors={"gan": prior}, evaluator=judge, title=name, show_private=True)
        found.save(f"{name}.json", show_private=name == "after")
    for ending in ("html", "md", "json"):
        status, out, _ = sfumato_("report", "before.json", "after.json", "-o", f"both.{ending}")
        assert (status, out.splitlines()[-1]) == (0, f"report: both.{ending}")
        text = Path(f"both.{ending}").read_text()
        assert "before" in text
        assert "after" in text
    hidden = Path("both.html").read_text().count("data:image/png")
    sfumato_("report", "before.json", "after.json", "-o", "both.html", "--show-private")
    assert Path("both.html").read_text().count("data:image/png") > hidden


def test_records_of_different_kinds_do_not_stand_side_by_side(sfumato_: Command, people: Path) -> None:
    found = sf.audit_answers(*write_answers(40), attacks=["loss"])
    found.save("answers.json")
    assert sfumato_("audit", people, "-o", "weights.json").status == 0
    status, _, err = sfumato_("report", "answers.json", "weights.json")
    assert (status, err) == (2, "sfumato: records of different kinds cannot stand side by side; report them apart\n")


def test_prior_train_is_a_command_and_its_prior_is_one_for_a_recipe(sfumato_: Command, people: Path) -> None:
    said = sfumato_("prior", "train", "--help")
    assert said.status == 0
    assert all(option in said.out for option in ("--data", "--kind", "--size", "--scale", "--steps", "--resume", "--restart"))
    quick = ("--size", 16, "--steps", 2, "--width", 4, "--batch", 4)
    status, out, _ = sfumato_("prior", "train", "--data", "portraits", *quick)
    assert (status, out.splitlines()[-1]) == (0, "prior: runs/priors/portraits-gan-16/prior.safetensors")
    path = "runs/priors/portraits-gan-16/prior.safetensors"
    people.write_text(inversion_recipes.RECIPE.replace("[prior.gan]", f'[prior.gan]\nweights = "{path}"'))
    record = json.loads(sfumato_("audit", people, "--json").out)
    (prior,) = record["inversion"]["priors"]
    assert (prior["kind"], prior["source"]) == ("gan", "loaded from prior.safetensors")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("private_identities = 4\n", "", "an adversary of the weights has pictures of others; say how many classes"),
        ("identities = 3", "identities = 9", "identities must be at most 4, the classes of the target, got 9"),
        ('model = "lenet5"', 'model = "cnn4"\noptions = { width = 0.25 }', "the evaluator must be of another architecture"),
        ("[prior.gan]", "[prior.gna]", "people.toml: 1 problem\n  - prior.gna: unknown key (did you mean 'gan'?)"),
        ("[prior.gan]", '[prior.gan]\nweights = "people.toml"', "people.toml"),
    ],
)
def test_what_is_wrong_with_an_attack_on_weights_is_one_message(
    old: str, new: str, expected: str, people: Path, refused: Callable[..., str]
) -> None:
    assert inversion_recipes.RECIPE.count(old) == 1
    people.write_text(inversion_recipes.RECIPE.replace(old, new))
    assert expected in refused("audit", people.name)
