"""Text that came from outside (models, patches, logs), made safe for prompts, commit messages and terminals."""

from __future__ import annotations

import re
import unicodedata

_FENCE = re.compile(r"<(?=\s*/?\s*untrusted)", re.IGNORECASE)


def cleaned(text: str, limit: int) -> str:
    """Drop control, invisible and unassigned characters except line ends and tabs; cap the length.

    Args:
        text: anything.
        limit: characters to keep, an ellipsis included.
    """
    # Capped before the work as well: the text may be megabytes.
    kept = (
        character if character in "\n\t" or unicodedata.category(character)[0] != "C" else ""
        for character in text[: 4 * limit].replace("\r\n", "\n").replace("\r", "\n")
    )
    result = "".join(kept).replace("\u2028", "\n").replace("\u2029", "\n").strip()
    return result if len(result) <= limit and len(text) <= 4 * limit else result[: limit - 1].rstrip() + "…"


def one_line(text: str, limit: int) -> str:
    """`cleaned`, with every run of white space as one blank."""
    return cleaned(" ".join(cleaned(text, 4 * limit).split()), limit)


def fenced(kind: str, text: str) -> str:
    """Wrap untrusted text for a prompt, so that it cannot close the fence and speak as us.

    This marks where instructions do not count. It does not stop a model from following them all the same: what
    such a model submits is still only an edit that runs in the sandbox.
    """
    return f"<untrusted_{kind}>\n{_FENCE.sub('‹', text)}\n</untrusted_{kind}>"
