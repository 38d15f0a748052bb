from __future__ import annotations

from pathlib import Path

import pytest

from sparkbuild.build.leftover import drop_damaged

_ROW = "0\t1\t1\t{}\tabc\n"


@pytest.mark.threat(
    "sandbox",
    "a ninja log that calls empty files elsewhere outputs, by path or through a link",
    "nothing outside of the build folder is removed",
)
def test_only_what_is_in_the_build_folder_goes(tmp_path: Path) -> None:
    where, outside = tmp_path / "build", tmp_path / "outside"
    (where / "sub").mkdir(parents=True)
    outside.mkdir()
    theirs = [outside / name for name in ("empty", "empty.o", "linked.o")]
    for path in [*theirs, where / "cut.o", where / "text.o"]:
        path.write_bytes(b"")
    (where / "text.o").write_text("whole")
    (where / "sub" / "out").symlink_to(outside)
    (where / "linked.o").symlink_to(theirs[2])
    names = [str(theirs[0]), "../outside/empty.o", "sub/out/empty.o", "linked.o", "cut.o", "text.o", "gone.o"]
    (where / ".ninja_log").write_text("# ninja log v7\n" + "".join(map(_ROW.format, names)))
    assert drop_damaged(where) == ("cut.o",)
    assert all(path.exists() for path in [*theirs, where / "text.o"])
    assert not (where / "cut.o").exists()
