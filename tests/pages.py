"""How tests read an HTML page."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

_VOID = {"meta"}


class Read(HTMLParser):
    """What a page holds; an end tag that nothing opened, or a tag left open, fails."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words += " " + data

    @property
    def said(self) -> str:
        return " ".join(self.words.split())


def alone(text: str) -> None:
    """Assert that a page needs and allows nothing but its own style."""
    style = re.search(r"<style>(.*)</style>", text, re.DOTALL)
    assert style
    ours = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    tags = Read(text).tags
    policy = next(a["content"] for t, a in tags if a.get("http-equiv"))
    assert policy == f"default-src 'none'; style-src 'sha256-{ours}'; base-uri 'none'; form-action 'none'"
    assert {t for t, _ in tags} & {"script", "link", "img", "iframe", "object", "form", "a", "use"} == set()
    names = {name for _, a in tags for name in a}
    assert names & {"src", "href", "xlink:href", "style", "srcset"} == set()
    assert not any(name.startswith("on") for name in names)
    assert "url(" not in style[1]
    assert "@import" not in style[1]
