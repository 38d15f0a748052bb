"""Tiny models of the architecture "llama": complete, valid, and of random numbers.

They are for runs whose text does not matter: does an engine load, which kernel does attention take?
The same arguments give the same bytes. What such a model says is plain ASCII and never ends by itself:
the tokens of the end and of half a character have no weight, since a server may answer half a character
with an error.
"""

from __future__ import annotations

import string
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sparkbuild.files import Folders, sha256_bytes, write_whole

if TYPE_CHECKING:  # it takes half a second to import, and only a model that is not there yet needs it
    import gguf

HEAD_SIZES = (64, 128, 256)  # what FlashAttention's vector kernels are made for
_LAYERS = 2
_WIDTH = 256  # of the embedding: what every quantised block divides
_FEED = 256  # width of the feed-forward part
_CONTEXT = 4096  # tokens
_SEED = 20

_LAST = 0x7E  # of the bytes that are a printable character, from the space on
Tensor = np.ndarray[tuple[int, ...], np.dtype[np.float16 | np.float32]]


def vocabulary() -> list[tuple[str, gguf.TokenType]]:
    """Return 288 tokens: three of control, every byte, and some letters, as SentencePiece has them."""
    import gguf  # noqa: PLC0415 - see above

    control = [
        ("<unk>", gguf.TokenType.UNKNOWN),
        ("<s>", gguf.TokenType.CONTROL),
        ("</s>", gguf.TokenType.CONTROL),
    ]
    octets = [(f"<0x{n:02X}>", gguf.TokenType.BYTE) for n in range(256)]
    words = [(w, gguf.TokenType.NORMAL) for w in ("▁", ".", ",", *string.ascii_lowercase)]
    return control + octets + words


def _may_be_said(token: str) -> bool:
    """Return whether a token is a whole character; bytes are written <0xNN>, control tokens <NAME>."""
    return ord(" ") <= int(token[3:5], 16) <= _LAST if token.startswith("<0x") else token[0] != "<"


def tensors(head: int, heads: int, kv_heads: int) -> dict[str, Tensor]:
    """Return the weights by name, each as rows x columns: f16, but the norms (vectors) f32."""
    rng = np.random.default_rng(_SEED)
    norm = np.ones(_WIDTH, np.float32)

    def weights(rows: int, columns: int) -> Tensor:
        values = rng.standard_normal((rows, columns), np.float32) * np.float32(columns**-0.5)
        return values.astype(np.float16)

    words = vocabulary()
    silent = [n for n, (text, _) in enumerate(words) if not _may_be_said(text)]
    output = weights(len(words), _WIDTH)
    output[silent] = 0
    found: dict[str, Tensor] = {"token_embd.weight": weights(len(words), _WIDTH)}
    for block in (f"blk.{n}" for n in range(_LAYERS)):
        found |= {
            f"{block}.attn_norm.weight": norm,
            f"{block}.attn_q.weight": weights(heads * head, _WIDTH),
            f"{block}.attn_k.weight": weights(kv_heads * head, _WIDTH),
            f"{block}.attn_v.weight": weights(kv_heads * head, _WIDTH),
            f"{block}.attn_output.weight": weights(_WIDTH, heads * head),
            f"{block}.ffn_norm.weight": norm,
            f"{block}.ffn_gate.weight": weights(_FEED, _WIDTH),
            f"{block}.ffn_up.weight": weights(_FEED, _WIDTH),
            f"{block}.ffn_down.weight": weights(_WIDTH, _FEED),
        }
    return found | {"output_norm.weight": norm, "output.weight": output}


def write(path: Path, *, head: int, heads: int, kv_heads: int) -> None:
    """Write one model whose attention heads have ``head`` numbers; below 4 MB."""
    import gguf  # noqa: PLC0415 - see above

    file = gguf.GGUFWriter(path, "llama")
    file.add_name(f"tiny llama, heads of {head}")
    file.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    file.add_context_length(_CONTEXT)
    file.add_embedding_length(_WIDTH)
    file.add_block_count(_LAYERS)
    file.add_feed_forward_length(_FEED)
    file.add_head_count(heads)
    file.add_head_count_kv(kv_heads)
    file.add_key_length(head)
    file.add_value_length(head)
    file.add_rope_dimension_count(head)
    file.add_layer_norm_rms_eps(1e-5)
    words = vocabulary()
    file.add_vocab_size(len(words))
    file.add_tokenizer_model("llama")
    file.add_token_list([text for text, _ in words])
    file.add_token_scores([-float(n) for n in range(len(words))])
    file.add_token_types([kind for _, kind in words])
    file.add_unk_token_id(0)
    file.add_bos_token_id(1)
    file.add_eos_token_id(2)
    for name, tensor in tensors(head, heads, kv_heads).items():
        file.add_tensor(name, tensor)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


def tiny(folders: Folders) -> Path:
    """Return the model of smoke tests, made where it is not there yet: two heads of 128.

    Its name holds the digest of what makes it: this file, gguf and numpy.
    """
    made_by = [Path(__file__).read_bytes(), version("gguf").encode(), version("numpy").encode()]
    path = folders.cache / "models" / f"tiny-{sha256_bytes(b''.join(made_by))[:16]}.gguf"
    if not path.is_file():
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder, "model.gguf")
            write(model, head=128, heads=2, kv_heads=2)
            write_whole(path, model.read_bytes())
    return path
