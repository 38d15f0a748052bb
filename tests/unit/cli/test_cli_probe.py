"""probe and verify-flags as a person and a script meet them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sparkbuild.artifact import store
from sparkbuild.catalog import Catalog, shipped_root
from sparkbuild.cli import render_journeys
from sparkbuild.cli.main import run
from sparkbuild.files import Folders
from sparkbuild.verification import STAGES, Journey, Stage
from sparkbuild.verify import Verified
from tests import toys
from tests.conftest import FILE, manifest_of

pytestmark = pytest.mark.skipif(
    not shutil.which("gcc") or not shutil.which("objcopy"), reason="gcc and binutils are not installed"
)
_ENGINE = next(iter(Catalog((shipped_root(),)).recipes()))


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    toys.library(folder)
    toys.tool(folder)
    return folder


def document(capsys: pytest.CaptureFixture[str]) -> Any:  # noqa: ANN401 - any JSON
    """Return what stdout holds, all of it; progress is on stderr."""
    return json.loads(capsys.readouterr().out)


# --- probe ---------------------------------------------------------------------------------------


def test_probe_for_people(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["probe", str(toy)]) == 0
    out, err = capsys.readouterr()
    assert "build 4711, commit 0c1e570" in out
    assert "1 sm_121a" in out
    assert "FlashAttention vector kernels: K (-ctk) down, V (-ctv) across\n" in out
    rows = {
        line.split()[0]: line.split()[1:] for line in out.splitlines() if line.startswith(("f16 ", "q8_0 "))
    }
    assert rows == {"f16": ["all", "-", "-"], "q8_0": ["-", "-", "all"]}
    assert "models: 9 architectures\n" in out
    assert "options: 5\n" in out
    assert "run time: not run; --run starts its programs" in out
    assert "absent" in out
    assert "vulkan" in out
    assert "\x1b" not in out + err


def test_probe_all_names_everything(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["probe", "--all", str(toy)]) == 0
    out, _ = capsys.readouterr()
    assert "models: 9 architectures: arctic, dots1, " in out
    assert "options: 5: --ctx-size, --flash-attn, " in out


def test_probe_in_json(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["probe", "--json", str(toy), str(toy / "libllama.so")]) == 0
    told = document(capsys)
    assert told["schema"] == "sparkbuild/probe/1"
    both, one = told["probes"]
    assert (both["path"], one["path"]) == (str(toy), str(toy / "libllama.so"))
    assert [f["name"] for f in both["files"]] == ["libllama.so", "llama-server"]
    assert one["files"][0]["device_code"] == [{"name": "sm_121a", "entries": 1, "compressed": 0}]
    assert set(one["files"][0]) == {"name", "size", "elf", "device_code", "instructions"}
    verdicts = one["verdicts"]
    assert (verdicts["number"], verdicts["commit"]) == (4711, "0c1e570")
    assert {"head": 128, "k": "q8_0", "v": "q4_0"} in verdicts["pairs"]
    assert {"name": "gptj", "state": "present"} in verdicts["models"]
    states = {f["name"]: f["state"] for f in verdicts["findings"]}
    assert (states["cuda"], states["vulkan"]) == ("present", "absent")
    assert one["said"] is None
    assert one["contradictions"] == []


def test_probe_run_shows_what_it_says_and_where_that_is_not_so(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["probe", "--run", str(toy)]) == 0
    out, _ = capsys.readouterr()
    assert "version: 4711 (0c1e570)" in out
    assert "contradiction: llamafile is absent" in out
    assert "\x1b" not in out
    assert run(["probe", "--run", "--json", str(toy)]) == 0
    told = document(capsys)["probes"][0]
    assert told["said"]["tool"] == "llama-server"
    assert told["said"]["cache_types"] == ["f32", "f16", "q8_0"]
    assert "llamafile" in [c["feature"] for c in told["contradictions"]]


def test_probe_of_a_name_that_steers_a_terminal_or_is_no_text(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("\x1b[31mred", os.fsdecode(b"\xff"), "[bold]x[/bold]"):
        (tmp_path / "odd" / name).mkdir(parents=True)
        shutil.copy(toy / "llama-server", tmp_path / "odd" / name)
    assert run(["probe", str(tmp_path / "odd")]) == 0
    out, _ = capsys.readouterr()
    assert "\x1b" not in out
    assert "[bold]x[/bold]" in out
    assert run(["probe", "--json", str(tmp_path / "odd")]) == 0
    names = [f["name"] for f in document(capsys)["probes"][0]["files"]]
    assert sorted(names) == ["[bold]x[/bold]/llama-server", r"\x1b[31mred/llama-server", r"\xff/llama-server"]
    for given in (tmp_path / "odd" / os.fsdecode(b"\xff"), tmp_path / os.fsdecode(b"gone \xff")):
        assert run(["probe", str(given)]) == (0 if given.exists() else 2)
        assert run(["probe", "--json", str(given)]) == (0 if given.exists() else 2)


# --- require -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted", [["cuda"], ["cuda", "sm_121a", "kv:f16/f16", "model:gptj", "option:--help"]]
)
def test_a_requirement_that_is_met(toy: Path, wanted: list[str]) -> None:
    assert run(["probe", str(toy), *(f"--require={w}" for w in wanted)]) == 0


def test_requirements_that_are_not_met_are_exit_code_1(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["probe", str(toy), "--require", "cuda", "--require", "vulkan", "--require", "kv:f16/q8_0"]
    assert run(words) == 1
    out, err = capsys.readouterr()
    assert "build 4711" in out
    assert f"{toy}: vulkan is absent\n{toy}: kv:f16/q8_0 is absent" in err
    assert "2 of 3 requirements are not met" in err
    assert run([*words, "--json"]) == 1
    assert document(capsys)["schema"] == "sparkbuild/probe/1"


def test_a_requirement_that_makes_no_sense_is_exit_code_2(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["probe", str(toy), "--require", "vulcan"]) == 2
    assert "did you mean vulkan?" in capsys.readouterr().err
    assert run(["probe", str(toy), "--require", "vulcan", "--json"]) == 2
    told = document(capsys)
    assert (told["schema"], told["error"]["kind"]) == ("sparkbuild/error/1", "usage")


@pytest.mark.parametrize(
    ("make", "kind", "code"),
    [
        (lambda _: None, "usage", 2),
        (lambda p: p.write_text("text"), "binary", 7),
        (lambda p: p.mkdir(), "binary", 7),
        (lambda p: p.write_bytes(b"\x7fELF\x02\x01\x01" + b"\xff" * 90), "binary", 7),
        (lambda p: p.write_bytes(b"PK\x03\x04"), "binary", 7),
    ],
)
def test_what_can_not_be_probed(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Path], object],
    kind: str,
    code: int,
) -> None:
    make(tmp_path / "x")
    assert run(["probe", str(tmp_path / "x")]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert str(tmp_path / "x") in err
    assert "Traceback" not in err
    assert run(["probe", str(tmp_path / "x"), "--json"]) == code
    assert document(capsys)["error"]["kind"] == kind


@pytest.mark.parametrize("words", [["probe"], ["probe", "x", "--require"], ["verify-flags", "nobody"]])
def test_a_wrong_call(words: list[str]) -> None:
    assert run(words) == 2


# --- verify-flags --------------------------------------------------------------------------------


def journey(flag: str, *states: str, required: bool = True, verdict: str = "in force") -> Journey:
    stages = tuple(
        Stage(name, state, f"{flag} {state} at {name}")  # type: ignore[arg-type] # literals
        for name, state in zip(STAGES, states, strict=True)
    )
    lost = next((s.name for s in stages if s.state == "lost"), "")
    return Journey(flag, "ON", "recipe:fast", required, stages, verdict, lost)  # type: ignore[arg-type]


def stored(*flags: Journey) -> None:
    """Put an artifact with these flags into the default store."""
    made = manifest_of(flags=flags)
    manifest = msgspec.structs.replace(made, engine=msgspec.structs.replace(made.engine, name=_ENGINE))
    with store.adding(_ENGINE, manifest.key, Folders.default()) as temp:
        (temp / "bin").mkdir()
        shutil.copy(shutil.which("gcc") or "", temp / "bin/compiler")
        (temp / manifest.files[0].path).write_bytes(FILE)
        store.finish(temp, manifest)


def test_verify_flags_of_an_empty_store(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify-flags", "--json"]) == 2
    assert document(capsys)["error"]["what"] == "nothing is built yet"
    assert run(["verify-flags", _ENGINE]) == 2


@pytest.fixture
def flags() -> tuple[Journey, ...]:
    """Return a flag in force, one that is only set, a lost one, an unknown one of nobody's need."""
    on = ("held",) * 4
    return (
        journey("TOY_FAST", *on, "none", "none", "none"),
        journey("TOY_SET", "held", "held", "held", "none", "none", "none", "none", verdict="set"),
        journey("TOY_GONE", "held", "held", "lost", *("none",) * 4, verdict="lost"),
        journey("TOY_OWN", *("held",) * 3, "unknown", *("none",) * 3, required=False, verdict="unknown"),
    )


def verified(*flags: Journey) -> Verified:
    return Verified("toy@0123abcd", flags, ("the source is not here",))


def test_journeys_for_people(flags: tuple[Journey, ...], capsys: pytest.CaptureFixture[str]) -> None:
    render_journeys.journeys([verified(*flags)], as_json=False)
    out = capsys.readouterr().out
    rows = {line.split("=")[0]: line.split()[1:] for line in out.splitlines() if line.startswith("TOY_")}
    assert rows["TOY_FAST"][:1] == ["*"]
    assert "TOY_GONE=ON: lost at cache: TOY_GONE lost at cache" in out
    assert "TOY_OWN=ON: not known: TOY_OWN unknown at commands" in out
    assert "LOST" in out
    assert "not known: the source is not here" in out
    assert all(stage in out for stage in STAGES[1:])
    assert "\x1b" not in out


def test_journeys_in_json(flags: tuple[Journey, ...], capsys: pytest.CaptureFixture[str]) -> None:
    render_journeys.journeys([verified(*flags)], as_json=True)
    told = document(capsys)
    assert told["schema"] == "sparkbuild/verify-flags/1"
    (build,) = told["builds"]
    assert (build["name"], build["notes"]) == ("toy@0123abcd", ["the source is not here"])
    assert [f["verdict"] for f in build["flags"]] == ["in force", "set", "lost", "unknown"]
    assert build["flags"][2]["lost_at"] == "cache"
    assert build["flags"][0]["stages"][1] == {
        "name": "declared",
        "state": "held",
        "said": "TOY_FAST held at declared",
    }


def test_verify_flags_of_what_was_built(capsys: pytest.CaptureFixture[str]) -> None:
    """Each stage up to the compiler is the manifest's; the binary is looked at again."""
    kept = ("held",) * 5
    stored(journey("TOY_FAST", *kept, "none", "none"))
    assert run(["verify-flags", _ENGINE]) == 0
    assert "TOY_FAST=ON *" in capsys.readouterr().out
    assert run(["verify-flags", "--json"]) == 0
    told = document(capsys)
    assert told["schema"] == "sparkbuild/verify-flags/1"
    assert [s["state"] for s in told["builds"][0]["flags"][0]["stages"]] == [*kept, "none", "none"]


def test_a_required_flag_that_was_lost_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    stored(journey("TOY_FAST", "held", "held", "lost", *("none",) * 4, verdict="lost"))
    assert run(["verify-flags", _ENGINE]) == 1
    out, err = capsys.readouterr()
    assert "LOST" in out
    assert "1 required flags are not in force" in err
    assert "TOY_FAST=ON: lost at cache" in out
    assert run(["verify-flags", "--json"]) == 1
    assert document(capsys)["builds"][0]["flags"][0]["verdict"] == "lost"
