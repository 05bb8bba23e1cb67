"""Answers of a scripted model, as content blocks of the Messages API."""

from __future__ import annotations

import itertools

from runner.proposers.researcher import experiments_tool, submit_tool
from runner.proposers.researcher.editor_tool import EDITOR
from tests.support import fake_anthropic as fake

_ids = itertools.count(1)


def edit(old, new, path="workload/train.py"):
    """Replace text in the scratch copy."""
    return uses(EDITOR.name, {"command": "str_replace", "path": path, "old_str": old, "new_str": new})


def create(path, text):
    """Write a whole file."""
    return uses(EDITOR.name, {"command": "create", "path": path, "file_text": text})


def view(path="workload/train.py"):
    """View a file."""
    return uses(EDITOR.name, {"command": "view", "path": path})


def look_up(**wanted):
    """Read past experiments."""
    return uses(experiments_tool.TOOL.name, wanted)


def submits(hypothesis="A higher learning rate trains faster.", category="optimizer", **changes):
    """Submit the scratch copy."""
    wanted = {
        "hypothesis": hypothesis,
        "category": category,
        "expected_delta_bpb": -0.01,
        "probability": 0.25,
        "risk": "It diverges.",
        "delete": [],
        **changes,
    }
    return uses(submit_tool.NAME, wanted)


def uses(name, wanted):
    """A call of a tool."""
    return {"type": "tool_use", "id": f"toolu_{next(_ids)}", "name": name, "input": wanted}


def answer(*blocks, **options):
    """Think, then call tools."""
    return fake.message(fake.THINKING, *blocks, **{"stop_reason": "tool_use", **options})


def proposes(old, new, path="workload/train.py", usage=None, **submitted):
    """An edit and its submission in one answer."""
    return answer(edit(old, new, path), submits(**submitted), usage=usage)
