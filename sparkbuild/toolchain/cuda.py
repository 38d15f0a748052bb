"""A CUDA toolkit for the target: an installed one that will do, else one assembled from wheels.

NVIDIA publishes the whole of CUDA as wheels, for x86_64 and for Arm servers (its "sbsa" platform,
which GB10 is). A compiler for this machine and the libraries of the target make a cross toolkit.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import msgspec
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from sparkbuild import process
from sparkbuild.catalog.records import CudaWheels, Toolchain
from sparkbuild.errors import MissingError, UsageError
from sparkbuild.files import Folders, locked, sha256_bytes, sha256_file
from sparkbuild.packages import obtain
from sparkbuild.progress import Progress
from sparkbuild.toolchain.assemble import assemble, is_whole
from sparkbuild.toolchain.compilers import Compilers, is_cross, target_processor
from sparkbuild.toolchain.memory import recall

# nvcc's own name for a target platform (CUDA Installation Guide, "Cross-platform Environment").
PLATFORMS = {"aarch64": "sbsa-linux", "x86_64": "x86_64-linux"}
_PROGRAMS = ("bin/nvcc", "bin/cudafe++", "bin/ptxas", "bin/fatbinary", "bin/nvlink", "nvvm/bin/cicc")
_LAYOUT = 1  # of an assembled toolkit; part of its digest
_UNLINKABLE = re.compile(r"[\s,:'$`&()<>]")  # in -Wl,-rpath-link,A:B and -Xcompiler=A,B
_INSTALLED = ("/usr/local/cuda", "/opt/cuda")


class CudaToolkit(msgspec.Struct, frozen=True):
    """A toolkit: nvcc's version, where it is, how it came, and what CMake must be told.

    ``digest`` covers what compiles and what is linked; ``runtime_dirs`` is where a program that was
    built with it finds CUDA's libraries on this machine.
    """

    root: Path
    version: str
    origin: str
    digest: str
    target_dir: Path
    definitions: dict[str, str]

    @property
    def nvcc(self) -> Path:
        """The compiler driver."""
        return self.root / "bin/nvcc"

    @property
    def runtime_dirs(self) -> tuple[Path, ...]:
        """CUDA's libraries, and the driver stub where no driver is installed."""
        return _runtime_dirs(self.target_dir / "lib")


def _runtime_dirs(lib: Path) -> tuple[Path, ...]:
    return (lib,) if Path("/proc/driver/nvidia").exists() else (lib, lib / "stubs")


def runtime_dirs(root: Path, machine: str) -> tuple[Path, ...]:
    """Return where a toolkit's libraries for a machine are; nothing when it is not here."""
    lib = root / "targets" / PLATFORMS.get(machine, "") / "lib"
    return _runtime_dirs(lib) if lib.is_dir() else ()


def find_cuda(
    toolchain: Toolchain,
    wheels: CudaWheels,
    compilers: Compilers,
    folders: Folders,
    *,
    offline: bool,
    progress: Progress,
) -> CudaToolkit:
    """Return an installed toolkit that satisfies the toolchain, else one assembled in the cache.

    Raises MissingError when neither can be had.
    """
    refused = []
    for root in installed_roots():
        version = nvcc_version(root / "bin/nvcc")
        why = refusal(toolchain, version) or _lacks(root, toolchain)
        if not why:
            return _installed(root, version, toolchain, compilers, folders)
        refused.append(f"{root}: {why}")
    if why := refusal(toolchain, wheels.version):
        raise MissingError(
            f"no CUDA for {toolchain.name}: {why}",
            where="; ".join([*refused, f"wheels {wheels.name}"]),
            remedy="install CUDA 13.0 or name other wheels in the toolchain file",
        )
    return _assembled(toolchain, wheels, compilers, folders, offline=offline, progress=progress)


def refusal(toolchain: Toolchain, version: str) -> str:
    """Return why the toolchain refuses this version of nvcc; empty when it does not."""
    if not re.fullmatch(r"\d+(\.\d+)+", version):
        return "nvcc does not tell its version"
    for rule in toolchain.cuda.refuse:
        if Version(version) in SpecifierSet(rule.versions):
            return f"CUDA {version} ({rule.versions}): {rule.why}"
    return ""


def nvcc_version(nvcc: Path) -> str:
    """Return what nvcc calls itself, such as 13.0.88; empty when it does not run."""
    try:
        said = process.run([nvcc, "--version"]).output
    except process.ProcessError:
        return ""
    match = re.search(r"\bV(\d+\.\d+\.\d+)", said)
    return match[1] if match else ""


def gpu_arch(toolchain: Toolchain) -> str:
    """Return the CMAKE_CUDA_ARCHITECTURES value for a toolchain; "native" becomes this machine's GPU's.

    Raises MissingError when it is native and no GPU is here to ask.
    """
    if toolchain.cuda.arch != "native":
        return toolchain.cuda.arch
    try:
        tool = shutil.which("nvidia-smi") or "nvidia-smi"
        said = process.run([tool, "--query-gpu=compute_cap", "--format=csv,noheader"]).output
    except process.ProcessError as problem:
        said = str(problem)
    found = sorted({line.strip().replace(".", "") for line in said.splitlines()})
    if not found or not all(f.isdigit() for f in found):
        raise MissingError(
            f"{toolchain.name} means this machine's GPU, and there is none to ask",
            where=f"nvidia-smi: {said.strip()[:200]}",
            remedy="name the compute capability: -D CMAKE_CUDA_ARCHITECTURES=121",
        )
    return ";".join(found)


def installed_roots() -> list[Path]:
    """Return the CUDA toolkits that are installed on this machine, the one on PATH first."""
    named = [Path(p) for p in _INSTALLED] + sorted(Path("/usr/local").glob("cuda-*"), reverse=True)
    on_path = shutil.which("nvcc")
    found = [Path(on_path).resolve().parent.parent] if on_path else []
    found += [p.resolve() for p in named if (p / "bin/nvcc").is_file()]
    return list(dict.fromkeys(r for r in found if (r / "bin/nvcc").is_file()))


def _target_dir(root: Path, toolchain: Toolchain) -> Path:
    return root / "targets" / PLATFORMS[target_processor(toolchain)]


def _lacks(root: Path, toolchain: Toolchain) -> str:
    """Return what an installed toolkit lacks for the target; empty when it has all."""
    target = _target_dir(root, toolchain)
    wanted = ("include/cuda_runtime.h", "include/cublas_v2.h", "lib/libcudart.so", "lib/libcublas.so")
    missing = [w for w in (*wanted, "lib/stubs/libcuda.so") if not (target / w).exists()]
    return f"has no {', '.join(missing)} for {target.name}" if missing else ""


def _installed(
    root: Path, version: str, toolchain: Toolchain, compilers: Compilers, folders: Folders
) -> CudaToolkit:
    target = _target_dir(root, toolchain)

    def digest() -> tuple[str, list[Path]]:
        parts = [root / p for p in _PROGRAMS] + sorted((root / "nvvm/libdevice").glob("*.bc"))
        parts += [target / "lib" / name for name in ("libcudart_static.a", "libcudadevrt.a", "libcudart.so")]
        files = [p for p in parts if p.is_file()]
        lines = [f"{sha256_file(f)}  {f.resolve().name}" for f in files]
        return sha256_bytes("\n".join(lines).encode()), files

    known = recall(folders.cache, "cuda", [root, version, target.name], str, digest)
    return _toolkit(root, version, "installed", known, target, toolchain, compilers)


def _assembled(
    toolchain: Toolchain,
    wheels: CudaWheels,
    compilers: Compilers,
    folders: Folders,
    *,
    offline: bool,
    progress: Progress,
) -> CudaToolkit:
    """Unpack the wheels that this pair of machines needs into one toolkit folder."""
    if bad := _UNLINKABLE.search(str(folders.cache)):
        raise UsageError(
            f"CUDA can not be used from below a path with {bad[0]!r} in it: nvcc and the linker split there",
            where=str(folders.cache),
            remedy="point SPARKBUILD_HOME at another folder",
        )
    machine = target_processor(toolchain)
    build_machine = _build_machine(compilers)
    chosen = [w for w in wheels.wheels if w.machine == (build_machine if w.part == "build" else machine)]
    if not chosen:
        raise MissingError(f"wheels {wheels.name} hold nothing for {build_machine} building for {machine}")
    digest = sha256_bytes("\n".join([str(_LAYOUT), *sorted(w.pin.sha256 for w in chosen)]).encode())
    root = folders.cache / "cuda" / f"{wheels.version}-{machine}-{digest[:12]}"
    with locked(root.with_name(f"{root.name}.lock")):
        if root.is_dir() and not is_whole(root, folders):
            progress.note(f"CUDA in {root} is not what was assembled there; it is assembled again")
            shutil.rmtree(root)
        if not root.is_dir():
            files = [(w, obtain(w.pin, folders, offline=offline, progress=progress)) for w in chosen]
            progress.stage(f"assemble CUDA {wheels.version} for {machine} from {len(files)} wheels")
            assemble(files, root, _target_dir(root, toolchain), compilers)
    return _toolkit(
        root, wheels.version, "wheels", digest, _target_dir(root, toolchain), toolchain, compilers
    )


def _build_machine(compilers: Compilers) -> str:
    """Return the machine that builds: the other one when cross-building."""
    target = compilers.target.partition("-")[0]
    return next(m for m in PLATFORMS if (m != target) == compilers.cross)


def _toolkit(
    root: Path,
    version: str,
    origin: str,
    digest: str,
    target: Path,
    toolchain: Toolchain,
    compilers: Compilers,
) -> CudaToolkit:
    """Return the toolkit with what CMake (4.2 or newer) must be told to take it and nothing else.

    The engines look for the toolkit before they enable CUDA; without a host compiler of its own
    that search asks nvcc for this machine's target, not the one that is built for.
    """
    lib = target / "lib"
    definitions = {
        "CMAKE_CUDA_COMPILER": str(root / "bin/nvcc"),
        "CMAKE_CUDA_HOST_COMPILER": str(compilers.cxx),
        "CUDAToolkit_CUDA_HOST_COMPILER": str(compilers.cxx),
        "CUDAToolkit_ROOT": str(root),
        "CMAKE_EXE_LINKER_FLAGS": f"-Wl,-rpath-link,{lib}:{lib / 'stubs'}",
    }
    if is_cross(toolchain):
        definitions |= {
            "CMAKE_FIND_ROOT_PATH": f"/usr/{compilers.target}",
            "CMAKE_FIND_ROOT_PATH_MODE_PROGRAM": "NEVER",
            "CMAKE_FIND_ROOT_PATH_MODE_LIBRARY": "ONLY",
            "CMAKE_FIND_ROOT_PATH_MODE_INCLUDE": "ONLY",
            "CMAKE_FIND_ROOT_PATH_MODE_PACKAGE": "ONLY",
        }
    return CudaToolkit(root, version, origin, digest, target, definitions)
