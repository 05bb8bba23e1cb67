"""A conversation with a language model, rendered for a terminal.

All text in it is untrusted: the model wrote it, or it quotes logs of candidates. It is cleaned line by line and
printed behind a bar, so that it can neither move the cursor nor pass for one of our headings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from runner.report.effort import tokens
from runner.untrusted import REPLACEMENT, clean, one_line

BAR = "  │ "
WIDTH = 160
_PIECE = 4000  # `clean` reads no more of a line
_CONTEXT_LINES = 2
_MOST = 1e12  # tokens or dollars; a larger number cannot be real

# Lines of a part that are shown before it is folded: most for parts that are found nowhere else.
_SHOWN = {
    "system": 2,
    "material": 2,
    "task": 12,
    "thinking": 24,
    "says": 40,
    "call": 40,
    "result": 8,
    "refused": 12,
    "reply": 12,
}


def transcript(conversation: object, *, full: bool = False) -> str:
    """Render a conversation.

    Args:
        conversation: JSON: `model`, `opening` (`system`, `material`, `task`), `exchanges` (each with `thinking`,
            `text`, `stop`, `calls` of `name` and `input`, `results` of `text` and `is_error`, `words`, `usage`),
            `outcome`. Parts that are missing or of another type are left out.
        full: fold nothing and cut no line.

    Returns:
        Lines without a newline at the end; no control characters.
    """
    whole = _mapping(conversation)
    exchanges = [_mapping(one) for one in _list(whole.get("exchanges"))]
    lines = [f"conversation with {_short(whole.get('model')) or 'an unnamed model'}, turns: {len(exchanges)}"]
    opening = _mapping(whole.get("opening"))
    for name in ("system", "material", "task"):
        lines += _part(name, opening.get(name), full)
    for number, exchange in enumerate(exchanges, start=1):
        lines += ["", *_exchange(number, exchange, full)]
    outcome = _short(whole.get("outcome"))
    return "\n".join([*lines, "", f"outcome: {outcome}"] if outcome else lines)


def _exchange(number: int, exchange: Mapping[str, Any], full: bool) -> Iterator[str]:
    facts = [_short(exchange.get("stop")), _usage(_mapping(exchange.get("usage")))]
    yield ", ".join([f"turn {number}", *(fact for fact in facts if fact)])
    yield from _part("thinking", exchange.get("thinking"), full)
    yield from _part("says", exchange.get("text"), full)
    calls, results = _list(exchange.get("calls")), _list(exchange.get("results"))
    for place in range(max(len(calls), len(results))):
        if place < len(calls):
            yield from _call(_mapping(calls[place]), full)
        if place < len(results):
            result = _mapping(results[place])
            yield from _part("refused" if result.get("is_error") else "result", result.get("text"), full)
    yield from _part("reply", exchange.get("words"), full)


def _call(call: Mapping[str, Any], full: bool) -> Iterator[str]:
    name, given = _short(call.get("name")), call.get("input")
    command = given.get("command") if isinstance(given, Mapping) else None
    if isinstance(given, Mapping) and command in ("view", "str_replace", "create", "insert"):
        yield f"call: {command} {_short(given.get('path'))}{_place(given)}"
        yield from _folded(_edit(given), _SHOWN["call"], full)
        return
    yield f"call: {name or 'an unnamed tool'}"
    yield from _folded(_fields(given), _SHOWN["call"], full)


def _place(given: Mapping[str, Any]) -> str:
    if given.get("command") == "view" and given.get("view_range"):
        return f" lines {_short(given['view_range'])}"
    return f" after line {_short(given.get('insert_line'))}" if given.get("command") == "insert" else ""


def _edit(given: Mapping[str, Any]) -> list[str]:
    """Show the lines that an editor call removes and adds, with little of the equal lines around them."""
    if given.get("command") == "view":
        return []
    names = {"str_replace": ("old_str", "new_str"), "create": ("", "file_text"), "insert": ("", "insert_text")}
    old_name, new_name = names[given["command"]]
    if given["command"] == "insert" and not isinstance(given.get("insert_text"), str):
        new_name = "new_str"
    old, new = _lines(given.get(old_name)), _lines(given.get(new_name))
    shared = min(len(old), len(new))
    head = next((i for i in range(shared) if old[i] != new[i]), shared)
    tail = next((i for i in range(shared - head) if old[-1 - i] != new[-1 - i]), shared - head)
    old_end, new_end = len(old) - tail, len(new) - tail
    return [
        *(f" {line}" for line in old[max(0, head - _CONTEXT_LINES) : head]),
        *(f"-{line}" for line in old[head:old_end]),
        *(f"+{line}" for line in new[head:new_end]),
        *(f" {line}" for line in old[old_end : old_end + _CONTEXT_LINES]),
    ]


def _fields(given: object) -> list[str]:
    """Show the input of any other tool: text as it is, the rest as JSON."""
    if not isinstance(given, Mapping):
        return [] if given is None else _split(_as_json(given))
    lines: list[str] = []
    for key, value in given.items():
        first, *others = _split(value if isinstance(value, str) else _as_json(value)) or [""]
        lines += [f"{key}: {first}", *(f"    {other}" for other in others)]
    return lines


def _as_json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return "(no JSON)"


def _part(name: str, text: object, full: bool) -> list[str]:
    """Return a heading and the text below it; nothing when there is no text."""
    lines = _split(text)
    return [f"{name}:", *_folded(lines, _SHOWN[name], full)] if lines else []


def _folded(lines: list[str], limit: int, full: bool) -> list[str]:
    # A single extra line is shown rather than counted.
    shown = lines if full or len(lines) <= limit + 1 else lines[:limit]
    made = [f"{BAR}{piece}".rstrip() for line in shown for piece in _cleaned(line, full)]
    return made if len(shown) == len(lines) else [*made, f"  … {len(lines) - len(shown):,} more lines"]


def _cleaned(line: str, full: bool) -> list[str]:
    if not full:
        cut = f" … {len(line) - WIDTH:,} more characters" if len(line) > WIDTH else ""
        return [clean(line[:WIDTH], 1, WIDTH) + cut]
    return [clean(line[start : start + _PIECE], 1, 2 * _PIECE) for start in range(0, len(line) or 1, _PIECE)]


def _split(text: object) -> list[str]:
    """Split a text into lines, without blank ones at its end."""
    return _lines(text.rstrip()) if isinstance(text, str) else []


def _lines(text: object) -> list[str]:
    if not isinstance(text, str) or not text:
        return []
    # A lone carriage return must not hide what stands before it.
    return text.replace("\r\n", "\n").replace("\r", REPLACEMENT).removesuffix("\n").split("\n")


def _usage(usage: Mapping[str, Any]) -> str:
    parts = []
    for name, word in (
        ("input_tokens", "input"),
        ("cache_read_tokens", "cached"),
        ("cache_write_tokens", "written to the cache"),
        ("output_tokens", "output"),
    ):
        count = usage.get(name)
        if type(count) is int and 0 < count < _MOST:
            parts.append(f"{tokens(count)} {word}")
    cost: Any = usage.get("cost_usd")
    if type(cost) in (int, float) and 0 <= cost < _MOST:
        parts.append(f"${cost:.4f}")
    return ", ".join(parts)


def _short(value: object) -> str:
    return one_line(value if isinstance(value, str) else "" if value is None else _as_json(value), 120)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
