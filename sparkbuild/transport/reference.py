"""Where an artifact is in an OCI registry."""

from __future__ import annotations

import re

import msgspec

from sparkbuild.errors import UsageError

TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_HOST = r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?"
_PART = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(rf"oci://(?P<host>{_HOST})/(?P<repo>{_PART}(/{_PART})*)(:(?P<tag>{TAG.pattern}))?")


class Reference(msgspec.Struct, frozen=True):
    """An artifact's place: ``oci://host[:port]/repo[:tag]``; the tag is "latest" when none is named."""

    host: str
    repo: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a reference; the names are those of distribution-spec 1.1, "Pulling manifests".

        Raises UsageError for everything else: digests, credentials, other schemes, odd characters.
        """
        found = _REFERENCE.fullmatch(text)
        if found is None:
            shown = "a reference with '@'" if "@" in text else ascii(text[:200])  # it may hold a password
            raise UsageError(
                f"not a registry's reference: {shown}",
                remedy="write oci://HOST[:PORT]/REPOSITORY[:TAG]; for a password use 'docker login HOST'",
            )
        return cls(found["host"], found["repo"], found["tag"] or "latest")
