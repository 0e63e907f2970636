# SPDX-License-Identifier: Apache-2.0
"""`python -m bench [NAME...]`: run the benchmarks, print a table, write results/bench.json, or results/bench-NAME.json."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from bench import (
    cem,
    decoder,
    inversion,
    membership,
    membership_scoring,
    memory,
    patrol,
    serving,
    split,
    startup,
    street,
    throughput,
    tl_dmi,
)
from sfumato.audit import hardware
from sfumato.files import write_json

BENCHMARKS = {
    "throughput": throughput.run,
    "decoder": decoder.run,
    "cem": cem.run,
    "street": street.run,
    "patrol": patrol.run,
    "startup": startup.run,
    "memory": memory.run,
    "membership": membership.run,
    "membership_scoring": membership_scoring.run,
    "inversion": inversion.run,
    "tl_dmi": tl_dmi.run,
    "split": split.run,
    "serving": serving.run,
}
OUTPUT = Path("results") / "bench.json"


def main(names: list[str]) -> int:
    """Run the benchmarks of these names, or all, and write them down; return 1 where one misses its bound."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark named {', '.join(unknown)}; known: {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    rows = []
    for name in names or BENCHMARKS:
        print(f"running {name} ...", file=sys.stderr)
        rows += BENCHMARKS[name]()
    table = Table("measure", "value", "bound", "holds", title="Sfumato benchmarks", title_justify="left")
    for row in rows:
        table.add_row(row.measure, f"{row.value:.3g} {row.unit}", f"{row.relation} {row.bound:g}", "yes" if row.holds else "NO")
    Console().print(table)
    output = OUTPUT.with_stem("-".join([OUTPUT.stem, *names]))  # a part does not overwrite the record of all
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    write_json(output, {"rows": [row.record() for row in rows], "hardware": hardware(torch.device("cpu")), "versions": versions})
    print(f"written to {output}")
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
