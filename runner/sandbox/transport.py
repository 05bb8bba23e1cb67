"""Docker clients whose time limit covers the whole answer to a request.

The time limit of `requests` restarts with every byte received, so an engine that sends a byte now and then would
hold us indefinitely. Here the whole answer must arrive within the limit.
"""

from __future__ import annotations

import os
import socket
import time
import weakref
from typing import Any

import docker
from docker.transport.unixconn import UnixHTTPAdapter, UnixHTTPConnection, UnixHTTPConnectionPool

OLDEST_API = "1.41"
"""API version of the oldest supported engine; an engine is asked for its own version without naming one."""


class _TimedSocket(socket.socket):
    """A socket with one deadline for all of its reads."""

    deadline: float | None = None

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        if self.deadline is not None:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("the whole answer took too long")
            self.settimeout(left)
        return super().recv_into(*arguments, **options)

    def end(self) -> None:
        """Close it now, although an answer that was not read to its end may still hold it."""
        fd = self.detach()
        if fd >= 0:
            os.close(fd)


class _TimedConnection(UnixHTTPConnection):  # type: ignore[misc]  # docker-py has no types
    """A connection that limits the whole answer, or only the head of a stream, which may stay silent for long."""

    streams: bool
    limit_seconds: float
    sockets: weakref.WeakSet[_TimedSocket]

    def connect(self) -> None:
        self.sock = _TimedSocket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sockets.add(self.sock)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.unix_socket)

    def getresponse(self) -> Any:
        sock: _TimedSocket = self.sock  # the response may close the connection, but keeps reading from this
        # docker-py attaches without any limit.
        sock.deadline = time.monotonic() + (self.limit_seconds if self.timeout is None else self.timeout)
        response = super().getresponse()
        if self.streams:
            sock.deadline = None
            sock.settimeout(None)
        return response


class _TimedPool(UnixHTTPConnectionPool):  # type: ignore[misc]
    streams: bool
    sockets: weakref.WeakSet[_TimedSocket]

    def _new_conn(self) -> _TimedConnection:
        connection = _TimedConnection(self.base_url, self.socket_path, self.timeout)
        connection.streams = self.streams
        connection.limit_seconds = self.timeout
        connection.sockets = self.sockets
        return connection


class _TimedAdapter(UnixHTTPAdapter):  # type: ignore[misc]
    def __init__(self, url: str, timeout_seconds: float, streams: bool) -> None:
        super().__init__(url.replace("unix://", "http+unix://"), timeout_seconds)
        self.streams = streams
        self.sockets: weakref.WeakSet[_TimedSocket] = weakref.WeakSet()

    def close(self) -> None:
        """Close every connection, also those that docker-py forgets because it did not read the whole answer."""
        super().close()
        for sock in list(self.sockets):
            sock.end()

    def get_connection(self, url: str, proxies: Any = None) -> _TimedPool:
        with self.pools.lock:
            pool: _TimedPool | None = self.pools.get(url)
            if pool is None:
                pool = self.pools[url] = _TimedPool(
                    url, self.socket_path, self.timeout, maxsize=self.max_pool_size
                )
                pool.streams = self.streams
                pool.sockets = self.sockets
        return pool


def open_client(
    url: str, timeout_seconds: float, *, api_version: str = OLDEST_API, streams: bool = False
) -> docker.DockerClient:
    """Open a client with a time limit per request. Nothing is sent yet.

    Args:
        url: `unix://…`.
        streams: apply the limit to the head of an answer only.
    """
    client = docker.DockerClient(base_url=url, timeout=timeout_seconds, version=api_version)
    client.api.mount("http+docker://", _TimedAdapter(url, timeout_seconds, streams))
    return client
