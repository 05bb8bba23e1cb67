"""A scratch copy of three files, and calls of its editor that must succeed or must be refused."""

from __future__ import annotations

from runner.edits import Refusal

MODEL = "workload/model.py"
TRAIN = "workload/train.py"
NOTES = "workload/notes/plan.txt"
FILES = {
    MODEL: b"WIDTH = 64\nDEPTH = 2\n",
    TRAIN: "".join(f"step_{number} = {number}\n" for number in range(1, 41)).encode(),
    NOTES: b"no line end",
}


def did(scratch, **call):
    reply = scratch.edit(call)
    assert isinstance(reply, str), reply
    return reply


def refused(scratch, **call):
    before = dict(scratch.files)
    reply = scratch.edit(call)
    assert isinstance(reply, Refusal), reply
    assert scratch.files == before
    assert reply.reason.isprintable() and len(reply.reason) < 500
    return reply.reason


def view(scratch, path, **more):
    return did(scratch, command="view", path=path, **more)
