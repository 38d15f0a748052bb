"""Whatever a tool does, the answer is a verdict, in bounded time, with nothing left behind."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from sparkbuild import handover
from sparkbuild.catalog import Catalog, shipped_root
from sparkbuild.errors import UsageError
from sparkbuild.files import Folders
from sparkbuild.handover import Switch, Tool
from sparkbuild.inspection.live import How
from sparkbuild.progress import Silent
from sparkbuild.smoke import run as smoking
from sparkbuild.smoke.records import Smoke, Step, verdict_of
from sparkbuild.smoke.run import Asked, Here, artifact_at, smoke
from tests import toys as library_toys
from tests.unit.smoke import toys
from tests.unit.test_process import gone

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide a GPU: these tests say the same on a machine that has one."""
    monkeypatch.setattr(smoking, "gpus", tuple)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "an artifact" / "bin").mkdir(parents=True)
    return tmp_path / "an artifact"


def tried(place: Path, folders: Folders, **asked: Any) -> Smoke:  # noqa: ANN401 - any field
    compilers = {platform.machine(): ("gcc",)}
    here = Here(How(compilers), Catalog((shipped_root(),)).features().record, folders)
    return smoke(artifact_at(place), Asked(**asked), here, Silent())


def step(found: Smoke, name: str) -> Step:
    return next(s for s in found.steps if s.name == name)


def test_tools_that_behave_pass(place: Path, folders: Folders) -> None:
    toys.bench(place / "bin")
    toys.server(place / "bin")
    toys.script(place / "bin", "toy-sweep-bench", f"cat >&2 <<'EOF'\n{toys.SWEEP}EOF")
    toys.script(place / "bin", "toy-perplexity", "exit 9")  # a server answers already
    found = tried(toys.artifact(place), folders)
    assert (found.verdict, found.ran, found.gpu, found.model) == ("passed", "native", (), "tiny")
    assert [(s.name, s.verdict) for s in found.steps] == [
        ("files", "passed"),
        ("bench", "passed"),
        ("sweep-bench", "passed"),
        ("server", "passed"),
    ]
    assert step(found, "bench").figures == {"prompt tokens/s": 25.5354, "generated tokens/s": 25.5354}
    assert step(found, "sweep-bench").figures["rows"] == 2
    assert step(found, "server").figures["tokens"] == 4
    assert "'abc'" in step(found, "server").said
    assert found.manifest == artifact_at(place).digest
    assert len(found.model_digest) == 64


_BAD = [
    ({"before": "pause();"}, "no answer within"),
    ({"before": "signal(SIGTERM, SIG_IGN); for (;;) pause();"}, "no answer within"),
    ({"before": "abort();"}, "SIGABRT"),
    ({"before": "raise(SIGSEGV);"}, "SIGSEGV"),
    ({"after": 'fputs("model not found\\n", stderr); return 3;'}, "exit code 3, saying: "),
    ({"printed": "no results today"}, "holds no JSON array"),
    ({"printed": "[\n{]"}, "is not llama-bench's"),
    ({"printed": "[\n" * 100_000}, "is not llama-bench's"),
    ({"printed": '[\n{"build_number": 1}]'}, "is not llama-bench's"),
    ({"printed": "[\n]"}, "a result is missing"),
    ({"printed": "[\n]", "before": "for (i = 0; i < 9000000; i++) puts(argv[0]);"}, "holds no JSON array"),
    ({"printed": toys.results(build_number=4)}, "it says build 4, the manifest says 11312"),
    ({"printed": toys.results(build_commit="feedbeef1")}, "it says commit feedbeef1"),
    ({"printed": toys.results(build_commit="")}, "it says commit "),
    ({"printed": toys.results()[:1]}, "a result is missing"),
    ({"printed": toys.results(samples_ns=[0])}, "a result holds no time"),
    ({"printed": toys.results(samples_ts=[])}, "a result holds no time"),
    ({"printed": toys.results(samples_ts=[float("nan")])}, "a result holds no time"),
    ({"printed": toys.results(samples_ts=[float("inf")])}, "a result holds no time"),
]


@pytest.mark.threat(
    "binaries",
    "a benchmark that hangs, crashes, floods, prints NaN, nested or other results",
    "the smoke test fails, nothing is left running",
)
@pytest.mark.parametrize(("ways", "said"), _BAD, ids=[said for _, said in _BAD])
def test_a_benchmark_that_does_not_fails(
    place: Path, folders: Folders, ways: dict[str, Any], said: str
) -> None:
    toys.bench(place / "bin", **ways)
    patience = 0.5 if "no answer" in said else 60.0
    found = tried(toys.artifact(place), folders, patience=patience)
    assert (found.verdict, step(found, "bench").verdict) == ("failed", "failed")
    assert said in step(found, "bench").said
    assert step(found, "bench").said.isprintable()
    assert gone(str(place))


@pytest.mark.threat("binaries", "a child that hides in a session of its own", "it is ended")
def test_a_child_that_hides_in_a_session_of_its_own_is_ended(place: Path, folders: Folders) -> None:
    hide = "if (!fork()) { setsid(); fclose(stdout); fclose(stderr); for (;;) pause(); }"
    toys.bench(place / "bin", before=hide)
    assert tried(toys.artifact(place), folders).verdict == "passed"
    assert gone(str(place))


_SERVERS = [
    ({"before": "sys.exit('no such model')"}, "exit code 1, saying: no such model"),
    ({"before": "sys.exit(0)"}, "it ended by itself"),
    ({"before": "time.sleep(1000)"}, "it did not answer on its port"),
    ({"health": 'self.say(503, {"error": "loading"})'}, '/health says 503 {"error": "loading"}'),
    ({"health": "self.wfile.write(b'no http\\n\\n')"}, "not ready within"),
    ({"health": "time.sleep(1000)"}, "not ready within"),
    ({"complete": "os.kill(os.getpid(), signal.SIGSEGV)"}, "SIGSEGV"),
    ({"complete": 'self.say(500, {"error": "a bug"})'}, '/completion says 500 {"error": "a bug"}'),
    ({"complete": "self.say(200, b'hello')"}, "did not complete a text but said hello"),
    ({"complete": "self.say(200, b'')"}, "did not complete a text but said nothing"),
    ({"complete": "self.say(200, {'content': ''})"}, "did not complete a text"),
    ({"complete": "self.say(200, [])"}, "did not complete a text"),
    ({"complete": "time.sleep(1000)"}, "no answer on /completion"),
    ({"complete": "self.say(200, b'x' * 3_000_000)"}, "did not complete a text but said xxx"),
    (
        {"complete": "while 1:\n            self.wfile.write(b'x'); time.sleep(0.05)"},
        "no answer on /completion",
    ),
    ({"complete": "self.say(200, answer); os._exit(0)"}, "it ended by itself"),
    ({"before": "signal.signal(15, signal.SIG_IGN)"}, "SIGTERM did not end it"),
    ({"before": "signal.signal(15, lambda *_: os.abort())"}, "told to end: ended by signal SIGABRT"),
]


@pytest.mark.threat(
    "binaries",
    "a server that hangs, crashes, answers garbage or without end",
    "the smoke test fails, nothing is left running",
)
@pytest.mark.parametrize(("ways", "said"), _SERVERS, ids=[f"{w} {s}"[:60] for w, s in _SERVERS])
def test_a_server_that_does_not_answer_fails(
    place: Path, folders: Folders, ways: dict[str, str], said: str
) -> None:
    toys.server(place / "bin", **ways)
    slow = "sleep" in str(ways) or "health" in ways
    found = tried(toys.artifact(place), folders, patience=2.0 if slow else 60.0)
    assert found.verdict == "failed"
    assert said in step(found, "server").said
    assert gone(str(place))


def test_a_server_may_flood_its_log_and_leave_children(place: Path, folders: Folders) -> None:
    talk = "print('x' * 50_000_000, flush=True)"
    fork = "if not os.fork(): os.setsid(); time.sleep(1000)"
    toys.server(place / "bin", before=f"{talk}\n{fork}", complete=f"{talk}; self.say(200, answer)")
    assert tried(toys.artifact(place), folders).verdict == "passed"
    assert gone(str(place))


def test_where_no_server_is_another_tool_answers(place: Path, folders: Folders) -> None:
    text = 'while [ "$1" != -f ]; do shift; done; grep -q fox "$2"'
    said = "echo 'Final estimate: PPL over 5 chunks for n_ctx=64 = 552.2325 +/- 39.86'"
    tool = toys.script(place / "bin", "toy-perplexity", f"{text} && {said}")
    found = tried(toys.artifact(place), folders)
    assert (found.verdict, step(found, "perplexity").figures) == ("passed", {"perplexity": 552.2325})
    for said in ("Final estimate: PPL = nan", "Final estimate: PPL = much", "[1]4.2"):
        toys.script(place / "bin", "toy-perplexity", f"echo '{said}'")
        assert tried(toys.artifact(place), folders).verdict == "failed"
    tool.unlink()
    for body, verdict in (("echo hello", "passed"), ("true", "failed")):
        toys.script(place / "bin", "toy-cli", body)
        assert tried(toys.artifact(place), folders).verdict == verdict


@pytest.mark.parametrize("said", ["", "| 1 | 2 |", "| 64 | 16 | 0 | 2.1 | 0 | 0.7 | 20.7 |", "| - | . |"])
def test_a_sweep_without_results_fails(place: Path, folders: Folders, said: str) -> None:
    toys.script(place / "bin", "toy-sweep-bench", f"echo '{said}'")
    assert tried(toys.artifact(place), folders).verdict == "failed"


def test_what_can_not_begin_is_not_run(
    place: Path, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    toys.bench(place / "bin")
    monkeypatch.setenv("PATH", str(place))
    found = tried(toys.artifact(place, needs=handover.Needs("riscv64", (), "", None, "", ())), folders)
    assert (found.verdict, found.ran) == ("not run", "")
    assert "qemu-riscv64 is not installed" in step(found, "bench").said


@pytest.mark.threat("binaries", "a server whose library is missing", "told as not run")
def test_a_server_whose_library_is_missing_is_not_run(place: Path, folders: Folders) -> None:
    library_toys.library(place, name="libthere.so", cuda=False)
    code = "int llama_init(void); int main(void) { return llama_init(); }"
    (place / "t.c").write_text(code)
    words = ["gcc", str(place / "t.c"), str(place / "libthere.so"), "-o", str(place / "bin/toy-server")]
    subprocess.run(words, check=True)
    (place / "libthere.so").unlink()
    found = tried(toys.artifact(place), folders)
    assert (found.verdict, found.ran) == ("not run", "native")
    assert "libthere.so" in step(found, "server").said


def test_an_artifact_without_tools_is_not_run(place: Path, folders: Folders) -> None:
    assert tried(toys.artifact(place), folders).verdict == "not run"


@pytest.mark.threat("binaries", "an artifact whose files were changed", "nothing of it is run")
def test_nothing_is_run_of_an_artifact_that_was_changed(place: Path, folders: Folders) -> None:
    tool = toys.script(place / "bin", "toy-cli", f"touch '{place}/ran'; echo text")
    toys.artifact(place)
    tool.write_text(tool.read_text() + "#\n")
    found = tried(place, folders)
    assert (found.verdict, [s.name for s in found.steps]) == ("failed", ["files"])
    assert "bin/toy-cli" in found.steps[0].said
    assert not (place / "ran").exists()


def test_a_profile_is_what_is_run(place: Path, folders: Folders) -> None:
    toys.bench(place / "bin", toys.results(type_k="q4_0"))
    toys.script(place / "bin", "toy-cli", "exit 9")  # the profile has no command for it
    switches = (Switch("cache_type_k", "", ("--ctk", "{value}"), ("q4_0", "q8_0")),)
    tool = Tool("bench", "bin/toy-bench", switches, "its help")
    cli = Tool("cli", "bin/toy-cli", (), "none")
    for wanted, verdict in (("q4_0", "passed"), ("q8_0", "failed"), ("f32", "")):
        profile = handover.Profile("fast", "Fast", {"cache_type_k": wanted, "threads": "3"})
        toys.artifact(
            place,
            tools=(tool, cli),
            profiles=(profile,),
            commands=(handover.spell(tool, "fast", profile.settings),),
        )
        if not verdict:  # what it can not do is no verdict on the artifact
            with pytest.raises(UsageError, match="takes cache_type_k q4_0, q8_0, not f32"):
                tried(place, folders, profile="fast")
            break
        found = tried(place, folders, profile="fast")
        assert (found.verdict, found.profile) == (verdict, "fast")
    with pytest.raises(UsageError, match="no profile 'slow', but fast"):
        tried(place, folders, profile="slow")


def test_the_words_are_the_manifests_or_the_familys(place: Path, folders: Folders) -> None:
    toys.bench(place / "bin", before="return 5;")
    said = step(tried(toys.artifact(place), folders), "bench").said
    assert "<-m><" in said
    assert said.endswith("<-p><16><-n><4><-r><1><-o><json>")
    switches = (Switch("model", "", ("--load", "{value}")), Switch("threads", "", ("-t{value}",)))
    toys.artifact(place, tools=(Tool("bench", "bin/toy-bench", switches, "its help"),))
    said = step(tried(place, folders, model=place / "manifest.json"), "bench").said
    assert f"<--load><{place}/manifest.json><-t" in said


def test_a_model_that_is_not_there_is_a_usage_error(place: Path, folders: Folders) -> None:
    with pytest.raises(UsageError, match="no such model"):
        tried(toys.artifact(place), folders, model=place / "none.gguf")


@pytest.mark.parametrize("data", [None, b"", b"{}", b'{"schema": "sparkbuild/manifest/1"}', b"[" * 100_000])
def test_a_folder_without_a_manifest_is_no_artifact(tmp_path: Path, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / "manifest.json").write_bytes(data)
    with pytest.raises(UsageError, match="not an artifact"):
        artifact_at(tmp_path)


def test_no_figure_without_a_step(place: Path, folders: Folders) -> None:
    toys.bench(place / "bin")
    found = tried(toys.artifact(place), folders)
    failed = structs.replace(found.steps[1], verdict="failed")
    lost = structs.replace(found.steps[1], verdict="not run")
    assert verdict_of((found.steps[0],)) == "not run"
    assert verdict_of((*found.steps, failed)) == "failed"
    assert verdict_of((*found.steps, lost)) == "not run"
    assert verdict_of((*found.steps, Step("gpu", "not run", 0.0, "none"))) == "passed"


# --- on a GPU, whose part a text plays: what the engines print there -----------------------------

_LOG = 'fputs("load_tensors: offloaded 3/3 layers to GPU\\n", stderr);'
_ON_GPU = {"gpu_info": "NVIDIA GB10", "backends": "CUDA", "n_gpu_layers": 999}


@pytest.mark.parametrize(
    ("said", "log", "verdict", "why"),
    [
        (_ON_GPU, _LOG, "passed", "3 of 3 layers"),
        (_ON_GPU, _LOG.replace("3/3", "0/3"), "failed", "0 of 3 layers"),
        (_ON_GPU | {"gpu_info": ""}, _LOG, "failed", "name no GPU"),
        (_ON_GPU, "", "failed", "nothing that its tools said"),
    ],
)
def test_a_gpu_that_is_here_must_be_used(
    place: Path,
    folders: Folders,
    monkeypatch: pytest.MonkeyPatch,
    said: dict[str, Any],
    log: str,
    verdict: str,
    why: str,
) -> None:
    monkeypatch.setattr(smoking, "gpus", lambda: ("NVIDIA GB10",))
    toys.bench(place / "bin", toys.results(**said), before=log)
    found = tried(toys.artifact(place, backend="cuda"), folders, gpu="require")
    assert (found.verdict, step(found, "gpu").verdict, found.gpu) == (verdict, verdict, ("NVIDIA GB10",))
    assert why in step(found, "gpu").said


def test_the_engine_itself_lists_no_gpu(
    place: Path, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smoking, "gpus", lambda: ("NVIDIA GB10",))
    code = (
        'const char *llama_print_system_info(void) { return "x"; }\n'
        "unsigned long ggml_backend_reg_get_count(void) { return 1; }\n"
        'const char *ggml_backend_reg_get_name(unsigned long i) { return "CPU"; }\n'
    )
    (place / "l.c").write_text(code)
    words = ["gcc", "-shared", "-fPIC", str(place / "l.c"), "-o", str(place / "bin/libtoy.so")]
    subprocess.run(words, check=True)
    toys.bench(place / "bin", toys.results(**_ON_GPU), before=_LOG)
    toys.artifact(place, backend="cuda", libraries=("bin/libtoy.so", "bin/libgone.so"))
    found = tried(place, folders)
    assert found.verdict == "failed"
    assert "fell back to the CPU: the engine lists no GPU" in step(found, "gpu").said


@pytest.mark.threat("binaries", "a CUDA build where there is no GPU", "the GPU's part is told as not run")
@pytest.mark.parametrize(
    ("asked", "seen", "verdict", "why"),
    [
        ("auto", (), "passed", "no GPU here"),
        ("require", (), "not run", "no GPU here"),
        ("never", ("NVIDIA GB10",), "passed", "not to be used"),
    ],
)
def test_a_cuda_build_on_the_cpu(
    place: Path,
    folders: Folders,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    seen: tuple[str, ...],
    verdict: str,
    why: str,
) -> None:
    monkeypatch.setattr(smoking, "gpus", lambda: seen)
    toys.bench(place / "bin")
    found = tried(toys.artifact(place, backend="cuda"), folders, gpu=asked)
    assert (found.verdict, step(found, "gpu").verdict) == (verdict, "not run")
    assert why in step(found, "gpu").said


def test_a_gpu_step_needs_a_tool_that_ran(
    place: Path, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smoking, "gpus", lambda: ("NVIDIA GB10",))
    toys.bench(place / "bin", before="abort();")
    found = tried(toys.artifact(place, backend="cuda"), folders)
    assert (found.verdict, step(found, "gpu").verdict) == ("failed", "not run")
