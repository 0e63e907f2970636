# SPDX-License-Identifier: Apache-2.0
"""One measured figure and the bound that it should keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Row:
    """A figure.

    Attributes:
        measure: what was measured.
        value: the figure.
        unit: of the figure; empty for a ratio.
        relation: how the figure should stand to its bound.
        bound: the bound.
        details: the raw figures behind it.
    """

    measure: str
    value: float
    unit: str
    relation: Literal[">=", "<="]
    bound: float
    details: Mapping[str, object] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether the figure keeps its bound."""
        return self.value >= self.bound if self.relation == ">=" else self.value <= self.bound

    def record(self) -> dict[str, object]:
        """Return the figure as JSON holds it."""
        return {
            "measure": self.measure,
            "value": self.value,
            "unit": self.unit,
            "bound": f"{self.relation} {self.bound:g}",
            "holds": self.holds,
            "details": dict(self.details),
        }
