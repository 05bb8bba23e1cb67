"""What a scripted model does: blocks of its answers, as the Messages API streams them."""

from __future__ import annotations

import itertools

from runner.proposers.researcher import experiments_tool, submit_tool
from runner.proposers.researcher.editor_tool import EDITOR
from tests.support import fake_anthropic as fake

_ids = itertools.count(1)


def edit(old, new, path="workload/train.py"):
    """Replaces text on the workbench."""
    return uses(EDITOR.name, {"command": "str_replace", "path": path, "old_str": old, "new_str": new})


def create(path, text):
    """Writes a whole file."""
    return uses(EDITOR.name, {"command": "create", "path": path, "file_text": text})


def view(path="workload/train.py"):
    """Trials at a file."""
    return uses(EDITOR.name, {"command": "view", "path": path})


def look_up(**wanted):
    """Reads past experiments."""
    return uses(experiments_tool.TOOL.name, wanted)


def submits(hypothesis="A higher learning rate trains faster.", category="optimizer", **changes):
    """Submits what is on the workbench."""
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
    """Thinks, then calls tools."""
    return fake.message(fake.THINKING, *blocks, **{"stop_reason": "tool_use", **options})


def proposes(old, new, path="workload/train.py", usage=None, **submitted):
    """Everything in one answer: an edit and its submission."""
    return answer(edit(old, new, path), submits(**submitted), usage=usage)
