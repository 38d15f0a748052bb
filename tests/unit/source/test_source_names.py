from __future__ import annotations

import pytest

from sparkbuild.errors import UsageError
from sparkbuild.source.names import check_ref, check_url, redact

_BAD_REFS = [
    "", "-upload-pack=x", "--help", "a..b", "a@{1}", "a~1", "a^", "a:b", "a b", "a\nb", "a\rb", "a\0b",
    "a\x1bb", "/a", "a/", "a//b", "a/.b", ".a", "a.lock", "a/b.lock/c", "a.", "*", "a?", "a[b", "a\\b",
    "@", "é", "x" * 201,
]  # fmt: skip
_BAD_URLS = [
    "-u", "--upload-pack=touch x", "ext::sh -c touch% x", "fd::17", "https::https://h/x", "http://h/x",
    "git://h/x", "ssh://h/x", "ssh://-oProxyCommand=x/y", "git@host:owner/name.git", "https:///x",
    "https://-oProxyCommand=x/y", "https://h/x\n", "https://h/\rx", "https://h/\0x", "https://h/a b",
    "https://h/../x", "https://h/x@{1}", "https://h/x?token=1", "https://h/x#y", "https://h:port/x",
    "https://[::1/x", "file:///x", "/x", "",
]  # fmt: skip


@pytest.mark.parametrize(
    "ref", ["main", "b10876", "v0.5.0", "feature/x-1", "a" * 40, "8337e4cd", "HEAD", "dev#1"]
)
def test_a_plain_ref_is_taken(ref: str) -> None:
    assert check_ref(ref) == ref


@pytest.mark.threat(
    "git",
    "refs that begin with a dash, hold `..`, `@{`, operators, control characters, CR or NUL",
    "refused (2), and shown without what could steer a terminal",
)
@pytest.mark.parametrize("ref", _BAD_REFS)
def test_an_odd_ref_is_refused(ref: str) -> None:
    with pytest.raises(UsageError) as error:
        check_ref(ref)
    assert not set(error.value.what) & set("\n\r\0\x1b")


@pytest.mark.parametrize(
    "url", ["https://host/owner/name.git", "https://me:secret@host:8443/x", "https://127.0.0.1/x"]
)
def test_an_https_url_is_taken(url: str) -> None:
    assert check_url(url) == url


@pytest.mark.threat(
    "git",
    "addresses with `ext::`, `fd::`, `ssh://-oProxyCommand=`, dashes, `..`, CR, NUL (CVE-2022-24439)",
    "refused (2) before git sees them",
)
@pytest.mark.parametrize("url", _BAD_URLS)
def test_an_odd_url_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARKBUILD_ALLOW_FILE_GIT", raising=False)
    with pytest.raises(UsageError):
        check_url(url)


def test_file_urls_need_a_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARKBUILD_ALLOW_FILE_GIT", "1")
    assert check_url("file:///somewhere/x.git") == "file:///somewhere/x.git"


def test_no_error_shows_a_password() -> None:
    with pytest.raises(UsageError) as error:
        check_url("http://me:hunter2@host/x.git")
    assert "hunter2" not in str(error.value.as_dict())


@pytest.mark.threat("git", "user names and passwords in a text with several addresses", "left out")
def test_redact_takes_every_credential_out() -> None:
    text = "cannot open https://me:p@ss@host/x.git nor 'https://token@other/y': me@home"
    assert redact(text) == "cannot open https://host/x.git nor 'https://other/y': me@home"
