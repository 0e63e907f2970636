# SPDX-License-Identifier: Apache-2.0
"""The command about layers: what it prints, the files that it writes, and what it says where it cannot be done."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

import sfumato.cli
from inversion_recipes import RECIPE
from sfumato.analysis.fisher_profile import FisherProfile
from sfumato.analysis.freezing_advice import Considered, FreezeAdvice
from sfumato.fisher_cli import _print_importance
from sfumato.fisher_report import FORMS, importance_html, importance_markdown, points
from sfumato.fisher_words import compare, recipe_lines, suggestion, unmeasured, verdict
from sfumato.importance_record import FreezeSearch, Importance, Rebuilding, importance_to_json
from sfumato.inversion_types import EvaluatorFacts
from sfumato.models.freezing import FreezePoint
from sfumato.types import Interval

LAYERS = ("c1", "c2", "c3", "out")
HALF = Interval(0.5, 0.4, 0.6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recipes, and the runs of one of them."""
    where = tmp_path_factory.mktemp("fisher")
    others = RECIPE.replace("private_identities = 4\n", "private_identities = 4\npretrain_identities = 2\n")
    (where / "small.toml").write_text(f"{others}[pretrain]\nepochs = 1\n")
    (where / "plain.toml").write_text('data.name = "digits"\nmodel.name = "lenet5"\n[[attacks]]\nname = "gap"\n')
    return where


def call(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["sfumato", "fisher", *map(str, arguments)])
    try:
        sfumato.cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def profile(task: str, *values: float) -> FisherProfile:
    each = torch.tensor([values, [1.25 * value for value in values]], dtype=torch.float64)
    return FisherProfile(task, LAYERS, (10, 2000, 30, 4), 3, each, torch.tensor([0, 1]))


def importance(chosen: int = 2, **changes: object) -> Importance:
    """Four layers, of which rebuilding needs the first; the freeze points after the first two of them."""
    names = ("", "c1", "c2")
    table = tuple(
        Considered(
            FreezePoint(name, 1000 * number, 9000 - 1000 * number), 0.9 - number / 50, number != 1, number / 4, 1 - number / 8
        )
        for number, name in enumerate(names)
    )
    found = Importance(
        title="faces",
        model="cnn4",
        data="portraits <b>",
        pictures="ab",
        defenses=("LabelSmoothing(alpha=-0.05)",),
        accuracy=HALF,
        evaluator=EvaluatorFacts("resnet18", Interval(0.9, 0.8, 1.0), 0.8, 100),
        naming=profile("classification", 1.0, 1.0, 2.0, 4.0),
        rebuilding=(Rebuilding("gmi", HALF, {"l2": profile("l2", 6.0, 2.0, 1.0, 0.0), "l1": profile("l1", 4.0, 2.0, 2.0, 0.0)}),),
        unreached=(),
        freezing=FreezeSearch(FreezeAdvice(table[chosen], 0.85, table), "gmi"),
        seed=7,
        recipe="cd",
        versions={"sfumato": "0"},
        hardware="CPU",
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def test_the_command_prints_layers_and_advice_and_writes_three_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert call("small.toml", "--accuracy", 0, "--trainings", 1, "--device", "cpu", monkeypatch=monkeypatch) == 0
    said, progress = capsys.readouterr()
    for text in (
        "share of the Fisher information, attack gmi",
        "4. classifier",
        "Rank correlation with depth",
        "→ f1",
        "read off",
    ):
        assert text in said, text
    assert '[[defenses]]\nname = "tl_dmi"\nfreeze = "f1"' in said
    assert said.endswith("report: runs/small/fisher.html\n")
    assert "Fisher information of small, gmi, l2: done" in progress
    assert [path.name for path in sorted((folder / "runs" / "small").iterdir())] == list(FORMS)
    record = json.loads((folder / "runs" / "small" / "fisher.json").read_text())
    assert (record["kind"], record["freezing"]["freeze"]) == ("fisher", "f1")
    accuracies = {point["freeze"]: f"{100 * point['accuracy']:.1f} %" for point in record["freezing"]["points"]}
    assert re.search(rf"→ f1 +132 +{accuracies['f1']} +measured", said)
    assert call("small.toml", "--accuracy", 0, "--trainings", 1, "--json", "--device", "cpu", monkeypatch=monkeypatch) == 0
    said, progress = capsys.readouterr()
    assert json.loads(said) == record
    assert all("(found)" in line for line in progress.splitlines() if line)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("small.toml", "--accuracy", 0.9), "--accuracy is in percent, got 0.9; write 90 for 90 %"),
        (("small.toml", "--accuracy", 1), "--accuracy is in percent, got 1; write 100 for 100 %"),
        (("small.toml", "--accuracy", 101), "--accuracy must be from 0 to 100 percent, got 101"),
        (("small.toml", "--accuracy", "nan"), "--accuracy must be from 0 to 100 percent, got nan"),
        (("small.toml", "--attack", "gmo"), "no attack on weights labeled 'gmo' (did you mean 'gmi'?); it has gmi"),
        (("small.toml", "--accuracy", 100), "wanted an accuracy of 100 %, and with nothing frozen small reaches"),
        (("plain.toml",), "recipe 'plain' has attacks of other kinds alone, gap; add a table [[attacks]]"),
        (("none.toml",), "expected a recipe (TOML) at none.toml, found none"),
        (("small.toml", "--resume", "--restart"), "--resume and --restart exclude each other"),
    ],
)
def test_what_is_wrong_is_one_message(
    arguments: tuple[object, ...], said: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert call(*arguments, "--device", "cpu", monkeypatch=monkeypatch) == 2
    out, err = capsys.readouterr()
    message = err[err.index("sfumato: ") :]  # after the progress
    assert (out, message.count("\n")) == ("", 1)
    assert said in message


@pytest.mark.parametrize(
    ("rebuilding", "how"),
    [
        (Interval(0.5, 0.41, 0.6), "more"),
        (Interval(0.5, 0.4, 0.6), ""),
        (Interval(0.1, 0.05, 0.15), "less"),
        (Interval(0.1, 0.05, 0.2), ""),
        (Interval(*[float("nan")] * 3), ""),
    ],
)
def test_no_difference_is_claimed_where_intervals_overlap(rebuilding: Interval, how: str) -> None:
    assert compare(rebuilding, Interval(0.3, 0.2, 0.4)) == how


def test_the_verdict_compares_layers_before_the_embedding() -> None:
    (told,) = verdict(importance())
    assert told.startswith(
        "Rebuilding people weighs the first layers more than naming them does: the first third of those before"
    )
    assert "holds 66.7 % (66.7 to 66.7) of the information for rebuilding by gmi, and 25.0 % (25.0 to 25.0)" in told
    (less,) = verdict(importance(naming=profile("classification", 7.0, 1.0, 1.0, 1.0)))
    assert less.startswith("Rebuilding people weighs the first layers less than")
    (same,) = verdict(importance(naming=profile("classification", 6.0, 2.0, 1.0, 50.0)))
    assert same.startswith("No difference can be shown between how")


def test_the_suggestion_is_marked_and_its_lines_are_toml() -> None:
    found = importance()
    search = found.freezing
    assert search is not None
    assert [row.label for row in points(search)] == ["nothing frozen", "c1", "→ c2"]
    assert points(search)[1].cells == ("8,000", "88.0 %", "read off", "25.0 %", "87.5 %")
    assert tomllib.loads(recipe_lines(search)) == {"defenses": [{"name": "tl_dmi", "freeze": "c2"}]}
    assert tomllib.loads(recipe_lines(replace(search, bn="track")))["defenses"][0]["bn"] == "track"
    assert suggestion(search).startswith(
        "For 85.0 % accuracy, freeze up to c2: 7,000 parameters are left to train, which reached 86.0 %"
    )
    nothing = importance(chosen=0).freezing
    assert nothing is not None
    assert recipe_lines(nothing) == ""
    assert suggestion(nothing) == "Freeze nothing: no freeze point that was trained keeps 85.0 % accuracy."
    assert points(nothing)[0].label == "→ nothing frozen"


def test_what_was_not_measured_is_said() -> None:
    told = "\n".join(unmeasured(importance(unreached=("kedmi",), evaluator=EvaluatorFacts("resnet18", HALF, 0.8, 100))))
    for text in (
        "The evaluator (resnet18) names 50.0 % (40.0 to 60.0) of held-out pictures right, below its gate of 80.0 %",
        "Rebuilding by kedmi: it reached no class.",
        "no layer of the model gives a map",
        "one model was trained, with seed 7",
        "over 2 classes, and rough below 20",
        "Freeze points that were not trained, 1 of 3:",
    ):
        assert text in told, text
    assert "Where to freeze: no accuracy was asked for." in unmeasured(importance(freezing=None))


class _Tags(HTMLParser):
    """Notes what a page asks for, and whether its tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.asked: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)
        self.asked += [str(value) for name, value in attributes if name in ("src", "href")]

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_holds_everything_and_asks_for_nothing() -> None:
    found = importance()
    page, tags = importance_html(found), _Tags()
    tags.feed(page)
    assert tags.open == []
    assert all(asked.startswith("#") for asked in tags.asked)
    assert "portraits &lt;b&gt;" in page
    assert page.count("<svg") == 2  # wide and narrow
    assert '<th scope="row">→ c2</th>' in page
    assert "freeze = &#34;c2&#34;" in page
    assert "2. c2" in page
    assert 'href="#freezing"' not in importance_html(replace(found, freezing=None))


def test_markdown_has_every_table_and_escapes_what_is_said() -> None:
    text = importance_markdown(importance())
    assert "| 1. c1 | 10 | 12.5 % (12.5 to 12.5) |" in text
    assert "| → c2 | 7,000 | 86.0 % | measured | 50.0 % | 75.0 % |" in text
    assert 'freeze = "c2"\n```' in text
    assert "portraits \\<b\\>" in text
    assert "## Where to freeze" not in importance_markdown(importance(freezing=None))


def test_the_record_is_plain_and_the_terminal_shows_no_counts(capsys: pytest.CaptureFixture[str]) -> None:
    found = importance(freezing=None)
    record = importance_to_json(found)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["freezing"] is None
    _print_importance(found)
    said = capsys.readouterr().out
    assert "where to freeze" not in said
    assert "2,000" not in said
