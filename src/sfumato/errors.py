# SPDX-License-Identifier: Apache-2.0
"""Every error that Sfumato raises on purpose.

    SfumatoError
    ├── ConfigError              what the caller wrote: an argument, a recipe
    │   ├── UnknownNameError     a name that no table knows; the nearest one is offered
    │   ├── RecipeError          all the problems of one recipe, at once
    │   └── ConflictError        two defenses that cannot be composed
    ├── DataError                the pictures
    │   ├── MissingDataError     files that are not there: which, and where they go
    │   └── CorruptPictureError  a picture that cannot be decoded: which one
    ├── ModelError               a model that does not fit its data or its use
    ├── CutError                 a cut that does not exist, or that several tensors cross
    ├── WeightsError             a weights file that is truncated, foreign or unsafe
    ├── TrainingError            a run that cannot go on: a loss that is not finite
    ├── StorageError             the disk: no space, no permission, a run held by somebody else
    ├── ExportError              a target that cannot be exported, or whose export computes something else
    ├── BundleError              an exported bundle that is damaged, of another version or unsafe
    └── ServiceError             a server that refused a request or did not answer it

A message says what was expected, what was found and what to do. The command line prints it alone and exits with status 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SfumatoError(Exception):
    """Base of every error that Sfumato raises on purpose."""


class ConfigError(SfumatoError, ValueError):
    """An argument or a recipe that cannot be used as it is."""


class UnknownNameError(ConfigError):
    """A name that its table does not hold."""


class RecipeError(ConfigError):
    """Everything that is wrong with one recipe.

    Args:
        source: where the recipe came from, a path or a word such as "recipe".
        problems: one sentence each, in the order of the recipe.
    """

    def __init__(self, source: str, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__("\n".join([f"{source}: {count}", *(f"  - {problem}" for problem in self.problems)]))


class ConflictError(ConfigError):
    """Two defenses that cannot be composed; both are named."""


class DataError(SfumatoError, ValueError):
    """Pictures or labels that cannot be used as they are."""


class MissingDataError(DataError, FileNotFoundError):
    """Files of a data set that are not there."""


class CorruptPictureError(DataError):
    """A picture that cannot be decoded."""


class ModelError(SfumatoError, ValueError):
    """A model that does not fit its data or its use."""


class CutError(SfumatoError, ValueError):
    """A cut that does not exist or is not clean."""


class WeightsError(SfumatoError, ValueError):
    """A weights file that cannot be loaded."""


class TrainingError(SfumatoError, RuntimeError):
    """A training run that cannot go on."""


class StorageError(SfumatoError, OSError):
    """A run that cannot be read or written."""


class ExportError(SfumatoError, ValueError):
    """A target that cannot be exported, or whose export computes something else than it."""


class BundleError(SfumatoError, ValueError):
    """A bundle that is damaged, incomplete, of another version or unsafe; nothing of it was loaded."""


class ServiceError(SfumatoError, RuntimeError):
    """A request that a server refused, or that it did not answer in time.

    Args:
        message: what was expected, what was found, what to do.
        status: the name of the gRPC status, such as "UNAVAILABLE".
    """

    def __init__(self, message: str, status: str) -> None:
        super().__init__(message)
        self.status = status


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the known name nearest to `name`, or an empty string.

    Args:
        name: what was found.
        known: the valid names.

    Example:
        >>> nearest("nosie", ["noise", "dropout"])
        " (did you mean 'noise'?)"
        >>> nearest("qqq", ["noise"])
        ''
    """
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""
