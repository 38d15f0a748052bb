"""Texts of our own in the forms that the engines' tools print."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkbuild.inspection.help import Help, parse_help

# As llama-server and llama-cli print it: options at the edge, descriptions from column 40 on.
_WIDE = """\
----- colours -----

-h,    --help, --usage                  say this and leave
-p,    --paint N                        how many pots of paint (default: 3). Goes with
                                        --no-brush
                                        (env: TOY_PAINT)
--brush, -nb, --no-brush                whether to take a brush (default: yes)
-ct,   --coat-type TYPE                 which paint for the coat
                                        allowed values: oil, wax, lac_1, lac_2, chalk,
                                        lime+sand
                                        (default: oil)
-f,    --finish [matt|satin|auto]       how it looks ('matt', 'satin', or 'auto')
--dry {none,air,oven}                   how it dries
--strict <0|1>                          be strict (default: 0)
--thick <0...9>                         how thick
-a,    --apply MODE                     how it goes on (default: auto)
                                        - auto: as the paint likes it
                                        - roll (default): with a roller, which is quick but
                                        - not everybody likes it
                                        - roll+spray: both
                                        
                                        (env: TOY_APPLY)
--hues red,light-blue,green
                                        comma-separated list of hues
--pots N0,N1,...                        sizes of the pots
-r,    --regions <region1,region2,..>   where
--spray-type, -sty, --type-of-spray TYPE
                                        allowed values: fine, coarse (default: fine)
--tools TOOL1,TOOL2,...                 available tools: knife, spatula
--repo [<user>/]<name>[:tag]            where it comes from
--size-1.5l-default                     one pot of 1.5 l


----- other things -----

--last                                  the last one, one of: -1 for no end, or 0
"""  # noqa: W293 - some tools print such lines


def test_options_at_the_edge_and_descriptions_to_the_right() -> None:
    found = parse_help(_WIDE)
    names = (
        "apply brush coat-type dry finish help hues last no-brush paint pots regions repo size-1.5l-default "
        "spray-type strict thick tools type-of-spray usage"
    )
    assert found.options == tuple(f"--{name}" for name in names.split())
    assert found.values == {
        "--coat-type": ("oil", "wax", "lac_1", "lac_2", "chalk", "lime+sand"),
        "--finish": ("matt", "satin", "auto"),
        "--dry": ("none", "air", "oven"),
        "--strict": ("0", "1"),
        "--apply": ("auto", "roll", "roll+spray"),
        "--hues": ("red", "light-blue", "green"),
        "--spray-type": ("fine", "coarse"),
        "--type-of-spray": ("fine", "coarse"),
        "--tools": ("knife", "spatula"),
    }


# As ik_llama.cpp's tools print it: two columns of options, some with a comma too many.
_INDENTED = """\
usage: /somewhere/toy [--not-an-option] [options]

general:

  -h,    --help, --usage          say this and leave
         --version                say the version
  -fin, --finish (matt|satin|0|1)
                                  how it looks (default: matt)
  -mix,  --mix-paint,             mix it first (default: 0)
  -st --stir-min N 
                                  how long to stir
         --coat(s)                one or more
         --ui NAME                which of them:
                                  - none: no
                                  - auto: perhaps 
                                  (default: auto)
         --floor TYPE             how to floor it
                                    - even: everywhere
                                    - odd: here
                                  if unsure, see elsewhere
  --spray Name [none | a - b | a - c - d4]
                                  which spray (default: 0)
  -pps                            short only (default: false)
  --paint N                       how much, see --more-of-it
                                  --and-more-of-it

more:

         --paint {red,blue}       the same again
"""  # noqa: W291 - some tools print such lines


def test_indented_options() -> None:
    found = parse_help(_INDENTED)
    names = "coat coats finish floor help mix-paint paint spray stir-min ui usage version"
    assert found.options == tuple(f"--{name}" for name in names.split())
    assert found.values == {
        "--finish": ("matt", "satin", "0", "1"),
        "--ui": ("none", "auto"),
        "--floor": ("even", "odd"),
        "--spray": ("none", "a-b", "a-c-d4"),
        "--paint": ("red", "blue"),
    }


# As llama-bench and llama-quantize print it.
_BENCH = """\
usage: toy-bench [options]

options:
  -h, --help
  --prio <-1|0|1>                             (default: 0)
  --delay <0...N> (seconds)                   between two
  -o, --output <csv|json|md>                  (default: md)
  -t, --threads <n>                           (default: {2, 2})
  -pg <pp,tg>                                 (default: )
  -sm, --split <none|layer|row>(default: layer)
  -lm, --load <mmap+mlock|dio> (default: auto)
  -ot --override <name pattern>=<type>;...
                                              (default: off)
        --print <0|1>                         (default: 0)
  --pure: all of one kind

Several values can be given --as-here
"""


def test_options_of_a_benchmark() -> None:
    found = parse_help(_BENCH)
    names = "delay help load output override print prio pure split threads"
    assert found.options == tuple(f"--{name}" for name in names.split())
    assert found.values == {
        "--prio": ("-1", "0", "1"),
        "--output": ("csv", "json", "md"),
        "--split": ("none", "layer", "row"),
        "--load": ("mmap+mlock", "dio"),
        "--print": ("0", "1"),
    }


@pytest.mark.parametrize("text", ["", "\n", "no options", "-", "--", "---", "- -x", "--1", " " * 20 + "--x"])
def test_nothing_is_found_where_nothing_is(text: str) -> None:
    assert parse_help(text) == Help((), {})


@given(st.text("-—abN0 \n\t<>|{}[](),.:s", max_size=200))
def test_no_text_upsets_it(text: str) -> None:
    found = parse_help(text)
    assert set(found.values) <= set(found.options)
    assert all(name.startswith("--") for name in found.options)


def test_a_long_text_takes_a_moment() -> None:
    for part in ("-a ", "--a,", "x, ", "--x <a|b|c", "--x\n" + " " * 20 + "one of: a, b\n", "{", "--a.-b"):
        parse_help(part * 50_000)
        parse_help(f"--x {part * 50_000}")
