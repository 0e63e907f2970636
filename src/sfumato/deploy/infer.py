# SPDX-License-Identifier: Apache-2.0
"""`sfumato infer`: pictures on a device, answers on its standard output.

A device has no PyTorch, and no room for the libraries that draw the tables of the other commands: this one has argparse and plain
text.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from sfumato.deploy.asking.answers import Answer
from sfumato.deploy.asking.channel import TOKEN_SHAPE, Access, is_token
from sfumato.deploy.asking.pictures import Picture, find_pictures, read_pictures
from sfumato.deploy.asking.refusals import plain
from sfumato.deploy.client import BATCH_MOST, DEADLINE, RETRIES, Client
from sfumato.deploy.edge import Edge
from sfumato.deploy.manifest import Manifest
from sfumato.deploy.private_file import require_private
from sfumato.errors import ConfigError, CorruptPictureError, DataError, SfumatoError, StorageError

TOKEN = "SFUMATO_TOKEN"  # noqa: S105 -- its name
"""The environment variable that a token is taken from where no file is named."""

_LONGEST_TOKEN = 1024  # letters that are read of its file
_WIDTH, _NAME_WIDTH, _LABEL_WIDTH = 80, 29, 16
_HEADING = f"{'picture':<{_NAME_WIDTH}}  {'answer':<{_LABEL_WIDTH}}  probability  head ms  way ms"


def main(arguments: Sequence[str]) -> int:
    """Run the command.

    Args:
        arguments: those after `sfumato infer`.

    Returns:
        The exit status: 0, 2 after an error of ours, whose message is on standard error, or 130 after an interrupt.

    Example:
        >>> main(["no/such/bundle", "--server", "localhost:8001", "a.png"])
        2
    """
    try:
        _run(_parser().parse_intermixed_args(arguments))
    except SfumatoError as error:
        print(f"sfumato: {plain(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nsfumato: stopped; what is printed is whole", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever reads has seen enough
        pass
    return 0


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are ours."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see: {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="sfumato infer",
        allow_abbrev=False,
        description="Run the head of a bundle on this device, and ask the server that has its tail. PyTorch is not needed.",
        epilog=f"A token is read from --token-file or from the environment variable {TOKEN}, never from the command line. "
        "In the table, 'head ms' is what the head took for one picture, 'way ms' the time from sending a request to its answer, "
        "the same for all its pictures.",
    )
    add = parser.add_argument
    add("bundle", metavar="BUNDLE", help="folder with at least manifest.json and head.onnx")
    add("pictures", metavar="PICTURES", nargs="+", help="files, folders, arrays (.npy), or - for standard input")
    add("--server", metavar="HOST:PORT", required=True, help="of the Open Inference Protocol over gRPC")
    add("--token-file", metavar="FILE", help="holds the token alone")
    add("--ca", metavar="FILE", help="certificates, PEM, that the server's must descend from (default: the usual ones)")
    add("--certificate", metavar="FILE", help="this device's own certificate, PEM")
    add("--key", metavar="FILE", help="its private key, PEM")
    add("--deadline", metavar="SECONDS", type=float, default=DEADLINE, help="for all tries of a request (default: %(default)g)")
    again = "how often to ask again, at most, where that is safe (default: %(default)s)"
    add("--retries", metavar="N", type=int, default=RETRIES, help=again)
    add("--batch", metavar="N", type=int, default=16, help="pictures in one request (default: %(default)s)")
    add("--threads", metavar="N", type=int, default=1, help="that the head runs with (default: %(default)s)")
    add("--sticky", action="store_true", help="give byte-identical pictures identical noise, until this command ends")
    add("--insecure", action="store_true", help="speak plain text to a server that is not on this machine")
    add("--skip-bad", action="store_true", help="pass over pictures that cannot be decoded, and say how many")
    add("--json", action="store_true", help="print JSON lines, with all numbers")
    return parser


def _run(options: argparse.Namespace) -> None:
    if not 1 <= options.batch <= BATCH_MOST:
        raise ConfigError(f"--batch must be from 1 to {BATCH_MOST}, got {options.batch}")
    names = find_pictures(options.pictures)
    access = Access(
        token=_token(options.token_file),
        ca=options.ca,
        certificate=options.certificate,
        key=options.key,
        insecure=options.insecure,
    )
    edge = Edge(options.bundle, sticky=options.sticky, threads=options.threads)
    skipped: list[CorruptPictureError] = []
    pictures = read_pictures(names, edge.manifest.picture.shape, skipped=skipped if options.skip_bad else None)
    with Client(edge, options.server, access=access, deadline=options.deadline, retries=options.retries) as client:
        client.check()
        if not options.json:
            _write([_about(edge.manifest), _HEADING])
        count = _print_answers(client, pictures, options.batch, _json_line if options.json else _table_line)
    if skipped:
        of = count + len(skipped)
        print(f"sfumato: passed over {len(skipped)} of {of}; the first: {plain(str(skipped[0]))}", file=sys.stderr)
    if not count:
        raise DataError("expected at least one picture that can be decoded, found none; name others")


def _print_answers(client: Client, pictures: Iterator[Picture], batch: int, show: Callable[[str, Answer], str]) -> int:
    """Print the answers as they come, and return how many there were."""
    names: list[list[str]] = []
    count = 0
    for answers in client.stream(_batches(pictures, batch, names)):
        _write([show(name, answer) for name, answer in zip(names.pop(0), answers, strict=True)])
        count += len(answers)
    return count


def _batches(pictures: Iterator[Picture], size: int, names: list[list[str]]) -> Iterator[NDArray[np.generic]]:
    """Yield the pixels of pictures, so many of one type at a time, and note their names; then raise what ended the pictures."""
    group: list[Picture] = []

    def stacked() -> NDArray[np.generic]:
        names.append([one.name for one in group])
        return np.stack([one.pixels for one in group])

    ending: SfumatoError | None = None
    try:
        for picture in pictures:
            if group and picture.pixels.dtype != group[0].pixels.dtype:
                yield stacked()
                group = []
            group.append(picture)
            if len(group) == size:
                yield stacked()
                group = []
    except SfumatoError as error:
        ending = error
    if group:
        yield stacked()
    if ending is not None:
        raise ending


def _write(lines: list[str]) -> None:
    """Print whole lines, at once, in letters that the standard output has."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write("".join(f"{line}\n" for line in lines).encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left must not fail once more at exit
        if isinstance(error, BrokenPipeError):
            raise
        raise StorageError(f"expected to write the answers, but: {error.strerror}; make room, and go on with the rest") from error


def _about(manifest: Manifest) -> str:
    size = "x".join(map(str, manifest.sent.shape))
    said = f"{manifest.name} sends {manifest.bytes_per_picture} bytes a picture ({size}, {manifest.wire}): {manifest.leak}"
    return textwrap.fill(plain(said), _WIDTH) + "\n"


def _json_line(name: str, answer: Answer) -> str:
    record = {
        "picture": name,
        "label": answer.label,
        "probability": answer.probability,
        "values": [float(value) for value in answer.values],
        "device_ms": round(answer.way.device_ms, 3),
        "way_ms": round(answer.way.way_ms, 3),
        "bytes_sent": round(answer.way.bytes_sent, 1),
        "tries": answer.way.tries,
    }
    return json.dumps(record, allow_nan=False)


def _table_line(name: str, answer: Answer) -> str:
    label = f"{len(answer.values)} numbers" if answer.label is None else answer.label
    share = "" if answer.probability is None else f"{100 * answer.probability:.1f} %"
    cells = f"{_short(name, _NAME_WIDTH):<{_NAME_WIDTH}}  {_short(label, _LABEL_WIDTH):<{_LABEL_WIDTH}}  {share:>11}"
    return f"{cells}  {answer.way.device_ms:>7.1f}  {answer.way.way_ms:>6.1f}"


def _short(text: str, width: int) -> str:
    """Return the end of a text, which tells files apart, in letters that a terminal may be given.

    Example:
        >>> _short("a/long/path.png", 10)
        '...ath.png'
    """
    shown = plain(text)
    return shown if len(shown) <= width else f"...{shown[3 - width :]}"


def _token(path: str | None) -> str | None:
    """Return the token in a file or in the environment, if there is one."""
    if path is None:
        return os.environ.get(TOKEN) or None
    try:
        with Path(path).open(encoding="ascii") as file:
            require_private(os.fstat(file.fileno()), f"--token-file {path}")
            token = file.read(_LONGEST_TOKEN).strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not ASCII"
        raise ConfigError(
            f"--token-file {path}: expected a file with a token: {why}; check the path"
        ) from None  # which may hold it
    if not is_token(token):
        raise ConfigError(f"--token-file {path}: expected a token and nothing else, {TOKEN_SHAPE}; found something else")
    return token
