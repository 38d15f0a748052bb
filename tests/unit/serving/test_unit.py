"""A service: its command line, its unit as systemd reads it, and what is refused."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sparkbuild import handover
from sparkbuild.catalog import Catalog, shipped_root
from sparkbuild.catalog.switches import Switches
from sparkbuild.errors import FindingError, MissingError, UsageError
from sparkbuild.inspection.features import Model
from sparkbuild.serving.unit import Service, model_architecture, service, with_settings
from tests.conftest import FILE, manifest_of, run_of

_PROFILE = handover.Profile(
    "mine", "Mine", {"threads": "16", "mmap": "off"}, {"A_NAME": 'a "value" of $5 100%'}
)


def gguf(path: Path, architecture: str = "toy", key: bytes = b"general.architecture") -> Path:
    value = architecture.encode()
    path.write_bytes(
        b"GGUF"
        + struct.pack("<IQQ", 3, 0, 1)
        + struct.pack("<Q", len(key))
        + key
        + struct.pack("<IQ", 8, len(value))
        + value
    )
    return path


@pytest.fixture
def rules() -> Switches:
    return Catalog((shipped_root(),)).switches().record


def serve(
    tmp_path: Path,
    rules: Switches,
    *,
    profile: handover.Profile = _PROFILE,
    **changes: Any,  # noqa: ANN401
) -> Service:
    verdicts = msgspec.structs.replace(
        manifest_of().verdicts, models=(Model("toy", "present"), Model("gone", "absent"))
    )
    manifest = manifest_of(**{"verdicts": verdicts} | changes)
    (tmp_path / "bin").mkdir(exist_ok=True)
    (tmp_path / "bin/toy-server").write_bytes(FILE)
    (tmp_path / "bin/toy-server").chmod(0o755)
    return service(manifest, tmp_path, gguf(tmp_path / "a $model 100%.gguf"), profile, rules, "daemon")


def test_the_command_is_spelled_for_this_build(tmp_path: Path, rules: Switches) -> None:
    made = serve(tmp_path, rules)
    assert made.command[0] == str(tmp_path / "bin/toy-server")
    assert made.command[1:] == (
        "--model",
        str(tmp_path / "a $model 100%.gguf"),
        "--threads",
        "16",
        "--no-mmap",
    )


def test_systemd_takes_the_unit_as_it_is_meant(tmp_path: Path, rules: Switches) -> None:
    made = serve(tmp_path, rules)
    folder = str(tmp_path)
    assert (
        f'ExecStart={folder}/bin/toy-server --model "{folder}/a $$model 100%%.gguf" --threads 16' in made.unit
    )
    assert 'Environment="A_NAME=a \\"value\\" of $5 100%%"' in made.unit
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    (tmp_path / "toy.service").write_text(made.unit)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / "toy.service"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in done.stderr.splitlines() if "toy.service" in line] == []


@pytest.mark.threat(
    "manifests", "a line break with a setting of systemd behind it, in a profile", "refused (2)"
)
def test_a_unit_has_no_way_in_for_control_characters(tmp_path: Path, rules: Switches) -> None:
    bad = handover.Profile("mine", "Mine", {"threads": "16"}, {"A": "b\nExecStartPre=/bin/evil"})
    with pytest.raises(UsageError, match="control characters"):
        serve(tmp_path, rules, profile=bad)


def test_what_the_build_can_not_do_is_refused_by_name(tmp_path: Path, rules: Switches) -> None:
    settings = {"gpu_layers": "999", "cache_type_k": "q6_0", "context": "4096"}
    with pytest.raises(FindingError) as caught:
        serve(tmp_path, rules, profile=handover.Profile("mine", "", settings))
    assert caught.value.output.splitlines() == [
        "gpu_layers 999 needs cuda, which is unknown in this build",
        "server takes cache_type_k f16, q4_0, not q6_0",
        "its server has no switch for context",
    ]
    gguf(tmp_path / "other.gguf", "gone")
    manifest = manifest_of(
        verdicts=msgspec.structs.replace(manifest_of().verdicts, models=(Model("gone", "absent"),))
    )
    with pytest.raises(FindingError, match="profile mine") as caught:
        service(manifest, tmp_path, tmp_path / "other.gguf", _PROFILE, rules, "daemon")
    assert caught.value.output == "it does not know the model architecture gone"


def test_a_build_without_a_server_or_without_known_switches(tmp_path: Path, rules: Switches) -> None:
    without = msgspec.structs.replace(run_of(), tools=())
    with pytest.raises(FindingError, match="has no server"):
        serve(tmp_path, rules, run=without)
    mute = handover.Tool("server", "bin/toy-server", (), "not known: qemu-aarch64 is not installed")
    with pytest.raises(MissingError, match="not known: qemu"):
        serve(tmp_path, rules, run=msgspec.structs.replace(run_of(), tools=(mute,)))


def test_what_one_should_know_is_told(tmp_path: Path, rules: Switches) -> None:
    made = serve(tmp_path, rules, profile=handover.Profile("mine", "", {"cache_type_k": "q4_0"}))
    assert made.notes == (
        "a KV cache of q4_0/f16 has no vector kernel in this build: others are converted",
        "it needs CUDA 13's libraries on the loader's path and a driver of branch 580 or newer",
    )


def test_settings_of_ones_own(rules: Switches) -> None:
    made = with_settings(_PROFILE, {"port": "9", "mmap": "", "flash_attention": "true"}, rules)
    assert made.settings == {"threads": "16", "port": "9", "flash_attention": "on"}
    for name in ("prot", "model", "output"):  # the last is llama-bench's
        with pytest.raises(UsageError, match=f"no setting '{name}'"):
            with_settings(_PROFILE, {name: "9"}, rules)


def able(*more: str) -> handover.Run:
    """Return a run part whose server has these settings too, each with any value."""
    (tool,) = (t for t in run_of().tools if t.role == "server")
    switches = (*tool.switches, *(handover.Switch(n, "", (f"--{n}", "{value}")) for n in more))
    return msgspec.structs.replace(run_of(), tools=(msgspec.structs.replace(tool, switches=switches),))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("port", "-1", "port takes a port, not '-1'"),
        ("port", "8080=2", "port takes a port, not '8080=2'"),
        ("threads", "--evil", "threads takes a whole number, not '--evil'"),
        ("threads", "8\n", "threads takes a whole number, not '8\\n'"),
        ("temperature", "hot", "temperature takes a number, not 'hot'"),
        ("mmap", "1", "server takes mmap off, not 1"),
    ],
)
def test_a_value_at_which_a_server_would_end_is_refused(
    tmp_path: Path, rules: Switches, name: str, value: str, said: str
) -> None:
    profile = handover.Profile("mine", "", {name: value})
    with pytest.raises(FindingError) as caught:
        serve(tmp_path, rules, profile=profile, run=able("port", "temperature"))
    assert caught.value.output == said


def test_numbers_are_taken(tmp_path: Path, rules: Switches) -> None:
    profile = handover.Profile("mine", "", {"port": "8080", "threads": "-1", "temperature": "0.6"})
    made = serve(tmp_path, rules, profile=profile, run=able("port", "temperature"))
    assert made.command[3:] == ("--port", "8080", "--threads", "-1", "--temperature", "0.6")
    assert "AmbientCapabilities" not in made.unit


def test_a_quantised_v_needs_flash_attention(tmp_path: Path, rules: Switches) -> None:
    settings = {"flash_attention": "off", "cache_type_v": "q8_0"}
    run = able("flash_attention", "cache_type_v")
    with pytest.raises(FindingError) as caught:
        serve(tmp_path, rules, profile=handover.Profile("mine", "", settings), run=run)
    assert caught.value.output == "cache_type_v q8_0 needs flash_attention, which is off"
    serve(tmp_path, rules, profile=handover.Profile("mine", "", settings | {"cache_type_v": "f16"}), run=run)


def test_a_unit_finds_its_model_and_may_have_its_port(tmp_path: Path, rules: Switches) -> None:
    made = serve(tmp_path, rules, profile=handover.Profile("mine", "", {"port": "80"}), run=able("port"))
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE" in made.unit
    assert "PrivateTmp" not in made.unit  # a model in /tmp would not be there


def test_a_models_architecture(tmp_path: Path) -> None:
    assert model_architecture(gguf(tmp_path / "m", "minimax-m2")) == "minimax-m2"
    assert model_architecture(gguf(tmp_path / "m", key=b"general.name")) == ""
    whole = gguf(tmp_path / "m").read_bytes()
    for size in range(4, len(whole)):
        (tmp_path / "m").write_bytes(whole[:size])
        assert model_architecture(tmp_path / "m") == ""
    (tmp_path / "m").write_bytes(whole[:24] + b"\xff" * 40)
    assert model_architecture(tmp_path / "m") == ""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="cannot read the model"):
        model_architecture(tmp_path / "pipe")
    for data in (b"", b"GGU", b"\x7fELF"):
        (tmp_path / "m").write_bytes(data)
        with pytest.raises(UsageError, match="no GGUF"):
            model_architecture(tmp_path / "m")
    with pytest.raises(UsageError, match="No such file"):
        model_architecture(tmp_path / "none")
