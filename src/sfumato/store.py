# SPDX-License-Identifier: Apache-2.0
"""Runs on disk. A stage is keyed by the hash of what defines it, so that nothing is computed twice and anything resumes.

    runs/
      stages/target-3f2a…/   one trained target: definition, checkpoint while it trains, weights when it is done
      stages/attack-91c0…/   one attack on one target with one seed
      demo/before/           a run: recipe, facts, weights, audit and report, copied from the stages when they are done

A stage counts only when its `done.json` is there, which is written last; a run folder gets whole files only.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sfumato.errors import StorageError
from sfumato.files import disk_errors, write_json

STAGES = "stages"
"""The folder of the stages, below the root."""


def digest(definition: Mapping[str, object]) -> str:
    """Return the SHA-256 of a definition, hexadecimal: the same for the same JSON, whatever the order of its keys.

    Example:
        >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(json.dumps(definition, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True)
class Stage:
    """One thing to compute once.

    Attributes:
        folder: where its files are.
        key: hash of its definition.
        definition: what defines it.
    """

    folder: Path
    key: str
    definition: Mapping[str, object]

    @property
    def done(self) -> bool:
        """Whether it was computed to the end."""
        return (self.folder / "done.json").exists()

    @property
    def checkpoint(self) -> Path:
        """Where a training run keeps its state until it is done."""
        return self.folder / "checkpoint.safetensors"

    @property
    def weights(self) -> Path:
        """Where a target that is trained has its weights."""
        return self.folder / "weights.safetensors"

    @contextmanager
    def claim(self) -> Iterator[Stage]:
        """Hold the stage inside a `with` block, so that two processes do not compute it at once.

        The claim ends with the process, killed or not.

        Raises:
            StorageError: another process holds it, or the folder cannot be written.
        """
        with disk_errors(self.folder, "write"):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / "lock").open("w")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StorageError(
                    f"another process is computing {self.folder}; wait for it, or use another --runs folder"
                ) from error
            write_json(self.folder / "definition.json", self.definition)
            yield self

    def finish(self, facts: Mapping[str, object], *, keep: bool = False) -> None:
        """Write down that the stage is done, with what it came to.

        Args:
            facts: what it came to.
            keep: leave the checkpoint, for a run that goes on from it.
        """
        write_json(self.folder / "done.json", facts)
        if not keep:
            self.checkpoint.unlink(missing_ok=True)

    def facts(self) -> dict[str, object]:
        """Return what a stage that is done came to.

        Raises:
            StorageError: `done.json` cannot be read.
        """
        path = self.folder / "done.json"
        try:
            found: dict[str, object] = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise StorageError(f"cannot read {path}: {error}; remove {self.folder} to compute it again") from error
        return found


@dataclass(frozen=True)
class Store:
    """The folder of runs and stages.

    Args:
        root: the folder; made when something is written.

    Example:
        >>> Store(Path("runs")).stage("target", {"seed": 0}).done
        False
    """

    root: Path

    def stage(self, kind: str, definition: Mapping[str, object]) -> Stage:
        """Return the stage of a definition.

        Args:
            kind: what is computed, such as "target" or "attack".
            definition: everything that its outcome depends on.
        """
        key = digest({"kind": kind, **definition})
        return Stage(self.root / STAGES / f"{kind}-{key[:16]}", key, definition)

    @contextmanager
    def writing(self, name: str) -> Iterator[str]:
        """Write a run inside a `with` block: under another name, whose files move into the run's folder when the block is over.

        Where the block fails, nothing of it is left, and a run that was there is as it was.

        Args:
            name: of the run; may hold slashes.

        Yields:
            The name to write under.

        Raises:
            StorageError: the folder cannot be written, or is that of the stages.
        """
        if Path(name).parts[:1] == (STAGES,):
            raise StorageError(
                f"a run cannot be named '{name}': the folder {self.root / STAGES} holds the stages; rename the recipe"
            )
        folder = self.root / name
        part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
        try:
            with disk_errors(folder, "write"):
                yield str(part.relative_to(self.root))
                folder.mkdir(parents=True, exist_ok=True)
                for path in sorted(part.iterdir()):
                    path.replace(folder / path.name)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def publish(self, name: str, files: Mapping[str, Path]) -> Path:
        """Copy files of stages into a run's folder.

        Args:
            name: of the run; may hold slashes.
            files: where each file comes from, by its name in the run.

        Returns:
            The folder.

        Raises:
            StorageError: it cannot be written.
        """
        folder = self.root / name
        with disk_errors(folder, "write"):
            folder.mkdir(parents=True, exist_ok=True)
            for target, source in files.items():
                part = folder / f".{target}.part"
                try:
                    shutil.copyfile(source, part)
                    part.replace(folder / target)
                finally:
                    part.unlink(missing_ok=True)
        return folder
