"""Refs and URLs that people and recipes give: checked before git or a message sees them."""

from __future__ import annotations

import os
import re
import urllib.parse

from sparkbuild.errors import UsageError

COMMIT = re.compile("[0-9a-f]{40}")
# A subset of `git check-ref-format`: no revision operators (^ ~ : @{), globs or blanks.
_REF = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.+@#=/-]*[A-Za-z0-9_+@#=-])?")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\x9f]")
_USERINFO = re.compile(r"(?<=://)[^/\s]*@")


def redact(text: str) -> str:
    """Return the text with the user names and passwords of all URLs in it left out."""
    return _USERINFO.sub("", text)


def legible(text: str) -> str:
    """Return a text with its bytes that are no UTF-8, which Python keeps as lone surrogates, spelled out."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def check_ref(ref: str) -> str:
    """Return a branch, tag or commit id that is safe to hand to git; raises UsageError."""
    parts = ref.split("/")
    good = _REF.fullmatch(ref) and ".." not in ref and "@{" not in ref and len(ref) <= 200  # noqa: PLR2004
    if not good or any(not p or p.startswith(".") or p.endswith(".lock") for p in parts):
        raise UsageError(
            f"not a branch, tag or commit id: {ref[:80]!r}",
            where="--ref",
            remedy="give the name of a branch or tag, or a commit id, without operators such as ~ or ^",
        )
    return ref


def file_allowed() -> bool:
    """Return whether file:// URLs are enabled, which only tests and mirrors on disk need."""
    return os.environ.get("SPARKBUILD_ALLOW_FILE_GIT") == "1"


def check_url(url: str) -> str:
    """Return a repository URL that git may open; raises UsageError, which never shows a password."""
    why = _url_fault(url)
    if why:
        raise UsageError(
            f"refused the repository address {redact(url)[:120]!r}: {why}",
            where="source",
            remedy="give https://HOST/OWNER/NAME.git, a folder or an archive",
        )
    return url


def _url_fault(url: str) -> str:
    """Return what is wrong with a URL, "" for nothing."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return "it is not a URL"
    local = parts.scheme == "file"
    faults = {
        "it begins with a dash": url.startswith("-"),
        "it holds blanks or control characters": _UNPRINTABLE.search(url),
        "'::', '..' and '@{' are not allowed in it": "::" in url or ".." in url or "@{" in url,
        "file:// is enabled by SPARKBUILD_ALLOW_FILE_GIT=1 only": local and not file_allowed(),
        "only https is spoken": not local and parts.scheme != "https",
        "it needs a host": not local and (not host or host.startswith("-")),
        "it must have no query and no fragment": parts.query or parts.fragment,
    }
    return next((why for why, found in faults.items() if found), "")
