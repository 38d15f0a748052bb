"""What the pipeline decides by itself; the way through all rooms is in tests/integration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from sparkbuild import pipeline
from sparkbuild.artifact.manifest import File
from sparkbuild.catalog import Catalog, shipped_root
from sparkbuild.errors import CompileError, UsageError
from sparkbuild.files import Folders
from sparkbuild.inspection.fatbin import DeviceCode
from sparkbuild.inspection.runtime import VersionReport
from sparkbuild.pipeline import Request, Session, check_device_code, check_version, parse_definitions
from sparkbuild.planning import Plan, make_plan
from sparkbuild.progress import Silent
from tests.conftest import cuda_of, digest, inputs_of, source_of

_WHERE = Path("/nowhere/build")


def plan(arch: str = "", **source: Any) -> Plan:  # noqa: ANN401 - any field
    known = inputs_of(source=source_of(**source))
    if arch:
        known = msgspec.structs.replace(known, backend="cuda", cuda=cuda_of(), cuda_arch=arch)
    return make_plan(known)


def files(*names: str) -> tuple[File, ...]:
    code = tuple(DeviceCode(name, 1) for name in names)
    return (
        File("bin/a", digest("a"), 1, "aarch64"),
        File("bin/b", digest("b"), 1, "aarch64", device_code=code),
    )


@pytest.mark.parametrize(
    ("arch", "names"),
    [
        ("121", ("sm_121", "compute_121")),
        ("121", ("sm_121a",)),
        ("121a-real", ("sm_121a",)),
        ("native", ("sm_90",)),
        ("", ()),
        ("", ("sm_90",)),
    ],
)
def test_device_code_for_the_asked_gpu_will_do(arch: str, names: tuple[str, ...]) -> None:
    check_device_code(files(*names), plan(arch), _WHERE)


@pytest.mark.parametrize(
    ("names", "said"),
    [((), "no GPU at all"), (("sm_90",), "90"), (("sm_121", "sm_90"), "121, 90"), (("compute_52",), "52")],
)
def test_device_code_for_another_gpu_is_an_error(names: tuple[str, ...], said: str) -> None:
    with pytest.raises(CompileError, match=f"device code for {said}, not for 121") as caught:
        check_device_code(files(*names), plan("121"), _WHERE)
    assert caught.value.where == str(_WHERE)


_RIGHT = VersionReport("native", "", "version: 7 (aaaa)", 7, "aaaa")


@pytest.mark.parametrize(
    ("report", "source"),
    [
        (_RIGHT, {}),
        (VersionReport("not run", "no emulator"), {}),
        (msgspec.structs.replace(_RIGHT, number=9), {"build_number": 0}),
        (msgspec.structs.replace(_RIGHT, commit="beef"), {"commit": ""}),
        (msgspec.structs.replace(_RIGHT, commit=""), {}),
    ],
)
def test_a_version_that_fits_or_is_not_known_will_do(report: VersionReport, source: dict[str, Any]) -> None:
    check_version(report, plan(**source), _WHERE)


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (msgspec.structs.replace(_RIGHT, number=1), "says build 1, commit aaaa; the source is build 7"),
        (msgspec.structs.replace(_RIGHT, commit="beef"), "commit beef"),
        (VersionReport("failed", "exit code 3", "its words"), r"does not answer --version \(exit code 3\)"),
    ],
)
def test_a_version_that_does_not_fit_is_an_error(report: VersionReport, said: str) -> None:
    with pytest.raises(CompileError, match=said):
        check_version(report, plan(), _WHERE)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ((), {}),
        (("A=1",), {"A": "1"}),
        (("A=", "B_2=x=y;z"), {"A": "", "B_2": "x=y;z"}),
        (("A=1", "A=2"), {"A": "2"}),
    ],
)
def test_definitions_of_a_person(words: tuple[str, ...], found: dict[str, str]) -> None:
    assert parse_definitions(words) == found


@pytest.mark.parametrize(
    "word", ["", "A", "=1", "1A=1", "A B=1", "A:BOOL=1", "-DA=1", "A=1\n", "A=\x1b[0m", "A=\0"]
)
def test_what_is_no_definition_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match="not a definition"):
        parse_definitions((word,))


def test_a_backend_that_an_engine_lacks_is_an_error(folders: Folders, tmp_path: Path) -> None:
    shipped = next(iter(Catalog((shipped_root(),)).recipes().values()))
    text = shipped.path.read_text()
    (tmp_path / "recipes").mkdir()
    path = tmp_path / "recipes" / shipped.path.name
    path.write_text("\n".join(line for line in text.splitlines() if not line.startswith("cuda = [")))
    session = Session(Catalog((shipped_root(), tmp_path)), folders, Silent())
    with pytest.raises(UsageError, match="has no cuda backend") as caught:
        pipeline.plan(Request(shipped.record.name, "host"), session)
    assert caught.value.where == f"{path}: targets"
    assert caught.value.remedy == "--backend cpu"
