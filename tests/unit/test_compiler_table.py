"""The table of docs/compilers.md, made from what verify-flags writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from sparkbuild.files import to_json
from sparkbuild.toolchain import FeatureProof
from sparkbuild.toolchain.fault import CompilerTrial, FlagTrial

_ROOT = Path(__file__).parents[2]
_BEGIN, _END = "<!-- ci/compiler-fault: begin -->", "<!-- ci/compiler-fault: end -->"


def flag(flags: str, **features: tuple[bool, bool]) -> FlagTrial:
    proofs = tuple(FeatureProof(name, macro, code) for name, (macro, code) in features.items())
    return FlagTrial(flags, "good" if proofs else "refused", accepted=True, proofs=proofs)


def test_the_table_replaces_what_is_between_the_marks(tmp_path: Path) -> None:
    folder = tmp_path / "trixie-gcc-12"
    folder.mkdir()
    (folder / "version").write_text("12.4.0-5\n")
    trials = (
        flag("-march=native", a=(True, False), b=(False, False), c=(True, True)),
        flag("-mcpu=native", a=(False, False), b=(False, False)),
        flag("-march=all", a=(True, True), b=(True, True)),
    )
    trial = CompilerTrial(Path("cc"), "gcc 12", "t", "gb10.cpuinfo", (), trials, "proved", "why", "do")
    some = msgspec.structs.replace(trial, trials=(flag("-march=native"), flag("-march=some")))
    for arch, found in {"gb10-sve2": trial, "gb10": some}.items():
        (folder / f"{arch}.json").write_bytes(to_json({"compiler": found}))
    page = tmp_path / "page.md"
    page.write_text(f"before\n{_BEGIN}\nold\n{_END}\nafter\n")
    script = _ROOT / "ci" / "compiler_table.py"
    command: list[str | Path] = [
        sys.executable,
        script,
        page,
        "qemu-aarch64 version 7.2.22 (Debian 1:7.2)",
        folder,
    ]
    subprocess.run(command, check=True)
    lines = page.read_text().splitlines()
    assert (lines[:2], lines[-2:]) == (["before", _BEGIN], [_END, "after"])
    assert lines[2].endswith("and qemu-aarch64 version 7.2.22.")
    assert lines[4:-2] == [
        "| GCC | `-march=native` | `-mcpu=native` | `-march=all` | `-march=some` | the fault is |",
        "| --- | --- | --- | --- | --- | --- |",
        "| gcc-12 12.4.0-5, trixie | c; **macro only:** a; no b | **none** | all | refused | **proved** |",
    ]


def test_the_page_has_its_marks_and_a_table() -> None:
    text = (_ROOT / "docs" / "compilers.md").read_text()
    table = text.partition(_BEGIN)[2].partition(_END)[0]
    assert len([line for line in table.splitlines() if line.startswith("| gcc-")]) >= 3
