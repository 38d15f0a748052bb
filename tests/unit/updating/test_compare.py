"""What differs between two sources, from what was seen of them."""

from __future__ import annotations

import msgspec

from sparkbuild.source import Declared, Option
from sparkbuild.source.patches import Fitting
from sparkbuild.updating import compare
from sparkbuild.updating.records import Problem
from sparkbuild.updating.trial import Trial
from tests.conftest import intent_of


def declared(*reads: str, **defaults: str) -> Declared:
    return Declared({n: Option(n, "BOOL", d, "", "CMakeLists.txt") for n, d in defaults.items()}, reads)


def test_options_came_went_or_have_another_default() -> None:
    old = declared(SAME="ON", GONE="1", CHANGED="ON").options
    new = declared(SAME="ON", CAME="2", CHANGED="OFF").options
    found = compare.options(old, new, [intent_of("mine", "CAME=ON", "GONE=ON")])
    assert [(o.name, o.change, o.before, o.after, o.intent) for o in found] == [
        ("CAME", "added", "", "2", "mine"),
        ("CHANGED", "default", "ON", "OFF", ""),
        ("GONE", "removed", "1", "", "mine"),
    ]


def test_what_becomes_of_an_intent() -> None:
    old = declared("READ", X_OLD="ON", X_SAME="ON", X_LESS="ON")
    new = declared(X_NEW="ON", X_SAME="ON", X_LESSER="ON", X_LESSON="ON", X_NEEDY="ON", X_RAED="")
    read = intent_of("read", "READ=1")
    read = msgspec.structs.replace(read, choose=(msgspec.structs.replace(read.choose[0], read_only=True),))
    found = compare.intents(
        [
            intent_of("same", "X_SAME=ON"),
            intent_of("renamed", "X_NEW=all", "X_OLD=ON"),
            intent_of("found", "X_LESSON=ON"),
            intent_of("never", "X_NEVER=ON"),
            intent_of("needed", "X_NEEDED=ON", required=True),
            intent_of("lost", "X_LESS=ON"),
            read,
        ],
        old,
        new,
    )
    assert [(c.intent, c.change, c.before, c.after, c.near) for c in found] == [
        ("same", "same", "X_SAME=ON", "X_SAME=ON", ""),
        ("renamed", "renamed", "X_OLD=ON", "X_NEW=all", ""),
        ("found", "found", "", "X_LESSON=ON", ""),
        ("never", "none", "", "", ""),
        ("needed", "none", "", "", "X_NEEDY"),
        ("lost", "lost", "X_LESS=ON", "", "X_LESSER"),  # and not X_LESSON, which is asked for already
        ("read", "lost", "READ=1", "", "X_RAED"),
    ]
    assert [p.where for p in compare.spelling_losses(found, "toy.toml")] == [
        "toy.toml: intents.needed",
        "toy.toml: intents.lost",
        "toy.toml: intents.read",
    ]


def test_a_flag_that_was_lost_before_counts_when_it_is_required() -> None:
    lost = {n: Problem(f"{n} is lost", "", "") for n in ("NEW", "BEFORE", "REQUIRED")}
    old = Trial(frozenset({"tool"}), lost={n: lost[n] for n in ("BEFORE", "REQUIRED")})
    new = Trial(frozenset({"tool"}), lost=lost, required=frozenset({"REQUIRED"}))
    found = compare.problems("cpu", old, new)
    assert [p.what for p in found] == ["NEW is lost", "REQUIRED is lost"]
    assert compare.tried("cpu", ("tool",), old, new).state == "failed"
    both = compare.merged([*found, *compare.problems("cuda", old, new)])
    assert [(p.what, p.backends) for p in both] == [
        ("NEW is lost", ("cpu", "cuda")),
        ("REQUIRED is lost", ("cpu", "cuda")),
    ]


def test_a_trial_without_something_proves_nothing() -> None:
    whole = Trial(frozenset({"a", "b"}), programs=frozenset({"a"}))
    assert compare.tried("cpu", ("a",), whole, whole).state == "proved"
    lacking = compare.tried("cpu", ("a",), whole, whole, ["0001-x.patch"])
    assert (lacking.state, lacking.why) == ("failed", "tried without 0001-x.patch")
    failed = compare.tried("cpu", ("a",), whole, Trial(), ["0001-x.patch"])
    assert (failed.state, failed.why) == ("failed", "CMake failed; tried without 0001-x.patch")
    # An old pin that CMake no longer takes says nothing about what is new.
    assert compare.tried("cpu", ("a",), Trial(), whole).new == ()


def test_each_patch_that_does_not_fit_is_a_loss_with_gits_words() -> None:
    fittings = [
        Fitting("1.patch", "applies"),
        Fitting("2.patch", "in the source already"),
        Fitting("3.patch", "does not apply", "error: f: does not match"),
    ]
    assert [(p.what, p.remedy) for p in compare.patch_losses(fittings, "patches/toy")] == [
        ("2.patch is in the source already", "remove the patch from the recipe's folder"),
        ("3.patch no longer applies: error: f: does not match", "adapt the patch to the new commit"),
    ]
