"""A loopback server that answers like the Hugging Face Hub, with failures on demand."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from runner.corpus import climbmix

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """A loopback server with the Hub's addresses, headers and redirects, and troubles on demand."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.files = {climbmix.shard_name(number): random.bytes(300_000 + number) for number in (0, 1, 2, 6542)}
        self.requests: Counter[str] = Counter()
        self.ranges: list[str] = []
        self.authorizations: list[tuple[str, str | None]] = []
        self.revisions: set[str] = set()
        self.cuts: dict[str, list[int]] = {}  # bytes after which the next answers break off
        self.spoiled: Counter[str] = Counter()  # how many of the next answers carry wrong bytes
        self.statuses: dict[str, list[int]] = {}  # what the next HEAD requests get instead
        self.ranged = True
        self.hashes = True
        self.stall = threading.Event()  # set: answers stop in the middle until `resume`
        self.resume = threading.Event()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                hub.head(self)

            def do_GET(self) -> None:
                if self.path.startswith("/cdn/"):
                    hub.content(self)
                else:
                    hub.head(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.resume.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def head(self, request: BaseHTTPRequestHandler) -> None:
        found = re.fullmatch(
            r"/datasets/karpathy/climbmix-400b-shuffle/resolve/([^/]+)/(shard_\d{5}\.parquet)", request.path
        )
        self.authorizations.append(("hub", request.headers["Authorization"]))
        if request.path.startswith("/cdn/"):
            request.send_response(200)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        name = found[2] if found else ""
        self.requests[request.command] += 1
        status = self.statuses[name].pop(0) if self.statuses.get(name) else 302
        if name not in self.files:
            status = 404
        request.send_response(status)
        if status == 302:
            self.revisions.add(found[1])
            request.send_header("Location", f"http://localhost:{self.server.server_address[1]}/cdn/{name}")
            request.send_header("X-Repo-Commit", COMMIT)
            if self.hashes:
                digest = hashlib.sha256(self.files[name]).hexdigest()
                request.send_header("X-Linked-ETag", f'"{digest}"')
            request.send_header("X-Linked-Size", str(len(self.files[name])))
        request.send_header("Content-Length", "0")
        request.end_headers()

    def content(self, request: BaseHTTPRequestHandler) -> None:
        name = request.path.removeprefix("/cdn/")
        self.authorizations.append(("content", request.headers["Authorization"]))
        self.requests[name] += 1
        body = self.files[name]
        if self.spoiled[name]:
            self.spoiled[name] -= 1
            body = bytes(len(body))
        offset = 0
        asked = request.headers.get("Range", "")
        self.ranges.append(asked)
        if self.ranged and asked:
            offset = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
        request.send_response(206 if offset else 200)
        if offset:
            request.send_header("Content-Range", f"bytes {offset}-{len(body) - 1}/{len(body)}")
        request.send_header("Content-Length", str(len(body) - offset))
        request.end_headers()
        piece = body[offset:]
        if self.cuts.get(name):
            request.wfile.write(piece[: self.cuts[name].pop(0)])
            request.wfile.flush()
            request.connection.shutdown(socket.SHUT_RDWR)
            request.close_connection = True
        elif self.stall.is_set():
            request.wfile.write(piece[:1000])
            request.wfile.flush()
            self.resume.wait(20)
            request.close_connection = True
        else:
            request.wfile.write(piece)
