# SPDX-License-Identifier: Apache-2.0
"""The commands about pairs: a server that is killed and started again, and what people answered."""

from __future__ import annotations

import functools
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import sfumato.cli
from example_pairs import ran
from sfumato.studies.answers import read_answers


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the small study, run."""
    return ran(tmp_path_factory.mktemp("runs"))[1]


def call(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["sfumato", "study", *map(str, arguments)])
    try:
        sfumato.cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@contextmanager
def serving(run: Path, answers: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command in a process of its own, and the address of its page."""
    command = [sys.executable, "-m", "sfumato", "study", "serve-pairs", str(run), "--no-browser", "--answers", str(answers)]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a suite in the background has it ignored
    with subprocess.Popen(command, preexec_fn=heard, **pipes) as process:  # type: ignore[call-overload]
        try:
            assert process.stdout is not None
            for line in process.stdout:
                found = re.search(r"page: (http://127\.0\.0\.1:\S+/)", line)
                if found:
                    break
            else:
                pytest.fail(process.stderr.read() if process.stderr else "")
            yield process, found[1]
        finally:
            process.kill()


def post(url: str, action: str, **values: object) -> dict[str, Any]:
    host, path = url.removeprefix("http://").split("/", 1)
    connection = http.client.HTTPConnection(host, timeout=10)
    headers = {"Origin": f"http://{host}", "Content-Type": "application/json"}
    connection.request("POST", f"/{path}{action}", json.dumps(values), headers)
    reply = connection.getresponse()
    told: dict[str, Any] = json.loads(reply.read())
    connection.close()
    assert reply.status == 200, told
    return told


def test_a_server_that_is_killed_loses_nothing_and_goes_on(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = tmp_path / "answers.jsonl"
    with serving(run, answers) as (process, url):
        post(url, "enter", participant="anna")
        first = post(url, "show", participant="anna")
        post(url, "answer", participant="anna", key=first["key"], said="left")
        post(url, "show", participant="anna")
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert len(read_answers(answers)[1]) == 1
    with serving(run, answers) as (process, url):
        assert post(url, "enter", participant="anna") == {"participant": "anna", "done": 1, "total": 3}
        assert call("serve-pairs", run, "--no-browser", "--answers", answers, monkeypatch=monkeypatch) == 2
        assert "another server is storing answers" in capsys.readouterr().err
        process.send_signal(signal.SIGINT)
        said, error = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "what they come to: sfumato study pairs-report" in said
    assert error == ""


def test_what_people_answered_is_shown_and_written(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sfumato.studies.pairs_server.PairsServer.serve_forever", _answering)
    assert (
        call(
            "serve-pairs",
            run,
            "--no-browser",
            "--participant",
            "anna",
            "--rows",
            "Smoothed",
            "--rows",
            "Plain",
            monkeypatch=monkeypatch,
        )
        == 0
    )
    said = capsys.readouterr().out
    assert "3 pairs of 'Smoothed' and 'Plain', attack gmi; 0 answers so far" in said
    assert "warning" not in said
    assert call("pairs-report", run / "study.json", monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    for part in ("participant", "anna", "of 3 answers", "exact binomial", "87.1 %", "pairs.md"):
        assert part in said
    record = json.loads((run / "pairs.json").read_text())
    assert record["first"] + record["second"] == 3
    assert record["facts"]["rows"] == ["Smoothed", "Plain"]
    assert "| anna |" in (run / "pairs.md").read_text()
    assert not list(run.glob("*.png"))
    assert call("serve-pairs", run, "--no-browser", monkeypatch=monkeypatch) == 2
    assert "found answers on others: 3 of gmi on 'Smoothed' and 'Plain'" in capsys.readouterr().err


def _answering(server: Any, poll_interval: float) -> None:
    """Somebody who always takes the left picture, and then stops the server."""
    server.sittings.enter("anna")
    while (shown := server.sittings.show("anna")) is not None:
        server.sittings.answer("anna", shown.key, "left")
    raise KeyboardInterrupt


def test_the_page_is_opened_unless_told_not_to(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("sfumato.studies.pairs_server.PairsServer.serve_forever", _answering)
    assert call("serve-pairs", run, "--answers", tmp_path / "a.jsonl", monkeypatch=monkeypatch) == 0
    assert len(opened) == 1
    assert opened[0].startswith("http://127.0.0.1:")
    assert call("serve-pairs", run, "--answers", tmp_path / "b.jsonl", "--no-browser", monkeypatch=monkeypatch) == 0
    assert len(opened) == 1


def test_an_address_that_others_reach_is_warned_of(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sfumato.studies.pairs_server.PairsServer.serve_forever", _answering)
    answers = tmp_path / "a.jsonl"
    assert call("serve-pairs", run, "--answers", answers, "--no-browser", "--host", "0.0.0.0", monkeypatch=monkeypatch) == 0
    assert "warning: the page shows private pictures" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve-pairs", "nothing"], "expected the folder of a study that was run at nothing"),
        (["pairs-report", "nothing"], "make one with: sfumato study run NAME"),
        (["pairs-report", "RUN", "--answers", "none.jsonl"], "collect some with: sfumato study serve-pairs RUN"),
        (["serve-pairs", "RUN", "--no-browser", "--rows", "Plain"], "give --rows twice"),
        (["serve-pairs", "RUN", "--no-browser", "--attack", "ppa"], "one of 'gmi'"),
        (["serve-pairs", "RUN", "--no-browser", "--participant", "x" * 70], "at most 60 letters"),
        (["serve-pairs", "RUN", "--no-browser", "--runs", "elsewhere"], "found it gone; make it again"),
    ],
)
def test_what_is_wrong_is_one_message(
    run: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(*(run if one == "RUN" else one for one in arguments), monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("sfumato: ")
