"""Which spelling of a setting a tool's own --help bears out."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparkbuild import handover
from sparkbuild.catalog import Catalog, shipped_root
from sparkbuild.catalog.records import Recipe
from sparkbuild.catalog.switches import Switches
from sparkbuild.inspection.features import Finding, Verdicts
from sparkbuild.inspection.help import help_question
from sparkbuild.inspection.runtime import ask
from sparkbuild.serving import switches
from tests import toys
from tests.conftest import recipe_of

# As the engines of 2025 and 2026 print them.
_NEWER = """
-t,    --threads N                      number of CPU threads
-c,    --ctx-size N                     size of the prompt context
-m,    --model FNAME                    model path to load
-fa,   --flash-attn [on|off|auto]       set Flash Attention use
-ctk,  --cache-type-k TYPE              KV cache data type for K
                                        allowed values: f32, f16, q8_0, q4_0
-lm,   --load-mode MODE                 model loading mode (default: auto), one of:
                                        - auto: mmap, unless a device does not support it
                                        - none: no special loading mode
--mmap, --no-mmap                       DEPRECATED
-ngl,  --gpu-layers, --n-gpu-layers N   max. number of layers to store in VRAM
"""
_OLDER = """
  -t, --threads <n>                   (default: 2)
  -m, --model <filename>              (default: x)
  -fa, --flash-attn <0|1>             (default: 0)
  -mmp, --mmap <0|1>                  (default: 1)
"""
_FLAG = """
-m,    --model FNAME                    model path to load
-fa,   --flash-attn                     enable Flash Attention
       --no-mmap                        do not memory-map model
"""
_HELPER = "  --pure   one type for all tensors"
_SETTINGS = {"flash_attention": "on", "mmap": "off", "threads": "8"}


@pytest.fixture
def rules() -> Switches:
    return Catalog((shipped_root(),)).switches().record


def verdicts(*present: str) -> Verdicts:
    findings = tuple(Finding(name, name, "backend", "present") for name in present)
    return Verdicts("", "", "", None, "", findings, (), "", (), "", ())


def tools_of(tmp_path: Path, rules: Switches, *helps: str, **changes: object) -> tuple[handover.Tool, ...]:
    """Return the switches of programs that print these helps, as server, bench and so on."""
    roles = dict(zip(("server", "bench", "cli"), ("llama-server", "llama-bench", "llama-cli"), strict=True))
    for text, name in zip(helps, roles.values(), strict=False):
        quoted = text.replace("\n", "\\n")
        toys.tool(
            tmp_path, f'#include <stdio.h>\nint main(void) {{ puts("{quoted}"); return 1; }}', name=name
        )
    recipe = recipe_of(roles=roles, **changes)
    return asked(tmp_path, recipe, rules)


def asked(
    folder: Path, recipe: Recipe, rules: Switches, machine: str = "x86_64"
) -> tuple[handover.Tool, ...]:
    """Return the tools of a folder by what they answer."""
    there = {role: folder / name for role, name in recipe.roles.items() if (folder / name).is_file()}
    answers = {role: ask(help_question(path), machine) for role, path in there.items()}
    return switches.tools(recipe, answers, rules)


def test_a_tool_that_loads_no_model_has_no_switches(tmp_path: Path, rules: Switches) -> None:
    toys.tool(tmp_path, f'#include <stdio.h>\nint main(void) {{ puts("{_HELPER}"); }}', name="llama-quantize")
    recipe = recipe_of(roles={"quantize": "llama-quantize"})
    (tool,) = asked(tmp_path, recipe, rules)
    assert (tool.switches, tool.learned) == ((), "--help")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (_NEWER, "--model {model} --flash-attn on --load-mode none --threads 8"),
        (_OLDER, "--model {model} --flash-attn 1 --mmap 0 --threads 8"),
        (_FLAG, "--model {model} --flash-attn --no-mmap"),
    ],
)
def test_each_tool_is_spoken_to_in_its_own_words(
    tmp_path: Path, rules: Switches, text: str, words: str
) -> None:
    (tool,) = tools_of(tmp_path, rules, text)
    made = switches.command(tool, "mine", _SETTINGS, rules, verdicts())
    assert (" ".join(made.words), made.refused) == (words, ())
    assert made.left_out == (("threads",) if text == _FLAG else ())
    assert tool.learned == "--help"


def test_a_value_that_the_tool_does_not_list_is_refused(tmp_path: Path, rules: Switches) -> None:
    (tool,) = tools_of(tmp_path, rules, _NEWER)
    made = switches.command(tool, "mine", {"cache_type_k": "q6_0"}, rules, verdicts())
    assert made.refused == ("server takes cache_type_k f32, f16, q8_0, q4_0, not q6_0",)


@pytest.mark.parametrize(
    ("present", "value", "refused"), [("", "999", True), ("cuda", "9", False), ("", "0", False)]
)
def test_what_the_probe_did_not_find_is_refused(
    tmp_path: Path, rules: Switches, present: str, value: str, refused: bool
) -> None:
    (tool,) = tools_of(tmp_path, rules, _NEWER)
    made = switches.command(tool, "mine", {"gpu_layers": value}, rules, verdicts(*filter(None, [present])))
    assert bool(made.refused) == refused
    assert ("--n-gpu-layers" in made.words) != refused


def test_settings_of_another_role_are_no_concern_of_a_tool(tmp_path: Path, rules: Switches) -> None:
    _, bench = tools_of(tmp_path, rules, _NEWER, _OLDER)
    made = switches.command(
        bench, "mine", {"port": "1", "context": "4096", "unheard_of": "1"}, rules, verdicts()
    )
    assert (made.words, made.left_out) == (("--model", "{model}"), ("unheard_of",))


def test_a_help_that_names_no_options_is_known_by_another_roles(tmp_path: Path, rules: Switches) -> None:
    server, bench = tools_of(tmp_path, rules, _NEWER, "usage: me -m MODEL", options_of={"bench": "server"})
    assert bench.learned == "--help of llama-server, whose options it takes: its own names none"
    assert {s.name for s in bench.switches} <= {s.name for s in server.switches}
    assert ("--load-mode", "none") in [s.words for s in bench.switches]


def test_a_tool_that_can_not_be_asked_has_no_switches(tmp_path: Path, rules: Switches) -> None:
    (tool,) = tools_of(tmp_path, rules, "nothing of use")
    assert (tool.switches, tool.learned) == ((), "not known: exit code 1")
    assert switches.commands((tool,), [handover.Profile("p", "", _SETTINGS)], rules, verdicts()) == ()
    (tmp_path / "llama-server").write_bytes(b"no program")
    recipe = recipe_of(roles={"server": "llama-server"})
    (tool,) = asked(tmp_path, recipe, rules, "riscv64")
    assert tool.switches == ()
    assert tool.learned.startswith("not known: ")


def test_every_setting_of_the_shipped_profiles_is_known(rules: Switches) -> None:
    known = {rule.name for rule in rules.switches}
    for shelf in Catalog((shipped_root(),)).profiles().values():
        assert set(shelf.record.settings) <= known
