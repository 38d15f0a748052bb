"""Names in what real compilers made; nm and strings are the oracles."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from elftools.elf.elffile import ELFFile

from sparkbuild.errors import BinaryError
from sparkbuild.inspection import layout
from sparkbuild.inspection.elf import is_elf
from sparkbuild.inspection.names import Names, Wanted, read_names

_GCC, _ARM = shutil.which("gcc"), shutil.which("aarch64-linux-gnu-gcc")
_NO_ARM = pytest.mark.skipif(not _ARM, reason="aarch64-linux-gnu-gcc is not installed")

pytestmark = pytest.mark.skipif(
    not _GCC or not all(map(shutil.which, ("nm", "strings", "strip", "objcopy"))),
    reason="gcc and binutils are not installed",
)
each_machine = pytest.mark.parametrize(
    "compiler", ["gcc", pytest.param("aarch64-linux-gnu-gcc", marks=_NO_ARM)]
)

_SHARED = ("-shared", "-fPIC")


def compiled(folder: Path, code: str, *flags: str, compiler: str = "gcc", name: str = "x") -> Path:
    (folder / f"{name}.c").write_text(code)
    path = folder / name
    subprocess.run([compiler, "-O1", f"{name}.c", "-o", path, *flags], cwd=folder, check=True)
    return path


def strip(path: Path, *options: str, compiler: str = "gcc") -> Path:
    tool = compiler.removesuffix("gcc") + "strip"
    subprocess.run([tool, *options, path], check=True)
    return path


def without_sections(path: Path) -> Path:
    data = bytearray(path.read_bytes())
    data[40:48] = bytes(8)  # e_shoff, e_shnum and e_shstrndx of ELF64 (elf(5))
    data[60:64] = bytes(4)
    path.write_bytes(data)
    return path


def program(data: str) -> str:
    """Return C code that has some data which no compiler leaves out."""
    return f"{data}\nint main(void) {{ return 0; }}\n"


# --- symbols -------------------------------------------------------------------------------------

_LIBRARY = """
#include <stdlib.h>
#include <string.h>
int toy_data = 3;
static int __attribute__((noinline, used)) toy_hidden(int x) { return x * toy_data; }
__attribute__((visibility("hidden"))) int toy_inner(int x) { return toy_hidden(x); }
int toy_init(int x) { return atoi(getenv("TOY")) + toy_inner(x); }
int not_a_toy(void) { return 0; }
"""
_TOYS = Wanted(symbols=("toy_.*", "getenv", "atoi|strtol", "absent"))


@each_machine
def test_symbols_defined_and_called(tmp_path: Path, compiler: str) -> None:
    path = compiled(tmp_path, _LIBRARY, *_SHARED, compiler=compiler)
    found = read_names(path, _TOYS)
    assert found.symbols == ("toy_data", "toy_hidden", "toy_init", "toy_inner")
    assert {"getenv"} < {c.partition("@")[0] for c in found.calls} <= {"getenv", "atoi", "strtol"}
    assert found.complete
    stripped = read_names(strip(path, compiler=compiler), _TOYS)
    assert stripped.symbols == ("toy_data", "toy_init")
    assert set(stripped.calls) == {c.partition("@")[0] for c in found.calls}
    assert not stripped.complete


@each_machine
def test_an_object_and_a_program(tmp_path: Path, compiler: str) -> None:
    made = compiled(tmp_path, _LIBRARY, "-c", compiler=compiler, name="x.o")
    found = read_names(made, _TOYS)
    assert found.symbols == ("toy_data", "toy_hidden", "toy_init", "toy_inner")
    assert "getenv" in found.calls
    assert found.complete
    tool = compiled(tmp_path, program("int toy_x;"), compiler=compiler)
    assert read_names(tool, Wanted(symbols=("main", "toy_x"))).symbols == ("main", "toy_x")
    assert read_names(strip(tool, compiler=compiler), Wanted(symbols=("main",))) == Names()


def test_a_symbol_that_is_also_called_is_defined(tmp_path: Path) -> None:
    path = compiled(tmp_path, "int f(void) { return 1; } int g(void) { return f(); }", *_SHARED)
    assert read_names(path, Wanted(symbols=("[fg]",))).calls == ()


def test_a_pattern_is_for_the_whole_name(tmp_path: Path) -> None:
    path = compiled(tmp_path, "int abc, abcd, xabc;", *_SHARED)
    assert read_names(path, Wanted(symbols=("abc",))).symbols == ("abc",)


@pytest.mark.parametrize("strip_it", [False, True])
def test_names_that_share_their_ends(tmp_path: Path, strip_it: bool) -> None:
    """A linker keeps "tail" once, as the end of "head_tail": symbols point into the middle."""
    path = compiled(tmp_path, "int head_tail, tail, ail;", *_SHARED)
    if strip_it:
        strip(path)
    assert read_names(path, Wanted(symbols=(".*ail",))).symbols == ("ail", "head_tail", "tail")


def test_nothing_wanted_nothing_found(tmp_path: Path) -> None:
    path = compiled(tmp_path, _LIBRARY, *_SHARED)
    assert read_names(path, Wanted()) == Names(complete=True)


def nm(path: Path, *options: str) -> set[str]:
    done = subprocess.run(["nm", *options, str(path)], capture_output=True, text=True, check=False).stdout
    return {line.split()[-1].partition("@")[0] for line in done.splitlines()}


def libraries() -> list[Path]:
    """Return programs of this machine, what they are linked with, and C++'s library."""
    git = shutil.which("git")
    ask = ["gcc", "-print-file-name=libstdc++.so.6"]
    mangled = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    places = [Path(p).resolve() for p in (sys.executable, _GCC, git) if p]
    said = subprocess.run(["ldd", *places], capture_output=True, text=True, check=False).stdout
    places += [Path(p).resolve() for p in re.findall(r"=> (/\S+)", said)]
    return [p for p in dict.fromkeys([*places, Path(mangled).resolve()]) if p.is_file() and is_elf(p)]


@pytest.mark.parametrize(
    "pattern", [r"(?:mem|str)[a-z]+", r"_Z\w+E[a-z]+", r"Py\w+_(?:New|Set)\w*", r".*[aeiou]t"]
)
def test_nm_finds_the_same(pattern: str) -> None:
    seen = 0
    for path in libraries():
        found = read_names(path, Wanted(symbols=(pattern,)))
        defined = nm(path, "-D", "--defined-only") | nm(path, "--defined-only")
        called = (nm(path, "-D", "-u") | nm(path, "-u")) - defined
        expect = [{n for n in group if re.fullmatch(pattern, n)} for group in (defined, called)]
        # where nm adds @VERSION, a symbol table has it in some names, too
        assert [{n.partition("@")[0] for n in group} for group in (found.symbols, found.calls)] == expect
        seen += len(found.symbols) + len(found.calls)
    assert seen > 0


# --- strings -------------------------------------------------------------------------------------


def test_strings_are_whole(tmp_path: Path) -> None:
    code = program(
        'const char *a[] = {"--ctx-size", "see --help", "--x", "ab", "caf\\xc3\\xa9--no", "a\\n\\tb"};'
    )
    found = read_names(compiled(tmp_path, code), Wanted(strings=("--[a-z-]+", "ab", "a\\s*b", "[^-]*--no")))
    assert found.strings == ("--ctx-size", "--no", "--x", "a\n\tb")


def test_a_mangled_name_behind_a_number_that_looks_like_text(tmp_path: Path) -> None:
    code = program(
        'const struct { unsigned n; char s[28]; } a[] = {{0x41424344, "_Z6kernelILi128EE3fooi_Zx"},'
        '{0x5a5f4344, "_Z6kernelILi64EE3bari"}, {7, "_Z6kernelILi32EE3bari"}, {7, "x_Z6kernel"}};'
    )
    found = read_names(compiled(tmp_path, code), Wanted(strings=(r"_Z6kernelILi\d+E\w*",)))
    assert found.strings == (
        "_Z6kernelILi128EE3fooi_Zx",
        "_Z6kernelILi32EE3bari",
    )


def test_strings_finds_the_same() -> None:
    pattern = r"--?[a-z][a-z-]+"
    seen = 0
    for path in libraries():
        found = set(read_names(path, Wanted(strings=(pattern,))).strings)
        sections = rodata(path)
        said = subprocess.run(["strings", "-n3"], input=sections, capture_output=True, check=True).stdout
        # strings ends a text at any unprintable byte and a newline, we at NUL only: ours are fewer
        loose = {line for line in said.decode("ascii").splitlines() if re.fullmatch(pattern, line)}
        exact = {s.decode() for s in sections.split(b"\0")[1:-1] if re.fullmatch(pattern.encode(), s)}
        assert {s for s in exact if len(s) >= 3} <= found <= loose
        seen += len(found)
    assert seen > 50


def rodata(path: Path) -> bytes:
    with path.open("rb") as file:
        parts = [s.data() for s in ELFFile(file).iter_sections() if s.name.startswith(".rodata")]
    return b"\0".join(parts)


# --- the run of names ----------------------------------------------------------------------------

_FILLER = ("llama", "falcon", "grok", "gpt2", "gptj", "gptneox", "mpt", "baichuan", "starcoder", "bert")
_RUN = Wanted(anchors=("gptj", "gptneox", "dots1"), ends=("bert", "cube", "falcon", "absent"))


def words(*texts: str, before: str = "\\0") -> str:
    """Return C code of strings that lie together as in a section of strings."""
    joined = "\\0".join(texts)
    return program(f'const char names[] __attribute__((used)) = "{before}{joined}\\0\\0";')


def test_the_run_of_names(tmp_path: Path) -> None:
    found = read_names(compiled(tmp_path, words(*_FILLER)), _RUN)
    assert found.run == _FILLER
    assert found.ends == ("bert", "falcon")


@pytest.mark.parametrize(
    ("texts", "run"),
    [
        (_FILLER[:7], ()),  # too short
        (tuple("more" if t == "gptj" else t for t in _FILLER), ()),  # one anchor is by chance
        ((*_FILLER, "%s: a text", *_FILLER[:8], "last"), (*_FILLER, "last")),  # split
        ((*(f"other{i}" for i in range(9)), "A", *_FILLER), _FILLER),  # another table before
        (("Upper", *_FILLER, "x"), _FILLER),  # ends at what is no such word
    ],
)
def test_which_runs_count(tmp_path: Path, texts: tuple[str, ...], run: tuple[str, ...]) -> None:
    if "last" in texts:
        texts = (*texts[:-2], "gptj", "last")
    found = read_names(compiled(tmp_path, words(*texts)), _RUN)
    assert set(found.run) == set(run)


def test_ends_are_looked_for_only_beside_a_run(tmp_path: Path) -> None:
    there = words(*_FILLER, "Ice cube", "hypercube")
    assert read_names(compiled(tmp_path, there), _RUN).ends == ("bert", "cube", "falcon")
    assert read_names(compiled(tmp_path, words("a falcon", "cube")), _RUN).ends == ()


# --- tables and variables ------------------------------------------------------------------------

_TABLE = Wanted(table=("f32", "f16", "q4_0"))


def table(count: int, *, fields: str = "", const: str = "const") -> str:
    names = [
        '"f32"',
        '"f16"',
        '"q4_0"',
        "0",
        *(f'"q{i}_k"' for i in range(count - 5)),
        '"NONE LEFT"',
        '"last"',
    ]
    rows = [f"[{i}] = {{{n}}}" for i, n in enumerate(names)]
    record = f"struct {{ const char *name; {fields} }}"
    return program(
        f"{const} {record} table[64] __attribute__((used)) = {{{','.join(rows)}}};"
        "const char *use(int i) { return table[i].name; }"
    )


_LAYOUTS = {
    "library": _SHARED,
    "PIE": ("-fPIE", "-pie"),
    "no PIE": ("-fno-pie", "-no-pie"),
    "RELR": ("-fPIE", "-pie", "-Wl,-z,pack-relative-relocs"),
}


@each_machine
@pytest.mark.parametrize("layout", _LAYOUTS)
@pytest.mark.parametrize("const", ["const", ""])
@pytest.mark.parametrize("fields", ["", "long a; int b; void *f[3];"])
def test_the_table_of_names(tmp_path: Path, compiler: str, layout: str, const: str, fields: str) -> None:
    code = table(9, fields=fields, const=const)
    try:
        path = compiled(tmp_path, code, *_LAYOUTS[layout], compiler=compiler)
    except subprocess.CalledProcessError:
        pytest.skip("this linker does not know the option")
    expect = ("f32", "f16", "q4_0", "", "q0_k", "q1_k", "q2_k", "q3_k", "", "last")
    assert read_names(path, _TABLE).table == expect
    assert read_names(strip(path, compiler=compiler), _TABLE).table == expect


def test_which_table(tmp_path: Path) -> None:
    """Others begin with the same name, or point at the end of a longer one.

    Where a table ends, nothing says; what it has beyond its last name nobody asks for.
    """
    code = program(
        'const char *a[] = {"f32", "f64", "i8"}; const char *b[] = {"xf32", "f16", "q4_0"};'
        'struct { const char *n; long l; } c[] = {{"f32", 1}, {"f16", 2}, {"q4_0", 3}, {"own", 4}};'
        'const char *d[] = {"f32", "f16"};'
    )
    assert read_names(compiled(tmp_path, code), _TABLE).table[:4] == ("f32", "f16", "q4_0", "own")


@pytest.mark.parametrize("code", ['const char *a[] = {"f32", "f16"};', "int f32;", ""])
def test_no_table(tmp_path: Path, code: str) -> None:
    assert read_names(compiled(tmp_path, program(code)), _TABLE).table == ()


_VERSION = Wanted(variables=("NUMBER", "COMMIT"))


@each_machine
@pytest.mark.parametrize("layout", _LAYOUTS)
@pytest.mark.parametrize(
    ("code", "number", "text"),
    [
        ('int NUMBER = 4711; const char *COMMIT = "0c1e570";', 4711, "0c1e570"),
        ('const int NUMBER = 4711; const char *const COMMIT = "0c1e570";', 4711, "0c1e570"),
        ('int NUMBER = -1; char const *COMMIT = "";', -1, ""),
        ("int NUMBER; const char *COMMIT;", None, ""),  # .bss has no bytes in the file
        ('const char *COMMIT = "\\x1b[31mred";', None, ""),
        ("int NUMBER = 7;", 7, ""),
    ],
)
def test_variables(
    tmp_path: Path, compiler: str, layout: str, code: str, number: int | None, text: str
) -> None:
    try:
        path = compiled(tmp_path, program(code), *_LAYOUTS[layout], compiler=compiler)
    except subprocess.CalledProcessError:
        pytest.skip("this linker does not know the option")
    found = read_names(path, _VERSION)
    assert (found.number, found.text) == (number, text)


def test_variables_that_are_used_from_elsewhere_are_not_here(tmp_path: Path) -> None:
    code = "extern int NUMBER; extern const char *COMMIT; int f(void) { return NUMBER + *COMMIT; }"
    found = read_names(compiled(tmp_path, code, *_SHARED), _VERSION)
    assert (found.number, found.text, found.calls) == (None, "", ("COMMIT", "NUMBER"))


def test_an_object_has_no_addresses_yet(tmp_path: Path) -> None:
    code = program('int NUMBER = 7; const char *COMMIT = "abc"; const char *t[] = {"f32", "f16", "q4_0"};')
    both = Wanted(table=_TABLE.table, variables=_VERSION.variables)
    found = read_names(compiled(tmp_path, code, "-c", name="x.o"), both)
    assert (found.number, found.text, found.table) == (None, "", ())
    assert found.symbols == ("COMMIT", "NUMBER")


# --- sections, windows, machines -----------------------------------------------------------------


def test_without_section_headers_strings_are_still_there(tmp_path: Path) -> None:
    path = compiled(tmp_path, words(*_FILLER, "--ctx-size"), *_SHARED)
    wanted = Wanted(symbols=("main",), strings=("--[a-z-]+",), anchors=_RUN.anchors)
    before = read_names(path, wanted)
    after = read_names(without_sections(path), wanted)
    assert before.symbols == ("main",)
    assert (after.symbols, after.complete) == ((), False)
    assert (after.strings, after.run) == (("--ctx-size",), _FILLER)


_ALL = Wanted(
    symbols=("s_.*",),
    strings=("--[a-z0-9-]+",),
    anchors=_RUN.anchors,
    ends=_RUN.ends,
    table=_TABLE.table,
    variables=_VERSION.variables,
)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Return a library with some of everything, more of it than fits into a small window."""
    options = ",".join(f'"--option-{i}"' for i in range(60))
    code = f"const char *options[] = {{{options}}};\n"
    code += 'int NUMBER = 7; const char *COMMIT = "abc";\n'
    code += "".join(f"int s_{'x' * (i % 17)}{i} = {i};\n" for i in range(200))
    code += table(9).replace(
        "int main", words(*_FILLER).replace("int main(void) { return 0; }", "") + "int main"
    )
    return compiled(tmp_path, code, *_SHARED)


@pytest.mark.parametrize("window", [256, 264, 301, 1000, 4096])
def test_windows_change_nothing(mixed: Path, monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    whole = read_names(mixed, _ALL)
    assert (len(whole.symbols), len(whole.strings), whole.run[:10]) == (202, 60, _FILLER)
    assert (whole.number, whole.text, whole.table[:5]) == (7, "abc", ("f32", "f16", "q4_0", "", "q0_k"))
    monkeypatch.setattr(layout, "WINDOW", window)
    monkeypatch.setattr(layout, "_OVERLAP", 128)
    assert read_names(mixed, _ALL) == whole


def test_a_string_across_windows_is_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a window begins, the end of a text is no option and the end of a word no word."""
    path = compiled(tmp_path, words(*_FILLER, "a text with --nothing", "--something"))
    wanted = msgspec.structs.replace(_RUN, strings=("--[a-z-]+",))
    monkeypatch.setattr(layout, "_OVERLAP", 128)
    for window in range(96, 192):
        monkeypatch.setattr(layout, "WINDOW", window)
        found = read_names(path, wanted)
        assert found.strings == ("--something",)
        assert set(found.run) == set(_FILLER)


@pytest.mark.parametrize(("at", "value"), [(4, 1), (5, 2)], ids=["32 bits", "big endian"])
def test_other_kinds_of_files_are_not_misread(tmp_path: Path, at: int, value: int) -> None:
    """A header that says so, all else as it must be."""
    if value == 2:
        head = struct.pack(
            ">4s5B7x2HI3QI6H", b"\x7fELF", 2, 2, 1, 0, 0, 3, 22, 1, 0, 0, 0, 0, 64, 56, 0, 64, 0, 0
        )
    else:
        head = struct.pack(
            "<4s5B7x2HI3II6H", b"\x7fELF", 1, 1, 1, 0, 0, 3, 40, 1, 0, 0, 0, 0, 52, 32, 0, 40, 0, 0
        )
    (tmp_path / "x").write_bytes(head + bytes(100))
    assert read_names(tmp_path / "x", _ALL) == Names()


def test_an_unknown_machine_is_read_without_relocations(mixed: Path) -> None:
    data = bytearray(mixed.read_bytes())
    data[18:20] = b"\x34\x12"  # e_machine
    mixed.write_bytes(data)
    found = read_names(mixed, _ALL)
    assert (len(found.symbols), found.number) == (202, 7)


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"text", b"\x7fELF\x02\x01\x01" + b"\xff" * 100])
def test_what_is_no_elf_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(BinaryError, match="names can not be read") as caught:
        read_names(tmp_path / "x", _ALL)
    assert (caught.value.exit_code, caught.value.where) == (7, str(tmp_path / "x"))
