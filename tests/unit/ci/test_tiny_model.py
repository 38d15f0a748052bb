"""The tiny models are read back with the library that defines their format."""

from __future__ import annotations

import sys
from pathlib import Path

import gguf
import pytest

from ci.tiny_model import HEAD_SIZES, main, vocabulary, write


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


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("a", "b"):
        monkeypatch.setattr(sys, "argv", ["tiny_model", str(tmp_path / folder)])
        main()
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert names == ["head-128.gguf", "head-256.gguf", "head-64.gguf"]
    for name in names:
        data = (tmp_path / "a" / name).read_bytes()
        assert data == (tmp_path / "b" / name).read_bytes()
        assert len(data) < 4_000_000
