"""What may lie where the checkpoint should be. PID 1 of the scorer opens it, as root; the host never does."""

from __future__ import annotations

from tests.hostile.behaviors import denied

CHECKPOINTS = [
    denied(
        "a link to the sealed rows",
        "PID 1 could read what lies behind it.",
        "import os\nos.symlink('/rows/rows.npy', '/out/checkpoint')",
        scored=False,
    ),
    denied(
        "a link to a secret of root's",
        "Files that only root reads, by way of root's copy.",
        "import os\nos.symlink('/proc/1/environ', '/out/checkpoint')",
        scored=False,
    ),
    denied(
        "a link to itself",
        "Following it never ends.",
        "import os\nos.symlink('checkpoint', '/out/checkpoint')",
        scored=False,
    ),
    denied(
        "a pipe with a name",
        "Who opens it to read waits for a writer who never comes.",
        "import os\nos.mkfifo('/out/checkpoint')",
        scored=False,
    ),
    denied(
        "a socket",
        "No file at all.",
        "import socket\nsocket.socket(socket.AF_UNIX).bind('/out/checkpoint')",
        scored=False,
    ),
    denied(
        "a device",
        "/dev/zero never ends. It cannot be made, so nothing lies there.",
        """
        import os, stat
        try: os.mknod("/out/checkpoint", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
        except PermissionError: print("denied")
        """,
        log="denied",
        scored=False,
    ),
    denied(
        "a hard link to a locked file",
        "Another file system: it cannot be made.",
        """
        import os
        for path in ("/locked/locked_eval/judging/judge.py", "/data/shard-00.bin", "/etc/shadow"):
            try: os.link(path, "/out/checkpoint")
            except OSError: print("denied")
        """,
        log="denied\ndenied\ndenied",
        scored=False,
    ),
    denied("a folder", "Full of folders.", "import os\nos.makedirs('/out/checkpoint/a/b/c')", scored=False),
    denied(
        "a file that no one may read",
        "PID 1 has no right to pass over modes.",
        "import os\nos.close(os.open('/out/checkpoint', os.O_CREAT | os.O_WRONLY, 0))",
        scored=False,
    ),
    denied(
        "a hole that is larger than the scorer's memory",
        "It takes no room where it lies, and all of it where it is copied to.",
        """
        import os
        with open("/out/checkpoint", "wb") as file: file.truncate(257 * 2**20)
        print(os.stat("/out/checkpoint").st_blocks)
        """,
        log="0\n",
        scored=False,
    ),
    denied(
        "odd names beside it",
        "As long as they may be, of bytes that are no text, options, commands, control characters.",
        """
        import os
        from pathlib import Path
        names = [b"x" * 255, b"\\xff\\xfe", b"a\\nb", b"\\x1b[2J"]
        names += [b"-rf", b"--help", b"$(reboot)", b"; rm -rf *", b"..."]
        for name in names: os.close(os.open(b"/out/" + name, os.O_CREAT | os.O_WRONLY))
        os.makedirs("/out/" + "/".join(["deep"] * 500))
        Path("/out/checkpoint").write_text("x")
        print(len(os.listdir("/out")))
        """,
        log="11\n",
        scored=True,
    ),
    denied(
        "thousands of files beside it",
        "Until there is no inode left.",
        """
        from pathlib import Path
        Path("/out/checkpoint").write_text("x")
        try:
            for number in range(10_000): Path("/out", str(number)).touch()
        except OSError as error: print(error.strerror)
        """,
        log="No space left on device",
        scored=True,
    ),
]
