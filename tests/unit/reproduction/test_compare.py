"""Files that differ by no more than is meant, made by a real compiler, linker and objcopy."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sparkbuild.artifact.manifest import File, Manifest
from sparkbuild.files import sha256_file
from sparkbuild.inspection.features import Finding, Model, Pair, Verdicts
from sparkbuild.inspection.records import DeviceCode
from sparkbuild.reproduction.compare import (
    Normaliser,
    compare_files,
    find_normaliser,
    judge,
    same_verdicts,
)
from sparkbuild.reproduction.records import FileComparison, Level
from tests.conftest import Script, manifest_of
from tests.unit.inspection.test_fatbin import entry, fatbin

pytestmark = pytest.mark.skipif(
    not shutil.which("gcc") or not shutil.which("objcopy"), reason="gcc and objcopy are not installed"
)
_GCC = Path(shutil.which("gcc") or "gcc")


class Side:
    """A folder with a bin/ that a compiler fills."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "bin").mkdir(parents=True)

    def library(self, name: str, code: str, *options: str, device: bytes = b"") -> Path:
        path = self.root / "bin" / name
        source = self.root / "x.c"
        source.write_text(code)
        subprocess.run(["gcc", "-O1", "-shared", "-fPIC", *options, source, "-o", path], check=True)
        if device:
            (self.root / "fat").write_bytes(device)
            added = f".nv_fatbin={self.root / 'fat'}"
            subprocess.run(["objcopy", "--add-section", added, path], check=True)
        return path

    def files(self) -> tuple[File, ...]:
        paths = sorted((self.root / "bin").iterdir())
        return tuple(
            File(f"bin/{p.name}", sha256_file(p), p.stat().st_size, "x86_64", device_code=_device(p))
            for p in paths
        )


def _device(path: Path) -> tuple[DeviceCode, ...]:
    return (DeviceCode("sm_121", 1),) if "gpu" in path.name else ()


@pytest.fixture
def old(tmp_path: Path) -> Side:
    return Side(tmp_path / "old")


@pytest.fixture
def new(tmp_path: Path) -> Side:
    return Side(tmp_path / "new")


@pytest.fixture(scope="session")
def normaliser() -> Normaliser:
    found = find_normaliser(_GCC)
    assert found
    return found


def levels(old: Side, new: Side, normaliser: Normaliser | None, **changes: Any) -> dict[str, Level]:  # noqa: ANN401 - any argument
    given: dict[str, Any] = {"original": old.root} | changes
    compared = compare_files(old.files(), given["original"], new.root, normaliser)
    return {f.path.removeprefix("bin/"): f.level for f in compared}


_ONE, _OTHER = "int f(int a) { return a * 3; }", "int f(int a) { return a * 5; }"
_FAT = fatbin(entry(2, 121))


def test_each_level_is_reached_by_what_it_means(old: Side, new: Side, normaliser: Normaliser) -> None:
    for side, code, fat in ((old, _ONE, _FAT), (new, _OTHER, _FAT)):
        side.library("same.so", _ONE)
        side.library("libgpu.so", code, device=fat)
        side.library("other.so", code)
    old.library("debug.so", _ONE, "-g", "-Wl,--build-id=0x1234")
    new.library("debug.so", _ONE, "-Wl,--build-id=0x5678")
    old.library("libgpu2.so", _ONE, device=_FAT)
    new.library("libgpu2.so", _ONE, device=fatbin(entry(2, 121, 0, b"edoc")))
    assert levels(old, new, normaliser) == {
        "debug.so": "stripped",
        "libgpu.so": "device code",
        "libgpu2.so": "different",
        "other.so": "different",
        "same.so": "identical",
    }


def test_a_build_id_alone_is_stripped_away(old: Side, new: Side, normaliser: Normaliser) -> None:
    old.library("a.so", _ONE, "-Wl,--build-id=0x1234")
    new.library("a.so", _ONE, "-Wl,--build-id=0x5678")
    assert levels(old, new, normaliser) == {"a.so": "stripped"}
    assert levels(old, new, None) == {"a.so": "different"}


def test_without_the_recorded_file_only_its_hash_can_be_compared(
    old: Side, new: Side, normaliser: Normaliser, tmp_path: Path
) -> None:
    old.library("a.so", _ONE, "-g")
    new.library("a.so", _ONE)
    recorded = old.files()
    assert levels(old, new, normaliser, original=None) == {"a.so": "different"}
    assert levels(old, new, normaliser, original=tmp_path) == {"a.so": "different"}
    old.library("a.so", _ONE)  # equal to the new one now, and not what the manifest says
    (compared,) = compare_files(recorded, old.root, new.root, normaliser)
    assert compared.level == "different"


def test_a_file_that_one_side_lacks(old: Side, new: Side, normaliser: Normaliser) -> None:
    gone, added = old.library("gone.so", _ONE), new.library("new.so", _ONE)
    compared = compare_files(old.files(), old.root, new.root, normaliser)
    assert compared == (
        FileComparison("bin/gone.so", sha256_file(gone), "", "different"),
        FileComparison("bin/new.so", "", sha256_file(added), "different"),
    )


@pytest.mark.parametrize("data", [b"", b"text", b"\x7fELF" + bytes(200)])
def test_what_is_no_binary_is_compared_by_its_bytes(
    old: Side, new: Side, normaliser: Normaliser, data: bytes
) -> None:
    old.library("a.so", _ONE)
    (new.root / "bin" / "a.so").write_bytes(data)
    assert levels(old, new, normaliser) == {"a.so": "different"}


def test_the_normaliser_belongs_to_the_compiler(script: Script, tmp_path: Path) -> None:
    native = find_normaliser(_GCC)
    assert native
    assert Path(native.argv[0]).name.endswith("objcopy")
    assert native.name.startswith("GNU objcopy")
    assert native.name.endswith(": --strip-all, without .comment and .note.gnu.build-id")
    assert find_normaliser(tmp_path / "no-compiler") is None
    assert find_normaliser(script("lacking-gcc", "echo no-such-objcopy")) is None
    own = script("objcopy-of-its-own", "echo objcopy 1")
    found = find_normaliser(script("gcc", "echo objcopy-of-its-own"))
    assert found
    assert found.argv[0] == str(own)


def test_a_cross_compilers_objcopy_reads_its_files(tmp_path: Path) -> None:
    compiler = shutil.which("aarch64-linux-gnu-gcc")
    if not compiler:
        pytest.skip("no cross compiler for aarch64")
    (tmp_path / "x.c").write_text(_ONE)
    digests = set()
    cross = find_normaliser(Path(compiler))
    assert cross
    for number, options in enumerate((["-g", "-Wl,--build-id=0x12"], ["-Wl,--build-id=0x34"])):
        out = tmp_path / f"{number}.so"
        command = [compiler, "-shared", "-fPIC", *options, "x.c", "-o", str(out)]
        subprocess.run(command, cwd=tmp_path, check=True)
        digests.add(cross.digest(out))
    assert len(digests) == 1


# -- the artifact's level ------------------------------------------------------------------------

_FINDING = Finding("cuda", "CUDA", "backend", "present", ("libx.so: symbol a, 3 instructions",))
_VERDICTS = Verdicts(
    "toy",
    "Toy",
    "mark",
    7,
    "abc",
    (_FINDING,),
    (Pair(64, "f16", "f16"),),
    "",
    (Model("m", "present"),),
    "",
    (),
)


def manifest(*carriers: str) -> Manifest:
    (file,) = manifest_of().files
    files = [
        msgspec.structs.replace(
            file, path=f"bin/{n}", device_code=(DeviceCode("sm_121", 1),) if n in carriers else ()
        )
        for n in ("gpu.so", "tool")
    ]
    return manifest_of(verdicts=_VERDICTS, files=tuple(files))


def pair(gpu: Level, tool: Level) -> tuple[FileComparison, ...]:
    names: list[tuple[str, Level]] = [("gpu.so", gpu), ("tool", tool)]
    return tuple(FileComparison(f"bin/{n}", "1" * 64, "2" * 64, level) for n, level in names)


_CHANGED = msgspec.structs.replace(_VERDICTS, pairs=())


@pytest.mark.parametrize(
    ("gpu", "tool", "verdicts", "level"),
    [
        ("identical", "identical", _VERDICTS, "identical"),
        ("identical", "stripped", _VERDICTS, "stripped"),
        ("device code", "identical", _VERDICTS, "device code"),
        ("identical", "different", _VERDICTS, "device code"),
        ("different", "identical", _VERDICTS, "features"),
        ("device code", "identical", _CHANGED, "different"),
        ("different", "identical", _CHANGED, "different"),
    ],
)
def test_the_artifacts_level(gpu: Level, tool: Level, verdicts: Verdicts, level: Level) -> None:
    files = pair(gpu, tool)
    found, judged = judge(files, manifest("gpu.so"), verdicts)
    assert found == level
    raised = {"different": "features"} if verdicts == _VERDICTS else {}
    assert [f.level for f in judged] == [raised.get(f.level, f.level) for f in files]


def test_without_device_code_there_is_no_such_level() -> None:
    assert judge(pair("different", "identical"), manifest(), _VERDICTS)[0] == "features"


def test_a_missing_file_is_different_whatever_the_verdicts_say() -> None:
    gone = FileComparison("bin/x", "1" * 64, "", "different")
    level, files = judge((*pair("identical", "identical"), gone), manifest("gpu.so"), _VERDICTS)
    assert (level, files[-1].level) == ("different", "different")
    assert judge((), manifest(), _VERDICTS)[0] == "different"


def test_verdicts_are_compared_by_what_they_say() -> None:
    def changed(**changes: Any) -> bool:  # noqa: ANN401 - any field
        return same_verdicts(_VERDICTS, msgspec.structs.replace(_VERDICTS, **changes))

    reworded = msgspec.structs.replace(_FINDING, evidence=("libx.so: symbol b, 4 instructions",), title="X")
    assert changed(findings=(reworded,), engine_evidence="another mark", pairs_note="other words")
    assert changed(models=(Model("m", "unknown"),))
    assert not changed(models=(Model("m", "absent"),))
    assert not changed(models=())
    assert not changed(findings=(msgspec.structs.replace(_FINDING, state="unknown"),))
    for name, value in {
        "number": 8,
        "commit": "b",
        "options": ("--x",),
        "external": ("l",),
        "cuda_major": 13,
    }.items():
        assert not changed(**{name: value}), name
