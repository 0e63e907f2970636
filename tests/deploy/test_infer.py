# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image
from scripted_server import ScriptedServer, answer, hang, refuse, scripted
from toy_bundles import SHAPE, rewrite, write_bundle
from typer.testing import CliRunner

from sfumato.cli import app
from sfumato.deploy import infer
from sfumato.deploy.infer import TOKEN, main

ROWS = np.random.default_rng(0).integers(0, 256, (20, *SHAPE), np.uint8)
NO_TORCH = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise AssertionError("torch was imported")
sys.meta_path.insert(0, Blocked())
from sfumato.deploy.infer import main
status = main(sys.argv[1:])
theirs = {name.split(".")[0] for name in sys.modules} - sys.stdlib_module_names
ours = {name for name in sys.modules if name.split(".")[0] == "sfumato"}
print(*sorted(theirs), "/", *sorted(ours), file=sys.stderr)
sys.exit(status)
"""
ALLOWED = {"sfumato", "numpy", "onnxruntime", "grpc", "google", "tritonclient", "PIL"}
PICTURES = {"sfumato.data", "sfumato.data.crop", "sfumato.data.picture"}
BELOW = {"rapidjson", "packaging", "ml_dtypes", "typing_extensions", "defusedxml", "flatbuffers"}  # what those import
START = {"__main__", "__mp_main__", "_distutils_hack", "_virtualenv", "sitecustomize", "usercustomize", "cython_runtime"}


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN, raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a bundle, an array of pictures and a folder of pictures."""
    np.save(tmp_path / "rows.npy", ROWS)
    (tmp_path / "pictures").mkdir()
    for name, level in (("dark.png", 10), ("light.png", 200)):
        Image.new("L", (9, 7), level).save(tmp_path / "pictures" / name)
    return tmp_path


@contextmanager
def serving(folder: Path, *script: Callable) -> Iterator[ScriptedServer]:
    with scripted(write_bundle(folder / "bundle"), *script) as server:
        yield server


def run(folder: Path, server: ScriptedServer, *arguments: str) -> int:
    return main([str(folder / "bundle"), "--server", server.address, *arguments])


def test_a_table_of_80_columns(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(folder) as server:
        assert run(folder, server, str(folder / "pictures"), str(folder / "rows.npy")) == 0
    out, err = capsys.readouterr()
    about, blank, heading, *rows = out.splitlines()
    assert heading.split() == ["picture", "answer", "probability", "head", "ms", "way", "ms"]
    assert "64 bytes a picture (1x4x4, float32)" in about
    assert (blank, err, len(rows)) == ("", "", 22)
    assert max(len(line) for line in out.splitlines()) <= 80
    assert {len(line) for line in rows} == {len(heading)}
    assert "dark.png " in rows[0]
    assert all(row[31:].split()[0] in ("upper", "lower") for row in rows)


def test_lines_of_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(folder) as server:
        assert run(folder, server, str(folder / "rows.npy"), "--json", "--batch", "6") == 0
        assert len(server.requests) == 4
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["picture"] for one in records] == [f"{folder}/rows.npy[{at}]" for at in range(20)]
    truth = (2 * ROWS.astype(np.float32) / 255).reshape(20, 2, 8).sum(2)
    assert np.abs(np.array([one["values"] for one in records]) - truth).max() < 1e-5
    assert all(one["label"] == ("upper", "lower")[int(np.argmax(one["values"]))] for one in records)
    assert all(0.5 <= one["probability"] <= 1 and one["tries"] == 1 and one["way_ms"] > 0 for one in records)


def test_arrays_of_two_types_are_two_requests(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(folder / "float.npy", ROWS.astype(np.float32) / 255)
    with serving(folder) as server:
        assert run(folder, server, str(folder / "rows.npy"), str(folder / "float.npy"), "--json", "--batch", "32") == 0
        assert len(server.requests) == 2
    values = np.array([json.loads(line)["values"] for line in capsys.readouterr().out.splitlines()])
    np.testing.assert_allclose(values[:20], values[20:], rtol=1e-6)


def test_a_picture_on_standard_input(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((folder / "pictures" / "dark.png").read_bytes())))
    with serving(folder) as server:
        assert run(folder, server, "-", "--json") == 0
    assert json.loads(capsys.readouterr().out)["picture"] == "-"


def test_bad_pictures_end_it_or_are_passed_over(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "pictures" / "bad.png").write_bytes(b"bad")
    with serving(folder) as server:
        assert run(folder, server, str(folder / "rows.npy"), str(folder / "pictures"), "--json") == 2
        out, err = capsys.readouterr()
        assert len(out.splitlines()) == 20  # what came before it is answered, in a batch that is not full too
        assert "bad.png: expected a picture" in err
        assert run(folder, server, str(folder / "pictures"), "--skip-bad", "--json") == 0
        out, err = capsys.readouterr()
        assert len(out.splitlines()) == 2
        assert err.startswith("sfumato: passed over 1 of 3; the first: ")
        assert run(folder, server, str(folder / "pictures" / "bad.png"), "--skip-bad") == 2
        assert "expected at least one picture" in capsys.readouterr().err


def test_what_came_before_an_error_is_whole_lines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(folder, *[_fails_at_12] * 4) as server:
        assert run(folder, server, str(folder / "rows.npy"), "--json", "--batch", "6") == 2
    out, err = capsys.readouterr()
    assert out.endswith("}\n")
    assert [json.loads(line)["picture"] for line in out.splitlines()] == [f"{folder}/rows.npy[{at}]" for at in range(12)]
    assert err.startswith("sfumato: expected an answer from 127.0.0.1:")
    assert err.count("\n") == 1


def _fails_at_12(server: ScriptedServer, context: grpc.ServicerContext, content: bytes) -> bytes:
    """Fail on the batch that holds the picture 12, whenever it comes."""
    if np.float32(2 * ROWS[12].astype(np.float32) / 255).tobytes()[:16] in content:
        context.abort(grpc.StatusCode.INTERNAL, "broken")
    return answer(server, context, content)


def test_another_export_is_found_out_before_a_picture_is_sent(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(folder) as server:
        write_bundle(folder / "bundle", wire="uint8")
        assert run(folder, server, str(folder / "rows.npy")) == 2
        assert not server.requests
    assert "serve this very bundle" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["file", "environment"])
def test_a_token_comes_from_a_file_or_the_environment(
    folder: Path, where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = []
    if where == "file":
        (folder / "token").touch(0o600)
        (folder / "token").write_text("from-a-file\n")
        given = ["--token-file", str(folder / "token")]
    monkeypatch.setenv(TOKEN, "from-the-environment")
    with serving(folder) as server:
        assert run(folder, server, str(folder / "rows.npy"), *given) == 0
        assert server.metadata["authorization"] == f"Bearer from-{'a-file' if where == 'file' else 'the-environment'}"
    assert "from-" not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: --server"),
        (["b", "--server", "h:1"], "required: PICTURES"),
        (["b", "p", "--server", "h:1", "--sticky", "q"], "picture or a folder of pictures at p"),
        (["b", "p", "--server", "h:1", "--token", "secret"], "unrecognized arguments: --token"),
        (["b", "p", "--server", "h:1", "--batch", "x"], "--batch: invalid int value"),
        (["b", "p", "--server", "h:1", "--batch", "0"], "--batch must be from 1 to 1024"),
        (["b", "nowhere", "--server", "h:1"], "expected a picture or a folder of pictures at nowhere"),
        (["b", "-", "--server", "h:1"], "expected a bundle with manifest.json at b"),
        (["{}", "-", "--server", "h"], "HOST:PORT"),
        (["{}", "-", "--server", "h:1", "--deadline", "0"], "deadline must be above 0"),
        (["{}", "-", "--server", "h:1", "--retries", "-1"], "retries must be at least 0"),
        (["{}", "-", "--server", "h:1", "--threads", "0"], "threads must be from 1 to 1024"),
        (
            ["{}", "-", "--server", "h:1", "--token-file", "nowhere"],
            "--token-file nowhere: expected a file with a token: No such file",
        ),
        (["{}", "-", "--server", "h:1", "--certificate", "a.pem"], "give both or neither"),
    ],
)
def test_what_cannot_be_is_one_message(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path)
    assert main([one.format(tmp_path) for one in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("sfumato: ")
    assert message in err
    assert err.count("\n") == 1
    assert "secret" not in err or "--token" in message


def test_terminals_are_given_plain_letters_only(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "pictures" / "a\x1b[2J\n.png").write_bytes((folder / "pictures" / "dark.png").read_bytes())
    with serving(folder) as server:
        assert run(folder, server, str(folder / "pictures")) == 0
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.splitlines())
    assert len(out.splitlines()) == 6


def test_labels_and_errors_are_plain_letters_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "pictures" / "bad\x1b[2J\n.png").write_bytes(b"bad")
    (folder / os.fsdecode(b"caf\xe9.npy")).write_bytes((folder / "rows.npy").read_bytes())
    with serving(folder) as server:
        changed = replace(server.manifest, labels=("\x1b]0;mine\x07", "\u202e\udcff\n"[:1]), leak="all\x1b[2J")
        rewrite(folder / "bundle", changed)
        assert run(folder, server, str(folder / "pictures"), str(folder / os.fsdecode(b"caf\xe9.npy")), "--skip-bad") == 0
        assert run(folder, server, str(folder / "pictures")) == 2
    out, err = capsys.readouterr()
    assert all(line.isprintable() for line in (out + err).splitlines())
    assert "?]0;mine?" in out
    assert "caf?.npy" in out
    assert [line.split(":")[0] for line in err.splitlines()] == ["sfumato"] * 2


def test_numbers_instead_of_a_label_for_an_embedding(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(folder) as server:
        rewrite(folder / "bundle", replace(server.manifest, task="reidentification", labels=()))
        assert run(folder, server, str(folder / "pictures")) == 0
        assert run(folder, server, str(folder / "pictures"), "--json") == 0
    *table, one, _ = capsys.readouterr().out.splitlines()
    assert [row[31:60].strip() for row in table[-2:]] == ["2 numbers"] * 2
    assert (json.loads(one)["label"], json.loads(one)["probability"], len(json.loads(one)["values"])) == (None, None, 2)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_terminal_without_the_letters_of_a_label(folder: Path, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(screen, encoding=encoding))
    with serving(folder) as server:
        rewrite(folder / "bundle", replace(server.manifest, labels=("貓", "貓")))
        assert run(folder, server, str(folder / "pictures")) == 0
    assert ("貓" if encoding == "utf-8" else " ? ").encode() in screen.getvalue()


def test_a_full_disk_is_one_line(folder: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with serving(folder) as server, open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "sfumato", "infer", str(folder / "bundle"), "--server", server.address, "--json"]
        done = subprocess.run(
            [*command, str(folder / "rows.npy")], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert done.returncode == 2
    assert done.stderr.startswith("sfumato: expected to write the answers, but: No space left")
    assert done.stderr.count("\n") == 1


def test_a_token_that_is_none_is_not_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(folder) as server:
        (folder / "token").touch(0o600)
        for content in ("caf\u00e9-secret".encode(), b"secret two", b"", b"secret" * 200):
            (folder / "token").write_bytes(content)
            assert run(folder, server, str(folder / "rows.npy"), "--token-file", str(folder / "token")) == 2
        assert not server.metadata
    out, err = capsys.readouterr()
    assert "secret" not in out + err
    first, *others = err.splitlines()
    assert first == f"sfumato: --token-file {folder}/token: expected a file with a token: it is not ASCII; check the path"
    assert len(others) == 3
    assert all(f"--token-file {folder}/token: expected a token and nothing else" in line for line in others)


def test_a_token_that_others_can_read_is_not_used(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "token").write_text("secret")
    (folder / "token").chmod(0o640)
    with serving(folder) as server:
        assert run(folder, server, str(folder / "rows.npy"), "--token-file", str(folder / "token")) == 2
        assert not server.metadata
    assert "expected a file that its owner alone can read, found mode 640; chmod 600" in capsys.readouterr().err


def test_who_reads_may_stop_reading(folder: Path) -> None:
    np.save(folder / "rows.npy", np.repeat(ROWS, 100, 0))
    with serving(folder) as server:
        command = [sys.executable, "-m", "sfumato", "infer", str(folder / "bundle"), "--server", server.address, "--json"]
        with subprocess.Popen([*command, str(folder / "rows.npy")], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as done:
            assert done.stdout is not None
            assert done.stdout.readline().startswith(b"{")
            done.stdout.close()
            assert done.stderr is not None
            assert (done.stderr.read(), done.wait(20)) == (b"", 0)


def test_an_interrupt_is_one_line(folder: Path) -> None:
    with serving(folder, hang) as server:
        # A shell starts what it puts into the background deaf to this signal, and the tests may be there.
        start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from sfumato.cli import main; main()"
        command = [sys.executable, "-c", start, "infer", str(folder / "bundle"), "--server", server.address]
        with subprocess.Popen([*command, str(folder / "rows.npy")], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as done:
            end = time.monotonic() + 20
            while not server.requests and time.monotonic() < end:
                time.sleep(0.02)
            done.send_signal(signal.SIGINT)
            _, err = done.communicate(timeout=20)
    assert (done.returncode, err.decode().strip()) == (130, "sfumato: stopped; what is printed is whole")


def test_nothing_imports_torch_or_anything_else_that_a_device_has_not(folder: Path) -> None:
    with serving(folder) as server:
        arguments = [str(folder / "bundle"), "--server", server.address, "--json", "--sticky", str(folder / "pictures")]
        done = subprocess.run(
            [sys.executable, "-c", NO_TORCH, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, TOKEN: "t"},
        )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    theirs, ours = (part.split() for part in done.stderr.split("/"))
    assert {name for name in theirs if not name.startswith("_cython")} - START <= ALLOWED | BELOW
    beside = {name for name in ours if not name.startswith("sfumato.deploy")}
    assert beside == {"sfumato", "sfumato.cores", "sfumato.errors", *PICTURES}


def test_the_full_command_line_passes_everything_on(folder: Path) -> None:
    runner = CliRunner()
    listed = runner.invoke(app, ["--help"])
    assert "infer" in listed.output
    helped = runner.invoke(app, ["infer", "--help"])
    assert "usage: sfumato infer" in helped.output
    assert helped.exit_code == 0
    with serving(folder, refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "1")) as server:
        given = ["infer", str(folder / "bundle"), "--server", server.address, "--json", str(folder / "rows.npy")]
        assert len(runner.invoke(app, given).output.splitlines()) == 20
        assert runner.invoke(app, [*given, "--no-such"]).exit_code == 2


def test_the_end_of_a_long_name_is_shown() -> None:
    assert infer._short("x" * 50 + "/end.png", 12) == "...x/end.png"
    assert infer._short("exactly", 7) == "exactly"


def test_an_empty_variable_is_no_token(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, "")
    with serving(folder) as server:
        assert run(folder, server, str(folder / "rows.npy")) == 0
        assert "authorization" not in server.metadata
