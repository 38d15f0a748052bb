"""Small libraries that look like an engine's, or like nothing good, are asked what they have."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkbuild.inspection import report
from sparkbuild.inspection.report import (
    BackendReport,
    Device,
    SystemReport,
    ask_library,
    parse_system_info,
)
from tests.unit.test_process import gone

_HERE = platform.machine()
_GCC, _ARM = shutil.which("gcc"), shutil.which("aarch64-linux-gnu-gcc")
_QEMU = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")

_MACHINES = [
    pytest.param(("gcc", _HERE, "native"), id="native", marks=pytest.mark.skipif(not _GCC, reason="no gcc")),
    pytest.param(
        ("aarch64-linux-gnu-gcc", "aarch64", "qemu"),
        id="qemu",
        marks=pytest.mark.skipif(
            _HERE == "aarch64" or not _ARM or not _QEMU, reason="needs qemu-aarch64 and its compiler"
        ),
    ),
]

_INCLUDES = """
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
"""
_INFO = 'const char *llama_print_system_info(void) { return "NEON = 1 | SVE = 0 | "; }\n'
_NEW = """
struct feature { const char *name, *value; };
struct device { const char *name, *text; int kind; };
struct backend { const char *name; struct feature *features; struct device devices[2]; size_t count; };

static struct feature gpu[] = {{"ARCHS", "1210"}, {"FA_QUANTS", "all"}, {0}};
static struct feature cpu[] = {{"NEON", "1"}, {"DOTPROD", "1"}, {0}};
static struct backend all[] = {
    {"CUDA", gpu, {{"CUDA0", "Some GPU", 1}, {"CUDA1", "Its neighbour", 2}}, 2},
    {"CPU", cpu, {{"CPU", "Some CPU", 0}}, 1},
    {"BLAS", 0, {{"BLAS", "Some library", 3}, {"?", "Unheard of", 77}}, 2},
};
static struct feature *get_features(struct backend *b) { return b->features; }

size_t ggml_backend_reg_count(void) { return 3; }
void *ggml_backend_reg_get(size_t i) { return &all[i]; }
const char *ggml_backend_reg_name(struct backend *b) { return b->name; }
size_t ggml_backend_reg_dev_count(struct backend *b) { return b->count; }
void *ggml_backend_reg_dev_get(struct backend *b, size_t i) { return &b->devices[i]; }
const char *ggml_backend_dev_name(struct device *d) { return d->name; }
const char *ggml_backend_dev_description(struct device *d) { return d->text; }
int ggml_backend_dev_type(struct device *d) { return d->kind; }
void *ggml_backend_reg_get_proc_address(struct backend *b, const char *name)
{
    return b->features && !strcmp(name, "ggml_backend_get_features") ? (void *) get_features : NULL;
}
const char *llama_print_system_info(void)
{
    return "CUDA : ARCHS = 1210 | FA_QUANTS = all | CPU : NEON = 1 | DOTPROD = 1 | ";
}
"""
_BACKENDS = (
    BackendReport(
        "CUDA",
        {"ARCHS": "1210", "FA_QUANTS": "all"},
        (Device("CUDA0", "Some GPU", "gpu"), Device("CUDA1", "Its neighbour", "igpu")),
    ),
    BackendReport("CPU", {"NEON": "1", "DOTPROD": "1"}, (Device("CPU", "Some CPU", "cpu"),)),
    BackendReport(
        "BLAS", {}, (Device("BLAS", "Some library", "accel"), Device("?", "Unheard of", "unknown"))
    ),
)


class Bench:
    """Makes libraries for one machine and asks them."""

    def __init__(self, folder: Path, compiler: str, machine: str, how: str) -> None:
        self.folder, self.compiler, self.machine, self.how = folder, compiler, machine, how
        self.work = folder / "work"
        self.work.mkdir()

    def library(self, code: str, name: str = "libllama.so.0", *words: str | Path) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        link = (f"-Wl,-soname,{path.name}", "-Wl,-rpath,$ORIGIN")
        command = (self.compiler, "-shared", "-fPIC", "-w", *link, "-o", path, "-x", "c", "-", "-x", "none")
        subprocess.run([*command, *words], input=_INCLUDES + code, text=True, check=True)
        return path

    def models(self, library: Path, names: list[str]) -> dict[str, bool]:
        system, known = ask_library(library, names, self.machine, [self.compiler], self.work)
        assert (system.ran, system.reason, system.system_info) == (self.how, "", "NEON = 1 | SVE = 0 |")
        return known

    def ask(self, library: Path, libraries: tuple[Path, ...] = (), timeout: float = 60) -> SystemReport:
        compiler = [self.compiler, "-Wall", "-Wextra", "-Werror"]
        found, _ = ask_library(library, (), self.machine, compiler, self.work, libraries, timeout=timeout)
        assert list(self.work.iterdir()) == []
        return found


@pytest.fixture(params=_MACHINES)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    return Bench(tmp_path, *request.param)


def test_an_engine_with_a_registry(bench: Bench) -> None:
    found = bench.ask(bench.library(_NEW))
    assert (found.ran, found.reason) == (bench.how, "")
    assert found.system_info == "CUDA : ARCHS = 1210 | FA_QUANTS = all | CPU : NEON = 1 | DOTPROD = 1 |"
    assert found.features == {
        "CUDA": {"ARCHS": "1210", "FA_QUANTS": "all"},
        "CPU": {"NEON": "1", "DOTPROD": "1"},
    }
    assert found.backends == _BACKENDS


def test_an_engine_of_the_older_interface(bench: Bench) -> None:
    code = """
        size_t ggml_backend_reg_get_count(void) { return 2; }
        const char *ggml_backend_reg_get_name(size_t i) { return i ? "CUDA0" : "CPU"; }
    """
    found = bench.ask(bench.library(code + _INFO))
    assert (found.ran, found.features) == (bench.how, {"": {"NEON": "1", "SVE": "0"}})
    assert found.backends == (BackendReport("CPU", {}), BackendReport("CUDA0", {}))


def test_an_engine_without_any_registry(bench: Bench) -> None:
    found = bench.ask(bench.library(_INFO))
    assert (found.ran, found.system_info, found.backends) == (bench.how, "NEON = 1 | SVE = 0 |", ())


def test_the_functions_may_be_in_libraries_behind_it(bench: Bench) -> None:
    lower = bench.library(_NEW, "libggml.so.0")
    assert bench.ask(bench.library("", "libllama.so.0", "-Wl,--no-as-needed", lower)).backends == _BACKENDS


def test_backends_that_are_loaded_at_run_time_are_loaded_first(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
        static char found[500] = "NONE = 1 | ";
        void ggml_backend_load_all_from_path(const char *p) { snprintf(found, 500, "FROM = %s | ", p); }
        const char *llama_print_system_info(void) { return found; }
    """
    bench.library(code)
    monkeypatch.chdir(bench.folder)
    assert bench.ask(Path("libllama.so.0")).features == {"": {"FROM": str(bench.folder)}}


def test_what_the_engine_prints_is_not_taken_for_an_answer(bench: Bench) -> None:
    code = """
        __attribute__((constructor)) static void begin(void)
        {
            puts("info forged%20=%201  \\nbackend forged  \\nend   ");
            fputs("info forged%20=%201  \\nend   \\n", stderr);
            fflush(stdout);
            for (int i = 0; i < 200000; i++)
                fputs("backend a flood of a hundred bytes, 20 MB in all ..................  \\n", stderr);
        }
    """
    found = bench.ask(bench.library(code + _NEW))
    assert (found.ran, found.backends) == (bench.how, _BACKENDS)


_CONSTRUCTORS = [
    ("raise(SIGSEGV);", "ended by signal SIGSEGV in dlopen"),
    (
        'fputs("\\033[2JGPU on fire\\n", stderr); abort();',
        "SIGABRT in dlopen, saying: \N{REPLACEMENT CHARACTER}",
    ),
    ("exit(0);", "exit code 0 in dlopen"),
    ('puts("bye"); fflush(stdout); _exit(3);', "exit code 3 in dlopen, saying: bye"),
    ("for (;;) pause();", "no answer within 2 s in "),
    ('for (;;) puts("y");', "no answer within 2 s in "),
]


@pytest.mark.parametrize(("code", "reason"), _CONSTRUCTORS)
def test_a_library_that_can_not_be_loaded_alive(bench: Bench, code: str, reason: str) -> None:
    library = bench.library(f"__attribute__((constructor)) static void begin(void) {{ {code} }}\n{_NEW}")
    found = bench.ask(library, timeout=2 if "within" in reason else 60)
    assert found.ran == "failed"
    assert reason in found.reason
    assert found.reason.isprintable()
    assert (found.system_info, found.backends) == ("", ())


@pytest.mark.threat(
    "binaries", "a library that crashes while it is asked", "what it said before is kept, and the crash told"
)
def test_a_crash_later_on_keeps_what_was_said_before(bench: Bench) -> None:
    code = _NEW.replace("{ return d->text; }", "{ raise(SIGILL); return d->text; }")
    found = bench.ask(bench.library(code))
    assert found.ran == "failed"
    assert found.reason == "ended by signal SIGILL in ggml_backend_dev_description"
    assert found.features["CUDA"] == {"ARCHS": "1210", "FA_QUANTS": "all"}
    assert found.backends == (BackendReport("CUDA", {"ARCHS": "1210", "FA_QUANTS": "all"}),)


_ENDLESS = _NEW.replace("{ return 3; }", "{ return -1; }").replace("&all[i]", "&all[i % 3]")
_MILLION = _NEW.replace(
    "{ return b->features; }",
    """{
        static struct feature many[1000001];
        for (int i = 0; i < 1000000; i++) many[i] = gpu[0];
        return many;
    }""",
)
_LOADER = """
#include <stdint.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
struct params { void *a; int b[40]; int sentinel; };
static void (*hear)(int, const char *, void *);
void llama_log_set(void (*listener)(int, const char *, void *), void *data) { hear = listener; }
struct params llama_model_default_params(void) { struct params p = { .sentinel = 4711 }; return p; }
void *llama_model_load_from_file(const char *path, struct params p) {
    char text[512] = "", name[64] = "", said[200];
    uint64_t size = 0;
    FILE *file = fopen(path, "rb");
    size_t count = fread(text, 1, sizeof text, file);
    fclose(file);
    memcpy(&size, text + 24 + 8 + 20 + 4, 8);
    memcpy(name, text + 24 + 8 + 20 + 4 + 8, size);
    if (p.sentinel != 4711 || count != 24 + 8 + 20 + 4 + 8 + size || memcmp(text, "GGUF\\3", 5)) abort();
    if (!strcmp(name, "crash")) abort();
    if (!strcmp(name, "silent")) return NULL;
    if (!strcmp(name, "llama"))
        snprintf(said, sizeof said, "error: key not found in model: %s.context_length", name);
    else
        snprintf(said, sizeof said, "error: unknown model architecture: '%s'", name);
    hear(4, said, NULL);
    return NULL;
}
"""


def test_models_are_known_strange_or_not_told(bench: Bench) -> None:
    library = bench.library(_INFO + _LOADER)
    names = ["llama", "strange", "silent", "with space"]
    assert bench.models(library, names) == {"llama": True, "strange": False, "with space": False}


def test_a_crash_with_one_model_keeps_what_was_told_before(bench: Bench) -> None:
    assert bench.models(bench.library(_INFO + _LOADER), ["llama", "crash", "strange"]) == {"llama": True}


def test_an_engine_that_loads_no_models_tells_nothing(bench: Bench) -> None:
    assert bench.models(bench.library(_INFO), ["llama"]) == {}


_LONG = "const char *llama_print_system_info(void) { return memset(calloc(1, 1 << 24), 'x', 1 << 23); }"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("", "it does not export llama_print_system_info"),
        (
            "const char *llama_print_system_info(void) { return NULL; }",
            "nothing was returned by llama_print_system_info",
        ),
        (
            _INFO + "size_t ggml_backend_reg_count(void) { return 1; }",
            "it does not export ggml_backend_reg_get",
        ),
        (_ENDLESS, "it says more than 256 KiB"),
        (_MILLION, "it says more than 256 KiB"),
        (_LONG, "it says more than 256 KiB"),
    ],
)
def test_a_library_that_is_of_no_use(bench: Bench, code: str, reason: str) -> None:
    found = bench.ask(bench.library(code))
    assert (found.ran, found.reason) == ("failed", reason)


@pytest.mark.threat("binaries", "devices and features with hostile names", "shown as printable text")
def test_hostile_names(bench: Bench) -> None:
    code = (
        _NEW.replace('"ARCHS"', r'"A\nend   \n%41\033[2J "')
        .replace('{"FA_QUANTS", "all"}', r'{"\xff\xfe", 0}')
        .replace('"Some GPU"', "0")
        .replace('"CUDA0"', '""')
        .replace('{"CPU", cpu', "{0, cpu")
    )
    found = bench.ask(bench.library(code))
    bad = "\N{REPLACEMENT CHARACTER}"
    assert found.ran == bench.how
    cuda, cpu, _ = found.backends
    assert cuda.features == {f"A{bad}end   {bad}%41{bad}[2J ": "1210", bad * 2: ""}
    assert cuda.devices[0] == Device("", "", "gpu")
    assert (cpu.name, cpu.features) == ("", {"NEON": "1", "DOTPROD": "1"})


def test_a_library_that_another_needs_is_missing_or_passed(bench: Bench) -> None:
    driver = bench.library("int cuInit(int x) { return 100; }", "stubs/libcuda.so.1")
    library = bench.library(
        "int cuInit(int); int f(void) { return cuInit(0); }" + _INFO, "libllama.so", driver
    )
    found = bench.ask(library)
    assert found.ran == "not run"
    assert found.reason.startswith("libcuda.so.1: cannot open shared object file")
    assert bench.ask(library, (driver.parent,)).ran == bench.how


def test_a_library_that_is_no_library(bench: Bench) -> None:
    path = bench.folder / "libllama.so"
    assert bench.ask(path).ran == "not run"
    path.write_bytes(b"\x7fELFgarbage")
    found = bench.ask(path)
    assert found.ran == "failed"
    assert "file too short" in found.reason


def test_a_library_with_a_hole_has_failed(bench: Bench) -> None:
    found = bench.ask(bench.library("void absent(void); void f(void) { absent(); }" + _INFO))
    assert found.ran == "failed"
    assert "undefined symbol: absent" in found.reason


@pytest.mark.threat("binaries", "a library that leaves a child", "it is ended")
@pytest.mark.parametrize("where", ["", "setpgid(0, 0);", "setsid();"])
def test_a_child_that_stays_is_ended(bench: Bench, where: str) -> None:
    code = (
        "__attribute__((constructor)) static void begin(void)"
        f"{{ if (!fork()) {{ {where} for (;;) pause(); }} }}\n"
    )
    library = bench.library(code + _NEW)
    assert bench.ask(library).backends == _BACKENDS
    assert gone(str(library))


def test_a_child_that_goes_on_says_nothing(bench: Bench) -> None:
    code = "__attribute__((constructor)) static void begin(void) { fork(); }\n"
    assert bench.ask(bench.library(code + _NEW)).backends == _BACKENDS


_NEEDED = pytest.mark.skipif(not _GCC, reason="no gcc")


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        (None, "no C compiler"),
        ([], "no C compiler"),
        (["/nowhere/gcc"], "could not be started"),
        (["false"], "exit code 1"),
        pytest.param(["gcc", "-include", "/nowhere.h"], "nowhere.h: No such file", marks=_NEEDED),
    ],
)
def test_without_a_compiler_nothing_is_run(tmp_path: Path, compiler: list[str] | None, reason: str) -> None:
    found, _ = ask_library(tmp_path / "libllama.so", (), _HERE, compiler, tmp_path)
    assert (found.ran, found.system_info) == ("not run", "")
    assert reason in found.reason
    assert found.reason.isprintable()


@_NEEDED
def test_without_an_emulator_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found, _ = ask_library(tmp_path / "libllama.so", (), "riscv64", ["/usr/bin/gcc"], tmp_path)
    assert (found.ran, found.reason.endswith("qemu-riscv64 is not installed")) == ("not run", True)


def test_the_helper_is_beside_the_module() -> None:
    assert Path(report.__file__).with_suffix(".c").is_file()


@pytest.mark.parametrize(
    ("line", "features"),
    [
        ("", {}),
        ("A = 1 | B = x y | ", {"": {"A": "1", "B": "x y"}}),
        ("A = 1", {"": {"A": "1"}}),
        ("CUDA : CPU : NEON = 1 | ", {"CUDA": {}, "CPU": {"NEON": "1"}}),
        ("CPU : NEON = 1 | BLAS : ", {"CPU": {"NEON": "1"}, "BLAS": {}}),
        ("CUDA : ARCHS = 800,860 | ", {"CUDA": {"ARCHS": "800,860"}}),
        ("CPU : A = 1 | GPU : A = 2 | CPU : B = 3 | ", {"CPU": {"A": "1", "B": "3"}, "GPU": {"A": "2"}}),
        ("no features at all", {}),
        (" |  = | : ", {}),
    ],
)
def test_system_info_is_taken_apart(line: str, features: dict[str, dict[str, str]]) -> None:
    assert parse_system_info(line) == features


_WORD = st.text("ABCdef_-,.0189", min_size=1)


@given(st.dictionaries(_WORD, st.dictionaries(_WORD, _WORD), max_size=4))
def test_what_an_engine_puts_together_comes_apart(features: dict[str, dict[str, str]]) -> None:
    line = "".join(
        f"{section} : " + "".join(f"{name} = {value} | " for name, value in said.items())
        for section, said in features.items()
    )
    assert parse_system_info(line) == features
