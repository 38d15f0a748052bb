"""The tiny models are read back with the library that defines their format."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest

from sparkbuild.files import Folders
from sparkbuild.smoke.model import HEAD_SIZES, tiny, vocabulary, write


def read(path: Path) -> gguf.GGUFReader:
    return gguf.GGUFReader(path)


@pytest.mark.parametrize("head", HEAD_SIZES)
def test_a_model_is_complete(tmp_path: Path, head: int) -> None:
    write(tmp_path / "m.gguf", head=head, heads=4, kv_heads=2)
    model = read(tmp_path / "m.gguf")
    fields = {name: field.contents() for name, field in model.fields.items()}
    assert fields["general.architecture"] == "llama"
    assert (fields["llama.attention.key_length"], fields["llama.context_length"]) == (head, 4096)
    shapes = {t.name: tuple(int(n) for n in reversed(t.shape)) for t in model.tensors}
    assert len(shapes) == 3 + 9 * fields["llama.block_count"]
    assert shapes["blk.0.attn_q.weight"] == (4 * head, 256)
    assert shapes["blk.1.attn_v.weight"] == (2 * head, 256)
    assert shapes["output.weight"] == (len(fields["tokenizer.ggml.tokens"]), 256)


def test_the_vocabulary_holds_every_byte() -> None:
    kinds = [kind for _, kind in vocabulary()]
    assert kinds.count(gguf.TokenType.BYTE) == 256
    assert len({text for text, _ in vocabulary()}) == len(kinds) == 288


@pytest.mark.parametrize("head", HEAD_SIZES)
def test_the_same_arguments_give_the_same_bytes(tmp_path: Path, head: int) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, head=head, heads=2, kv_heads=2)
    data = (tmp_path / "a").read_bytes()
    assert data == (tmp_path / "b").read_bytes()
    assert len(data) < 4_000_000


def test_only_whole_characters_have_weight(tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", head=64, heads=2, kv_heads=2)
    rows = {t.name: t.data for t in read(tmp_path / "m.gguf").tensors}["output.weight"]
    silent = {text for (text, _), row in zip(vocabulary(), rows, strict=True) if not row.any()}
    assert {"<unk>", "<s>", "</s>", "<0x00>", "<0x0A>", "<0x7F>", "<0x80>", "<0xFF>"} <= silent
    assert len(silent) == 3 + 256 - 95


def test_the_model_of_smoke_tests_is_made_once(folders: Folders) -> None:
    path = tiny(folders)
    before = path.stat()
    assert read(path).fields["llama.attention.key_length"].contents() == 128
    assert (tiny(folders), path.stat().st_mtime_ns) == (path, before.st_mtime_ns)
    path.unlink()
    assert tiny(folders).stat().st_size == before.st_size
    assert [p.name for p in path.parent.iterdir()] == [path.name]
