"""What the pipeline decides by itself; the way through all rooms is in tests/integration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from sparkbuild import making
from sparkbuild.build.tools import find_tools
from sparkbuild.catalog import Catalog, shipped_root
from sparkbuild.errors import CompileError, UsageError
from sparkbuild.files import Folders
from sparkbuild.inspection.runtime import VersionReport
from sparkbuild.making import check_version
from sparkbuild.planning import Plan, make_plan
from sparkbuild.progress import Silent
from sparkbuild.request import Request, Session, Tools, parse_definitions
from sparkbuild.request import plan as plan_of_request
from tests.conftest import cuda_of, inputs_of, source_of

_WHERE = Path("/nowhere/build")


def plan(arch: str = "", **source: Any) -> Plan:  # noqa: ANN401 - any field
    known = inputs_of(source=source_of(**source))
    if arch:
        known = msgspec.structs.replace(known, backend="cuda", cuda=cuda_of(), cuda_arch=arch)
    return make_plan(known)


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
        plan_of_request(Request(shipped.record.name, "host"), session)
    assert caught.value.where == f"{path}: targets"
    assert caught.value.remedy == "--backend cpu"


@pytest.mark.parametrize("what", ["compilers", "CUDA toolkit", "CMake"])
@pytest.mark.threat(
    "faults",
    "compilers, CUDA or CMake that are others after the build than the key says",
    "exit 6 that names which; nothing stored, the mixed build folder is removed",
)
def test_tools_that_changed_meanwhile(
    what: str, tmp_path: Path, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan("121")
    made = msgspec.structs.replace(made, cmake=find_tools().cmake_version)
    compilers, cuda = made.compilers, made.cuda
    assert cuda
    session = Session(Catalog((shipped_root(),)), folders, Silent())
    request = Request("toy", "gb10")
    monkeypatch.setattr(making, "find_tools", lambda *_: Tools(compilers, cuda))
    making.check_tools(made, request, session, tmp_path)
    if what == "compilers":
        compilers = msgspec.structs.replace(compilers, digest="another")
    elif what == "CMake":
        made = msgspec.structs.replace(made, cmake="1.2.3")
    else:
        cuda = msgspec.structs.replace(cuda, digest="another")
    (tmp_path / "build").mkdir()
    with pytest.raises(CompileError, match=f"changed while this was built: {what};") as caught:
        making.check_tools(made, request, session, tmp_path / "build")
    assert "begins anew" in caught.value.remedy
    assert not (tmp_path / "build").exists()
