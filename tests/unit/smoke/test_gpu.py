"""A GPU's presence from what a driver shows, and its use from what engines print."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from sparkbuild.inspection.report import BackendReport, Device, SystemReport
from sparkbuild.smoke.answers import Bench
from sparkbuild.smoke.gpu import decide, gpus
from sparkbuild.smoke.run import devices_of
from tests.unit.smoke import toys

# As the sources of the three engines print it: llama.cpp and llama.cpp-dgx, then ik_llama.cpp.
_LOGS = [
    "load_tensors: offloading output layer to GPU\nload_tensors: offloaded 3/3 layers to GPU\n",
    "llm_load_tensors: offloading 2 repeating layers to GPU\nllm_load_tensors: offloaded 3/3 layers to GPU\n",
]
_NEW = {"gpu_info": "NVIDIA GB10", "backends": "CUDA", "n_gpu_layers": 999}
_OLD = {"gpu_info": "NVIDIA GB10", "backends": None, "cuda": True, "n_gpu_layers": 999}


def records(**changes: object) -> list[Bench]:
    return msgspec.convert(toys.results(**changes), list[Bench])


@pytest.mark.parametrize("log", _LOGS)
@pytest.mark.parametrize("said", [_NEW, _OLD])
def test_a_gpu_in_use(log: str, said: dict[str, object]) -> None:
    verdict, why = decide(("CUDA0 NVIDIA GB10",), {"bench": log, "server": log}, records(**said))
    assert verdict == "passed"
    assert why == "bench: 3 of 3 layers on the GPU; server: 3 of 3 layers on the GPU; NVIDIA GB10"


@pytest.mark.parametrize("log", _LOGS)
def test_a_server_alone_can_show_it(log: str) -> None:
    assert decide(None, {"server": log}, [])[0] == "passed"
    assert decide(("CUDA0",), {"server": log}, []) == ("passed", "server: 3 of 3 layers on the GPU; CUDA0")


@pytest.mark.parametrize(
    ("devices", "log", "said", "why"),
    [
        ((), _LOGS[0], _NEW, "the engine lists no GPU"),
        (None, _LOGS[1].replace("3/3", "0/3"), _OLD, "0 of 3 layers"),
        (None, _LOGS[0].replace("3/3", "2/3"), _NEW, "2 of 3 layers"),
        (None, _LOGS[0] + _LOGS[0].replace("3/3", "0/3"), _NEW, "0 of 3 layers"),
        (None, _LOGS[0], _NEW | {"gpu_info": ""}, "its results name no GPU"),
        (None, _LOGS[0], _NEW | {"backends": "CPU"}, "no CUDA backend but CPU"),
        (None, _LOGS[0], _OLD | {"cuda": False}, "no CUDA backend"),
        (None, _LOGS[0], _NEW | {"n_gpu_layers": 0}, "0 layers on the GPU"),
        (None, "warning: no usable GPU found, --gpu-layers option will be ignored", _NEW, "no usable GPU"),
        (
            None,
            "ggml_cuda_init: failed to initialize CUDA: CUDA driver version is insufficient\x1b[2J\n"
            + _LOGS[0],
            _NEW,
            "failed to initialize CUDA",
        ),
    ],
)
def test_one_sign_of_the_cpu_is_enough(
    devices: tuple[str, ...] | None, log: str, said: dict[str, object], why: str
) -> None:
    verdict, told = decide(devices, {"bench": log}, records(**said))
    assert verdict == "failed"
    assert told.startswith("it fell back to the CPU: ")
    assert why in told
    assert told.isprintable()


def test_no_sign_at_all_fails_too() -> None:
    assert decide(("CUDA0",), {"bench": "", "server": ""}, records(**_NEW)) == (
        "failed",
        "nothing that its tools said shows that it used the GPU",
    )


def test_devices_of_new_and_old_registries() -> None:
    cpu, gpu = Device("CPU", "a processor", "cpu"), Device("CUDA0", "NVIDIA GB10", "igpu")
    new = SystemReport(
        "native", backends=(BackendReport("CUDA", {}, (gpu,)), BackendReport("CPU", {}, (cpu,)))
    )
    old = SystemReport("native", backends=(BackendReport("CPU", {}), BackendReport("CUDA0", {})))
    assert devices_of(new) == ("CUDA0 NVIDIA GB10",)
    assert devices_of(old) == ("CUDA0",)
    assert devices_of(SystemReport("native", backends=(BackendReport("CPU", {}, (cpu,)),))) == ()
    assert devices_of(SystemReport("native", backends=(BackendReport("CPU", {}),))) == ()


def test_a_gpu_is_seen_without_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert gpus(tmp_path) == ()
    place = tmp_path / "proc/driver/nvidia/gpus/000f:01:00.0"
    place.mkdir(parents=True)
    (place / "information").write_text("Model: \t\t NVIDIA GB10\nIRQ:   \t\t 441\n")
    assert gpus(tmp_path) == ()  # a container that was not given it
    (tmp_path / "dev").mkdir()
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / "dev" / name).touch()
    assert gpus(tmp_path) == ("NVIDIA GB10", "/dev/nvidia1")


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("echo 'GPU 0: NVIDIA GB10 (UUID: GPU-8a6f)'", ("NVIDIA GB10",)),
        ("echo 'GPU 0: NVIDIA H200'; echo 'GPU 1: NVIDIA H200 (UUID: GPU-1)'", ("NVIDIA H200",) * 2),
        ("echo 'No devices found.'", ()),
        ("echo 'NVIDIA-SMI has failed'; exit 9", ()),
    ],
)
def test_nvidia_smi_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, found: tuple[str, ...]
) -> None:
    monkeypatch.setenv("PATH", toys.on_path(tmp_path / "bin", "nvidia-smi", said))
    assert gpus(tmp_path) == found
