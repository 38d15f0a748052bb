"""Small binaries with what the shipped rules look for, made by real compilers."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

_KERNEL = "_Z18flash_attn_ext_vecILi128ELi1EL9ggml_type{k}ELS0_{v}ELb0EEvPKc"
_NAMES = '"f32", "f16", "q4_0", "q4_1", 0, 0, "q5_0", "q5_1", "q8_0"'
_MODELS = r"\0llama\0falcon\0grok\0gptj\0gptneox\0dots1\0smollm3\0plamo\0arctic\0"

LIBRARY = f"""
int LLAMA_BUILD_NUMBER = 4711;
const char *LLAMA_COMMIT = "0c1e570";
const char *types[] = {{ {_NAMES} }};
const char models[] = "{_MODELS}";
const char *kernels[] = {{ "{_KERNEL.format(k=1, v=1)}", "{_KERNEL.format(k=8, v=2)}" }};
const char *options[] = {{ "--ctx-size", "--flash-attn" }};
int llama_init(void) {{ return 0; }}
int ggml_cpu_init(void) {{ return 0; }}
const char *llama_print_system_info(void) {{ return INFO; }}
"""
INFO = "NEON = 1 | DOTPROD = 1 | LLAMAFILE = 1 | REPACK = 0 | "

TOOL = r"""
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "--version"))
        fprintf(stderr, "version: 4711 (0c1e570)\n");
    else if (argc > 1 && !strcmp(argv[1], "--list-devices"))
        puts("Available devices:\n  CUDA0: \033[31mSome GPU");
    else if (argc > 1 && !strcmp(argv[1], "--help"))
        puts(
            "-h,    --help                    print this\n"
            "       --list-devices            print devices\n"
            "-ctk,  --cache-type-k TYPE       KV cache data type for K\n"
            "                                 allowed values: f32, f16, q8_0\n"
            "       --spec-type [none|draft-simple|ngram-mod]  kinds of drafts");
    else
        return 3;
    return 0;
}
"""


def fat_binary() -> bytes:
    """Return a fat binary of one cubin for sm_121a (the layout is in inspection/fatbin.py)."""
    entry = struct.pack("<HHIQ12xI8xQ", 2, 0x101, 64, 4, 121, 0x100000).ljust(64, b"\0") + b"code"
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(entry)) + entry


def library(
    folder: Path, *, compiler: str = "gcc", info: str = INFO, cuda: bool = True, name: str = "libllama.so"
) -> Path:
    """Compile a library that has something of everything."""
    folder.mkdir(exist_ok=True)
    (folder / "toy.c").write_text(LIBRARY.replace("INFO", f'"{info}"'))
    path = folder / name
    words: list[str | Path] = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "toy.c", "-o", path]
    subprocess.run(words, cwd=folder, check=True)
    if cuda:
        (folder / "fat").write_bytes(fat_binary())
        objcopy = compiler.removesuffix("gcc") + "objcopy"
        command: list[str | Path] = [objcopy, "--add-section", ".nv_fatbin=fat", path]
        subprocess.run(command, cwd=folder, check=True)
        (folder / "fat").unlink()
    (folder / "toy.c").unlink()
    return path


def tool(folder: Path, code: str = TOOL, *, compiler: str = "gcc", name: str = "llama-server") -> Path:
    """Compile a program."""
    folder.mkdir(exist_ok=True)
    (folder / "tool.c").write_text(code)
    subprocess.run([compiler, "tool.c", "-o", folder / name], cwd=folder, check=True)
    (folder / "tool.c").unlink()
    return folder / name
