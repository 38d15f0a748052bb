from __future__ import annotations

import gzip
import shutil
import stat
import tarfile
from pathlib import Path

import msgspec
import pytest

from sparkbuild.build import builders, machines
from sparkbuild.build.toolbox import pack
from sparkbuild.errors import MissingError, UsageError
from sparkbuild.planning import Plan, make_plan
from tests.conftest import compilers_of, inputs_of

_WRONG = [f'scheduler = "{u}"\ntoken = "x"' for u in ("", "nonsense", "file:///etc", "http://a\\n")]
_FILE = 'scheduler = "http://127.0.0.1:10600"\ntoken = "x"\n'


@pytest.fixture
def plan() -> Plan:
    """Return a plan for this machine's own compilers."""
    cc, cxx = shutil.which("gcc"), shutil.which("g++")
    if not cc or not cxx:
        pytest.skip("no gcc")
    plan = make_plan(inputs_of())
    return msgspec.structs.replace(plan, compilers=compilers_of(cc=Path(cc), cxx=Path(cxx)))


def _file(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    path = tmp_path / "builders.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_file_names_the_scheduler(tmp_path: Path) -> None:
    found = builders.load(_file(tmp_path, _FILE))
    assert (found.scheduler, found.token) == ("http://127.0.0.1:10600", "x")


@pytest.mark.parametrize(
    "text", ["", "token = 1", "[", _FILE + "more = 1\n", 'scheduler = "x"\n', "\x00", *_WRONG]
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="does not name machines"):
        builders.load(_file(tmp_path, text))


@pytest.mark.threat("environment", "a file with the build servers' token that others may read", "refused")
def test_a_token_for_all_to_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="others may read"):
        builders.load(_file(tmp_path, _FILE, 0o644))


def test_the_same_tools_are_the_same_archive(plan: Plan, tmp_path: Path) -> None:
    one, two = pack(plan, tmp_path / "one"), pack(plan, tmp_path / "two")
    assert one.name == two.name
    assert one.read_bytes() == two.read_bytes()
    with gzip.open(one) as file, tarfile.open(fileobj=file) as tar:
        members = {m.name: m for m in tar}
    assert stat.S_IMODE(members["tmp"].mode) == 0o1777
    names = {Path(name).name for name in members}
    assert {"cc1", "cc1plus", "as", "libc.so.6"} <= names
    assert not any(".." in name or name.startswith("/") for name in members)


@pytest.mark.parametrize(
    "bad",
    [
        "scheduler:10600",
        "127.0.0.1",
        "999.1.1.1:1",
        "127.0.0.1:99999",
        "127.0.0.1:0",
        "127.0.0.1:1\n",
        '127.0.0.1:1"',
    ],
)
def test_an_address_is_an_address(tmp_path: Path, bad: str) -> None:
    with pytest.raises(UsageError, match="is no address"):
        machines.settings("127.0.0.1:10600", ["127.0.0.1:1", bad], tmp_path / "new")


def test_settings_are_for_one_pair_of_eyes(tmp_path: Path) -> None:
    try:
        made = machines.settings("127.0.0.1:10600", ["127.0.0.1:1", "127.0.0.1:2"], tmp_path / "new")
    except MissingError as problem:
        pytest.skip(f"{problem}")
    assert len(made) == len({"scheduler", "file", "one", "two"})
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o600}
    assert builders.load(tmp_path / "new" / "builders.toml").scheduler == "http://127.0.0.1:10600"
    with pytest.raises(UsageError, match="is there already"):
        machines.settings("127.0.0.1:10600", ["127.0.0.1:1"], tmp_path / "new")
