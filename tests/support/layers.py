"""A candidate's files, and what a layer made of them holds."""

from __future__ import annotations

import io
import tarfile

FILES = {
    "workload/train.py": b"print('hello')\n",
    "workload/model.py": b"",
    "workload/kernels/__init__.py": b"# \xc3\xa9\n",
    "workload/kernels/deep/er.txt": b"x" * 2000,
}


def members(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getmembers()
