"""An HTTP proxy that stands in front of a real server and spoils what passes, as it is told.

Requests are passed on as they came, signatures included, and answers in pieces, so that watches work.
"""

import http.client
import select
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass(frozen=True)
class Fault:
    """What happens to a request: it may reach the server once, twice or not, and its answer be spoiled or not."""

    name: str
    forwards: int = 0  # how often the request reaches the server
    status: int = 0  # of an answer of our own
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    resets: bool = False  # the connection, instead of an answer
    seconds: float = 0.0  # before the answer
    keeps: float = 1.0  # share of the answer's body that comes, before the connection ends
    damages: bool = False  # a byte of the answer's body


def answer(status: int, code: str, **headers: str) -> Fault:
    """An S3 server's or API server's own error."""
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>as told</Message></Error>'.encode()
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Fault(f"{status} {code}", status=status, body=body, headers=named)


RESET = Fault("connection reset", resets=True)
LOST = Fault("answer lost after success", forwards=1, resets=True)
TWICE = Fault("request done twice", forwards=2)
SLOW = Fault("answer a second late", forwards=1, seconds=1.0)
TRUNCATED = Fault("answer cut in half", forwards=1, keeps=0.5)
DAMAGED = Fault("a byte of the answer damaged", forwards=1, damages=True)
INTERNAL = answer(500, "InternalError")
SLOW_DOWN = answer(503, "SlowDown")
TOO_MANY = answer(429, "TooManyRequests", Retry_After="1")
Choose = Callable[[str, str], Fault | None]  # by method and path


class _Server(ThreadingHTTPServer):
    """Says nothing of connections that were cut."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class FaultProxy:
    """Listens on a port of this machine while it is open."""

    def __init__(self, upstream: str, context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        """In front of the server of this address; ``context`` for one with TLS, ``host`` is where it listens."""
        self.choose: Choose = lambda _method, _path: None
        self.spoilt: list[str] = []
        self.connections: set[socket.socket] = set()  # that are open
        self._upstream, self._context, self._host = urlsplit(upstream), context, host
        self._server: _Server | None = None
        self.port = 0

    @property
    def address(self) -> str:
        """Where clients find it."""
        return f"http://{self._host}:{self.port}"

    def open(self) -> None:
        """Listen, on the port of before if there was one."""
        proxy = self

        class Handler(_Handler):
            """Of this proxy."""

            def setup(self) -> None:
                super().setup()
                proxy.connections.add(self.connection)

            def finish(self) -> None:
                proxy.connections.discard(self.connection)
                with suppress(OSError):  # it was cut
                    super().finish()

            def pass_on(self) -> None:
                proxy.handle(self)

        self._server = _Server((self._host, self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        """Refuse connections, and cut those that are open."""
        assert self._server is not None
        self._server.shutdown()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()

    def handle(self, request: "_Handler") -> None:
        """Pass a request on, and its answer back, spoilt or not."""
        fault = self.choose(request.command, request.path)
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if fault is None:
            self._relay(request, body, None)
            return
        self.spoilt.append(fault.name)
        if fault.status:
            request.reply(fault.status, fault.headers, fault.body)
            return
        for _ in range(fault.forwards - 1 if not fault.resets else fault.forwards):
            connection, response = self._ask(request, body)
            response.read()
            connection.close()
        if fault.resets:
            request.reset()
            return
        self._relay(request, body, fault)

    def _ask(self, request: "_Handler", body: bytes) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        place = (self._upstream.hostname or "", self._upstream.port)
        connection = (
            http.client.HTTPSConnection(*place, context=self._context, timeout=600)
            if self._context else http.client.HTTPConnection(*place, timeout=600)
        )  # fmt: skip
        connection.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
        for name, value in request.headers.items():
            if name.lower() not in _HOP:
                connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        return connection, connection.getresponse()

    def _relay(self, request: "_Handler", body: bytes, fault: Fault | None) -> None:
        connection, response = self._ask(request, body)
        try:
            if fault is None:
                request.stream(response)
                return
            time.sleep(fault.seconds)
            content = response.read()
            if fault.damages and content:
                content = content[:-1] + bytes([content[-1] ^ 1])
            request.reply(response.status, response.getheaders(), content, keeps=fault.keeps)
        finally:
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def pass_on(self) -> None:
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self.pass_on
        raise AttributeError(name)

    def stream(self, response: http.client.HTTPResponse) -> None:
        """An answer of any length as it comes."""
        length = response.getheader("Content-Length")
        self._head(response.status, response.getheaders())
        bodiless = self.command == "HEAD" or response.status in {204, 304}
        if length is not None or bodiless:
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            self.wfile.write(b"" if bodiless else response.read())
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while piece := response.read1(65536):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            if select.select([self.connection], [], [], 0)[0]:  # the client has gone
                break
        self.wfile.write(b"0\r\n\r\n")

    def reply(self, status: int, headers: Any, body: bytes, *, keeps: float = 1.0) -> None:
        """An answer at once; with less than all of it the connection ends before its stated length."""
        self._head(status, headers)
        if self.command == "HEAD":
            stated = dict(headers).get("Content-Length", "0")
            self.send_header("Content-Length", stated)
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: int(len(body) * keeps)])
        if keeps < 1:
            self.close_connection = True

    def reset(self) -> None:
        """End the connection with RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def _head(self, status: int, headers: Any) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _HOP:
                self.send_header(name, value)

    def handle(self) -> None:
        try:
            super().handle()
        except (OSError, ValueError):  # the client has gone, or was sent away
            self.close_connection = True

    def finish(self) -> None:
        try:
            super().finish()
        except (OSError, ValueError):
            return

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def fault_proxy(upstream: str, context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[FaultProxy]:
    """An open proxy."""
    proxy = FaultProxy(upstream, context, host)
    proxy.open()
    try:
        yield proxy
    finally:
        proxy.close()
