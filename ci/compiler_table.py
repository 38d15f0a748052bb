"""Writes the table of docs/compilers.md from what ci/compiler-fault found: FILE QEMU FOLDER..."""

from __future__ import annotations

import datetime as dt
import json
import sys
from pathlib import Path
from typing import Any

_BEGIN, _END = "<!-- ci/compiler-fault: begin -->\n", "<!-- ci/compiler-fault: end -->\n"


def main(page: Path, qemu: str, folders: list[Path]) -> None:
    """Replace what is between the page's two marks."""
    text = page.read_text()
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    table = "\n".join(lines(qemu, folders))
    page.write_text(f"{before}{_BEGIN}{table}\n{_END}{after}")


def lines(qemu: str, folders: list[Path]) -> list[str]:
    """Return the table: a row for each compiler, a column for each flag."""
    rows, flags = [], []
    for folder in folders:
        found = found_in(folder / "gb10-sve2.json")
        trials = [*found["trials"], found_in(folder / "gb10.json")["trials"][-1]]
        suite, _, name = folder.name.partition("-")
        compiler = f"{name} {(folder / 'version').read_text().strip()}, {suite}"
        rows.append([compiler, *map(cell, trials), f"**{found['fault']}**"])
        flags = [f"`{t['flags']}`" for t in trials]
    heads = ["GCC", *flags, "the fault is"]
    today = dt.datetime.now(tz=dt.UTC).date()
    told = f"Made on {today} with `toolchains/cpuinfo/gb10.cpuinfo` and {qemu.partition(' (')[0]}."
    return [told, "", *(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows))]


def found_in(file: Path) -> dict[str, Any]:
    """Return the trial that ``sparkbuild verify-flags --json`` wrote."""
    return dict(json.loads(file.read_bytes())["compiler"])


def cell(trial: dict[str, Any]) -> str:
    """Return what became of each feature under one flag, such as "dotprod; not fp16"."""
    if trial["verdict"] in ("refused", "not run"):
        return str(trial["verdict"])
    kinds: dict[str, list[str]] = {"": [], "**macro only:** ": [], "no ": []}
    for proof in trial["proofs"]:
        kind = "" if proof["macro"] and proof["code"] else "**macro only:** " if proof["macro"] else "no "
        kinds[kind].append(proof["feature"])
    if len(kinds[""]) == len(trial["proofs"]):
        return "all"
    if len(kinds["no "]) == len(trial["proofs"]):
        return "**none**"
    return "; ".join(f"{kind}{', '.join(names)}" for kind, names in kinds.items() if names)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], [Path(folder) for folder in sys.argv[3:]])
