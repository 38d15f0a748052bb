"""The key covers what can change a byte and nothing else (rule 4 of the design)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from sparkbuild.catalog.records import Shelf
from sparkbuild.planning import Inputs, make_plan
from tests.conftest import (
    compilers_of,
    cuda_of,
    digest,
    inputs_of,
    intent_of,
    recipe_of,
    source_of,
    toolchain_of,
)

_PATHS = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1).map(
    lambda text: Path("/", text)
)
_OPTIONS = ("TOY_A", "TOY_B", "TOY_C")
_INTENTS = tuple(intent_of(name.lower(), f"{name}=ON") for name in _OPTIONS)
_VALUES = st.text(max_size=5)


def base(**changes: Any) -> Inputs:  # noqa: ANN401 - any field
    settings: dict[str, Any] = {"backend": "cuda", "cuda": cuda_of()} | changes
    return inputs_of(*_INTENTS, options=_OPTIONS, **settings)


@given(_PATHS, _PATHS, _PATHS, _PATHS, st.text(), st.text(), st.sampled_from(["git", "sdist", "local"]))
def test_places_and_words_for_people_are_not_in_it(
    tree: Path, cc: Path, cuda: Path, recipe: Path, location: str, words: str, way: str
) -> None:
    moved = base(
        source=source_of(path=tree, location=location, ref=words, way=way, notes=(words,)),
        compilers=compilers_of(cc=cc, cxx=cc, version=words),
        cuda=cuda_of(cuda, version=words, origin=words),
        recipe=Shelf(recipe_of(*_INTENTS, title=words), recipe, digest(words)),
        toolchain=Shelf(toolchain_of(title=words), recipe, digest(words)),
    )
    assert make_plan(moved).key == make_plan(base()).key


@given(st.permutations(_OPTIONS))
def test_the_order_of_intents_is_not_in_it(order: list[str]) -> None:
    intents = [intent_of(name.lower(), f"{name}=ON") for name in order]
    known = base(recipe=Shelf(recipe_of(*intents), Path("/r"), digest("r")))
    assert make_plan(known).key == make_plan(base()).key


@given(
    st.dictionaries(st.sampled_from(_OPTIONS), _VALUES), st.dictionaries(st.sampled_from(_OPTIONS), _VALUES)
)
def test_two_keys_are_equal_exactly_when_all_definitions_are(
    one: dict[str, str], two: dict[str, str]
) -> None:
    plans = [make_plan(msgspec.structs.replace(base(), user=user)) for user in (one, two)]
    values = [{d.name: d.value for d in plan.definitions} for plan in plans]
    assert (plans[0].key == plans[1].key) == (values[0] == values[1])
