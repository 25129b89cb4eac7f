"""Connections to one host that are kept and used again; any thread, one request of each at a time.

http.client as it is, since a request through urllib3 takes twice its time on the processor. No proxies.
"""

import os
import select
import socket
import ssl
import time
import weakref
from collections import deque
from collections.abc import Mapping
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPMessage, HTTPSConnection
from urllib.parse import urlsplit

#: One that has rested for longer may have been closed by the other side: it is asked first.
FRESH_SECONDS = 1.0


class ConnectFailed(OSError):
    """No connection was made, so nothing was sent."""


class Connections:
    """As many as are used at the same time; the one that was used last is used next."""

    def __init__(self, url: str, *, connect_seconds: float, read_seconds: float, tls: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port
        self._connect_seconds = connect_seconds
        self._read_seconds = read_seconds
        self._tls = tls
        self._resting: deque[tuple[HTTPConnection, float]] = deque()
        self._made: weakref.WeakSet[HTTPConnection] = weakref.WeakSet()
        weakref.finalize(self, _close, self._resting)
        os.register_at_fork(after_in_child=partial(_close_copies, self._made))

    def post(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, HTTPMessage, bytes]:
        """Post to the root; gives status, headers and body. Raises ConnectFailed, another OSError or HTTPException."""
        connection = self._take()
        try:
            connection.request("POST", "/", body, headers)
            response = connection.getresponse()
            data = response.read()
        except (OSError, HTTPException):
            connection.close()
            raise
        if response.will_close:
            connection.close()
        else:
            self._resting.append((connection, time.monotonic()))
        return response.status, response.headers, data

    def _take(self) -> HTTPConnection:
        while self._resting:
            try:
                connection, since = self._resting.pop()
            except IndexError:  # another thread was faster
                break
            if time.monotonic() - since < FRESH_SECONDS or _is_open(connection):
                return connection
            connection.close()
        return self._connected()

    def _connected(self) -> HTTPConnection:
        connection: HTTPConnection
        if self._tls is None:
            connection = HTTPConnection(self._host, self._port, timeout=self._connect_seconds)
        else:
            connection = HTTPSConnection(self._host, self._port, timeout=self._connect_seconds, context=self._tls)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            if isinstance(error, ssl.SSLError):
                raise
            raise ConnectFailed(str(error)) from error
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.sock.settimeout(self._read_seconds)
        self._made.add(connection)
        return connection


def _is_open(connection: HTTPConnection) -> bool:
    """Tell whether it may be used again: what comes unasked is the other side's end of it."""
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return not poll.poll(0)


def _close(resting: deque[tuple[HTTPConnection, float]]) -> None:
    for connection, _ in resting:
        connection.close()


def _close_copies(made: weakref.WeakSet[HTTPConnection]) -> None:
    """Keep nothing open in the child of a job that forked: a long poll would outlive its worker, and take messages."""
    for connection in made:
        if connection.sock:
            os.close(connection.sock.detach())
