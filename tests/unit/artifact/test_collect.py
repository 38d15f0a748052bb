"""A small real build is collected."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sparkbuild.artifact.collect import collect
from sparkbuild.build.configure import Configured, Target
from sparkbuild.errors import BinaryError, CompileError
from sparkbuild.files import sha256_file

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")

_RUNPATH = "-Wl,--enable-new-dtags,-rpath,$ORIGIN"


@pytest.fixture
def built(tmp_path: Path) -> Configured:
    """Compile a tool that needs libmid, which needs libbase; CMake's versioned names included."""
    folder = tmp_path / "build"
    (folder / "bin").mkdir(parents=True)
    (folder / "base.c").write_text("int base(void) { return 1; }\n")
    (folder / "mid.c").write_text("int base(void); int mid(void) { return base(); }\n")
    (folder / "tool.c").write_text("int mid(void); int main(void) { return mid() - 1; }\n")
    for command in (
        ["-shared", "-fPIC", "base.c", "-Wl,-soname,libbase.so.0", "-o", "bin/libbase.so.0.1"],
        ["-shared", "-fPIC", "mid.c", "bin/libbase.so.0.1", "-o", "bin/libmid.so"],
        ["tool.c", "bin/libmid.so", "-Wl,-rpath-link,bin", "-o", "bin/tool"],
        ["-shared", "-fPIC", "base.c", "-o", "bin/libunused.so"],
    ):
        if "bin/libbase.so.0.1" in command and "mid.c" in command:
            command.insert(0, "-Wl,-soname,libmid.so")
        subprocess.run(["gcc", _RUNPATH, *command], cwd=folder, check=True)
        if "base.c" in command and not (folder / "bin/libbase.so.0").exists():
            (folder / "bin/libbase.so.0").symlink_to("libbase.so.0.1")
    targets = {
        "tool": Target("tool", "EXECUTABLE", ("bin/tool",)),
        "base": Target("base", "SHARED_LIBRARY", ("bin/libbase.so.0.1",)),
        "mid": Target("mid", "MODULE_LIBRARY", ("bin/libmid.so",)),
        "unused": Target("unused", "SHARED_LIBRARY", ("bin/libunused.so",)),
        "generated": Target("generated", "UTILITY", ()),
        "absent": Target("absent", "EXECUTABLE", ("bin/absent",)),
    }
    return Configured(folder, (), {}, targets, ())


def test_the_tool_and_every_library_it_needs(built: Configured, tmp_path: Path) -> None:
    into = tmp_path / "artifact" / "bin"
    files = {f.path: f for f in collect(built, ["tool"], {"server": "tool"}, platform.machine(), into)}
    assert set(files) == {"bin/libbase.so.0", "bin/libmid.so", "bin/tool"}
    assert {p.name for p in into.iterdir()} == {Path(p).name for p in files}
    for path, file in files.items():
        here = into.parent / path
        assert (file.sha256, file.size) == (sha256_file(here), here.stat().st_size)
        assert file.runpath == "$ORIGIN"
        assert file.machine == platform.machine()
        assert not here.is_symlink()
    assert files["bin/tool"].role == "server"
    assert files["bin/libmid.so"].role == "library"
    assert "libmid.so" in files["bin/tool"].needed
    assert any(n.startswith("libc.so") for n in files["bin/tool"].external)
    assert "libmid.so" not in files["bin/tool"].external


def test_what_was_collected_runs_elsewhere(built: Configured, tmp_path: Path) -> None:
    collect(built, ["tool"], {}, platform.machine(), tmp_path / "a" / "bin")
    shutil.rmtree(built.build_dir)
    (tmp_path / "a").rename(tmp_path / "b")
    assert subprocess.run([tmp_path / "b/bin/tool"], check=False, env={}).returncode == 0


def test_a_target_that_was_not_made_is_an_error(built: Configured, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="absent was not made in the build folder although"):
        collect(built, ["absent"], {}, platform.machine(), tmp_path / "bin")


def test_a_file_of_another_machine_is_an_error(built: Configured, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=f"is for {platform.machine()}, not riscv64"):
        collect(built, ["tool"], {}, "riscv64", tmp_path / "bin")


def test_a_tool_that_would_not_find_its_libraries_is_an_error(built: Configured, tmp_path: Path) -> None:
    folder = built.build_dir
    subprocess.run(
        ["gcc", "tool.c", "bin/libmid.so", f"-Wl,-rpath,{folder}", "-Wl,-rpath-link,bin", "-o", "bin/tool"],
        cwd=folder,
        check=True,
    )
    with pytest.raises(CompileError, match="looks for libraries in"):
        collect(built, ["tool"], {}, platform.machine(), tmp_path / "bin")


@pytest.mark.parametrize("data", [b"", b"not an ELF file"])
def test_a_compiler_that_writes_nothing_is_found_out(built: Configured, tmp_path: Path, data: bytes) -> None:
    (built.build_dir / "bin/tool").write_bytes(data)
    with pytest.raises(BinaryError):
        collect(built, ["tool"], {}, platform.machine(), tmp_path / "bin")


class TestHostile:
    """The source's own code wrote all that is in a build folder, CMake's reply to us too."""

    def taken(self, built: Configured, folder: Path, outside: Path) -> None:
        """Collect, and check that a refusal leaves nothing of what is elsewhere."""
        with pytest.raises(CompileError):
            collect(built, ["tool"], {}, platform.machine(), folder / "bin")
        assert outside.read_bytes() not in [p.read_bytes() for p in folder.rglob("*") if p.is_file()]

    @pytest.fixture
    def outside(self, built: Configured) -> Path:
        """Return somebody else's program, which would be as good as the build's own."""
        path = built.build_dir.parent / "outside"
        shutil.copy(built.build_dir / "bin/tool", path)
        path.write_bytes(path.read_bytes() + b"private")
        return path

    @pytest.mark.threat("sandbox", "a target that is a link to a file elsewhere", "exit code 6, not copied")
    def test_a_link(self, built: Configured, outside: Path, tmp_path: Path) -> None:
        (built.build_dir / "bin/tool").unlink()
        (built.build_dir / "bin/tool").symlink_to(outside)
        self.taken(built, tmp_path / "artifact", outside)

    @pytest.mark.threat("sandbox", "a target below a folder that is a link", "exit code 6, not copied")
    def test_a_link_on_the_way(self, built: Configured, outside: Path, tmp_path: Path) -> None:
        (built.build_dir / "away").symlink_to(outside.parent)
        built.targets["tool"] = Target("tool", "EXECUTABLE", ("away/outside",))
        self.taken(built, tmp_path / "artifact", outside)

    @pytest.mark.threat("sandbox", "CMake's reply names a file elsewhere", "exit code 6, not copied")
    @pytest.mark.parametrize("name", ["{outside}", "../outside", "/etc/shadow", ".", "", "x" * 5000, "a\0b"])
    def test_a_reply(self, name: str, built: Configured, outside: Path, tmp_path: Path) -> None:
        built.targets["tool"] = Target("tool", "EXECUTABLE", (name.format(outside=outside),))
        self.taken(built, tmp_path / "artifact", outside)

    @pytest.mark.threat("sandbox", "a library that is a link to one elsewhere", "it is none of the build's")
    def test_a_library(self, built: Configured, tmp_path: Path) -> None:
        library = built.build_dir / "bin/libmid.so"
        library.rename(built.build_dir.parent / "libmid.so")
        library.symlink_to(built.build_dir.parent / "libmid.so")
        files = collect(built, ["tool"], {}, platform.machine(), tmp_path / "artifact/bin")
        assert [f.path for f in files] == ["bin/tool"]
        assert "libmid.so" in files[0].external

    @pytest.mark.threat(
        "sandbox", "a target that is a pipe or a folder", "exit code 6, nothing is waited for"
    )
    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
    def test_no_plain_file(
        self, make: Callable[[Path], None], built: Configured, outside: Path, tmp_path: Path
    ) -> None:
        for name in ("tool", "libmid.so"):
            (built.build_dir / "bin" / name).unlink()
            make(built.build_dir / "bin" / name)
        self.taken(built, tmp_path / "artifact", outside)

    @pytest.mark.threat(
        "sandbox", "a library whose soname is a path", "exit code 6, nothing is written there"
    )
    @pytest.mark.parametrize("name", ["../../escaped", "{tmp}/escaped", "a\nb", ".hidden", "-x"])
    def test_a_soname(self, name: str, built: Configured, outside: Path, tmp_path: Path) -> None:
        """The file is copied under that name."""
        soname, folder = name.format(tmp=tmp_path), built.build_dir
        for command in (
            ["-shared", "-fPIC", "base.c", f"-Wl,-soname={soname}", "-o", "bin/libbad.so"],
            ["-Dmid=base", "tool.c", "bin/libbad.so", "-o", "bin/tool"],
        ):
            subprocess.run(["gcc", _RUNPATH, *command], cwd=folder, check=True)
        built.targets["bad"] = Target("bad", "SHARED_LIBRARY", ("bin/libbad.so",))
        self.taken(built, tmp_path / "artifact", outside)
        assert not list(tmp_path.rglob("escaped"))
