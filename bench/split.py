# SPDX-License-Identifier: Apache-2.0
"""The split model beside the whole: what a head takes on a device, whether the answers are the same, what crosses the wire."""

from __future__ import annotations

import socket
import socketserver
import statistics
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

import sfumato as sf
from bench.patrol import BUDGETS, SIDE, eager, milliseconds, pruned_head
from bench.row import Row
from bench.served import sfumato
from bench.serving import pictures, vgg11
from sfumato.data.loader import as_images
from sfumato.deploy.client import Client
from sfumato.deploy.edge import Edge
from sfumato.deploy.export import export
from sfumato.modules import eval_mode
from sfumato.split import Split

CUT = "c2"
FEW, MANY = 50, 250


def run() -> list[Row]:
    """Measure heads, answers and bytes."""
    with tempfile.TemporaryDirectory() as name:
        return [*_heads(Path(name)), *_answers(Path(name))]


def _heads(folder: Path) -> list[Row]:
    """Time heads at batch 1 and one thread: eager PyTorch and what a device runs, in alternating rounds."""
    heads = {"VGG-11": (vgg11(CUT), (3, 32, 32)), "four stages of ResNet-18": (_stages(None), (3, SIDE, SIDE))}
    heads |= {f"the same, pruned to {budget}": (_stages(budget), (3, SIDE, SIDE)) for budget in BUDGETS}
    rows = []
    for number, (name, (split, shape)) in enumerate(heads.items()):
        data = pictures(shape)
        export(split, data, folder / str(number), only=True)
        edge, x = Edge(folder / str(number)), data.part("test").read(torch.arange(1))
        times = milliseconds({"eager": eager(split.head, as_images(x, "cpu")), "edge": partial(edge.features, x.numpy())})
        ratio = statistics.median(plain / device for plain, device in zip(times["eager"], times["edge"], strict=True))
        per_picture = {f"{key}_ms": statistics.median(found) for key, found in times.items()}
        rows.append(Row(f"head of {name}, one picture: eager PyTorch, of the device's", ratio, "x", ">=", 1.5, per_picture))
    return rows


def _stages(budget: str | None) -> Split:
    """Return four stages of ResNet-18, pruned to a budget, with a tail that does next to nothing."""
    head = pruned_head(budget)
    channels = head(torch.zeros(1, 3, SIDE, SIDE)).shape[1]
    pooled = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    return Split(head, torch.nn.Sequential(pooled, torch.nn.Linear(channels, 10)), at="layer4")


def _answers(folder: Path) -> list[Row]:
    """Ask a trained model whole, and split with a server between, about the same pictures; and count what crosses the wire."""
    data = sf.load_data("digits")
    model = sf.build_model("vgg11", classes=10, shape=data.shape, options={"width": 0.25}, seed=0)
    trained = sf.harden(sf.split(model, at=CUT), data, epochs=1, seed=0)
    made = export(trained, data, folder / "digits", only=True)
    x = data.part("test").read(torch.arange(len(data.part("test"))))
    with torch.no_grad(), eval_mode(trained):
        whole = [data.classes[int(label)] for label in trained(as_images(x, "cpu")).argmax(1)]
    with sfumato(folder / "digits") as server:
        with Client(folder / "digits", server.address) as client:
            differ = sum(answer.label != label for answer, label in zip(client.infer(x.numpy()), whole, strict=True))
        with _counted(server.address) as (counting, counts), Client(folder / "digits", counting) as client:
            seen = []
            for length in (FEW, MANY):  # the difference leaves out what opening a connection costs
                for one in range(length):
                    client.infer(x[one : one + 1].numpy())
                seen.append(dict(counts))
    there, back = ((seen[1][way] - seen[0][way]) / MANY for way in ("there", "back"))
    tensor = made.manifest.bytes_per_picture
    details = {"tensor": tensor, "there": there, "back": back}
    return [
        Row(f"answers that differ, split and whole, {len(x):,} digits", differ, "", "<=", 0),
        Row("bytes on the wire for a picture, beyond those of its tensor", there - tensor, "B", "<=", 256, details),
    ]


@contextmanager
def _counted(address: str) -> Iterator[tuple[str, dict[str, int]]]:
    """Forward connections to a server inside a `with` block, and count the bytes of TCP each way."""
    counts = {"there": 0, "back": 0}
    host, port = address.split(":")

    def forward(way: str, source: socket.socket, sink: socket.socket) -> None:
        while content := source.recv(1 << 16):
            counts[way] += len(content)
            sink.sendall(content)
        sink.shutdown(socket.SHUT_WR)

    class Connection(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection((host, int(port))) as upstream:
                back = threading.Thread(target=forward, args=("back", upstream, self.request), daemon=True)
                back.start()
                forward("there", self.request, upstream)
                back.join()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Connection) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{listening.server_address[1]}", counts
        listening.shutdown()
