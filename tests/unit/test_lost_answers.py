"""Requests whose answers are lost: servers of this machine that hang up."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, cast

import pytest
from kubernetes import client

from isc_jobs.controller.kubernetes.api import Api
from isc_jobs.spec.errors import TemporaryError
from isc_jobs.store import Conflict, open_store


class Forgetful(BaseHTTPRequestHandler):
    """An S3 server of one object, which does the first PUT and hangs up before it answers."""

    kept: bytes | None = None
    writer: str | None = None

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if type(self).kept is None:
            type(self).kept, type(self).writer = body, self.headers["x-amz-meta-isc-jobs-write"]
            self.connection.close()
            return
        self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")

    def do_HEAD(self) -> None:
        self._answer(200, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"tag"')
        if type(self).writer:
            self.send_header("x-amz-meta-isc-jobs-write", str(type(self).writer))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    Forgetful.kept = None
    server = ThreadingHTTPServer(("127.0.0.1", 0), Forgetful)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    yield address
    server.shutdown()
    server.server_close()


def test_a_conditional_write_that_was_done_is_not_taken_for_another_writers(server: str) -> None:
    store = open_store("s3://bucket/runs")
    assert store.put("lease.json", b"mine", if_none_match=True) == '"tag"'
    with pytest.raises(Conflict):
        store.put("lease.json", b"mine", if_none_match=True)  # refused at once: not this request's own doing
    with pytest.raises(Conflict):
        store.put("lease.json", b"other", if_match='"old"')


def test_an_api_server_that_is_away_while_a_log_is_read_is_temporary(server: str) -> None:
    api = object.__new__(Api)
    api.namespace = "isc-jobs"
    for address in ("http://127.0.0.1:1", server.replace("http", "https")):
        configuration: Any = client.Configuration(host=address)
        api._client = cast("Any", SimpleNamespace(client=client.ApiClient(configuration)))
        with pytest.raises(TemporaryError, match="the cluster does not answer"):
            api.pod_log("a-pod")
