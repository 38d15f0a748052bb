"""What continuous integration builds: from the catalogue alone."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from sparkbuild.catalog import Catalog, shipped_root
from sparkbuild.catalog.matrix import matrix
from sparkbuild.cli.main import run
from sparkbuild.errors import UsageError

_SHIPPED = Catalog((shipped_root(),))
_ENGINES = sorted(_SHIPPED.recipes())


def test_every_engine_and_backend_is_built() -> None:
    rows = matrix(_SHIPPED, ["gb10"])
    assert [(r.engine, r.backend) for r in rows] == [(e, b) for e in _ENGINES for b in ("cuda", "cpu")]
    assert len({r.name for r in rows}) == len(rows)


def test_a_row_requires_what_the_recipe_promises() -> None:
    rows = {r.name: set(r.require) for r in matrix(_SHIPPED, ["gb10", "host"])}
    for engine in _ENGINES:
        assert rows[f"{engine}-gb10-cpu"] == {"dotprod", "fp16"}
        assert rows[f"{engine}-gb10-cuda"] == {"cuda", "dotprod", "fa_all_quants", "fp16"}
        assert rows[f"{engine}-host-cpu"] == set()


def test_every_required_feature_is_one_that_probe_knows() -> None:
    known = {f.name for f in _SHIPPED.features().record.features} | {"fa_all_quants"}
    assert {name for r in matrix(_SHIPPED, ["gb10"]) for name in r.require} <= known


def test_a_recipe_of_ones_own_is_built_where_it_has_targets(tmp_path: Path) -> None:
    shelf = next(iter(_SHIPPED.recipes().values()))
    text = shelf.path.read_text()
    old = msgspec.toml.decode(text)
    text = text.replace(f'name = "{shelf.record.name}"', 'name = "mine"', 1)
    text = text.replace(f"aliases = {json.dumps(old['aliases'])}", "", 1)
    text = "\n".join(line for line in text.splitlines() if not line.startswith("cuda = ["))
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.toml").write_text(text)
    rows = matrix(Catalog((*_SHIPPED.roots, tmp_path)), ["gb10"])
    assert [r.name for r in rows if r.engine == "mine"] == ["mine-gb10-cpu"]


def test_an_arch_named_twice_is_built_once() -> None:
    assert matrix(_SHIPPED, ["gb10", "gb10"]) == matrix(_SHIPPED, ["gb10"])


def test_an_unknown_arch_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown arch 'gb11'"):
        matrix(_SHIPPED, ["gb11"])


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["matrix", "--arch", "gb10", "--backend", "cpu", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "sparkbuild/matrix/1"
    assert [r["name"] for r in document["include"]] == [f"{e}-gb10-cpu" for e in _ENGINES]
    assert run(["matrix"]) == 0
    assert f"{_ENGINES[0]}-gb10-cuda" in capsys.readouterr().out
