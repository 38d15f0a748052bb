"""The whole way, on one screen: a request -> its plan -> the artifact, from the store or built now."""

from __future__ import annotations

import msgspec

from sparkbuild.artifact import store
from sparkbuild.build import costs
from sparkbuild.build.cache import check_storage
from sparkbuild.build.jobs import choose_jobs
from sparkbuild.errors import UsageError
from sparkbuild.files import disk_faults
from sparkbuild.request import Request, Session, plan
from sparkbuild.toolchain import sandbox


class Result(msgspec.Struct, frozen=True):
    """An artifact and whether it was there already."""

    stored: store.Stored
    fresh: bool


def build(request: Request, session: Session) -> Result:
    """Return the artifact for a request: from the store when it is there, else built now."""
    folders = session.folders
    check_storage(request.cache_storage)
    if request.sandbox:
        sandbox.check()
        if request.builders:
            raise UsageError(
                "a sandbox has no network, so no other machine can compile for it",
                where="--builders --sandbox",
                remedy="leave one of them away",
            )
    with disk_faults(folders.cache):
        made = plan(request, session)
        recipe = session.catalog.recipe(request.engine).record
        with store.reserved(made.engine, made.key, folders):
            found = None if request.rebuild else store.find(made.engine, made.key, folders)
            if found:
                return Result(found, fresh=False)
            from sparkbuild.making import make  # noqa: PLC0415 - 0.2 s that who has the artifact need not wait

            return Result(make(made, recipe, request, session), fresh=True)


def expected(request: Request, session: Session, jobs: int | None = None) -> costs.Expected | None:
    """Return what compiling a request is expected to take; None where nobody can tell.

    ``jobs`` are those that several builds share; without them it is as many as it would get now.
    """
    recipe = session.catalog.recipe(request.engine).record
    count = jobs or choose_jobs(recipe.steps.memory(request.backend), asked=request.jobs).count
    return costs.expected(recipe.steps, request.backend, recipe.name, session.folders, count)
