"""Credentials that expire, and clocks that are off: what is said, by which exit code, and what goes on by itself."""

import datetime as dt
import json
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from fault_proxy import Fault, FaultProxy, answer
from kubernetes import config
from stores import s3
from tally import record
from test_s3_faults import proxy

from isc_jobs.controller.kubernetes.api import Api
from isc_jobs.spec.errors import IscJobsError, TemporaryError, UsageError
from isc_jobs.store import open_store
from isc_jobs.store.port import Store
from isc_jobs.store.source import open_source

__all__ = ["proxy", "s3"]

REFUSALS = [
    (answer(400, "ExpiredToken"), TemporaryError, r"credentials have expired \(ExpiredToken\): renew"),
    (answer(403, "ExpiredToken"), TemporaryError, r"credentials have expired \(ExpiredToken\): renew"),
    (answer(403, "RequestTimeTooSkewed"), TemporaryError, "clock of this machine is off .*: set it"),
    (answer(403, "InvalidAccessKeyId"), UsageError, r"refuses \(InvalidAccessKeyId\): check bucket, credentials"),
]
REQUESTS: dict[str, Callable[[Store], object]] = {
    "HEAD": lambda store: store.stat("old"), "GET": lambda store: store.get("old"),
    "PUT": lambda store: store.put("new", b"1"), "LIST": lambda store: list(store.list("")),
    "DELETE": lambda store: store.delete("old"),
}  # fmt: skip


@pytest.mark.parametrize(("fault", "kind", "said"), REFUSALS, ids=lambda value: getattr(value, "name", ""))
@pytest.mark.parametrize("request_", REQUESTS)
def test_each_request_says_why_the_server_refuses(
    proxy: FaultProxy, tmp_path: Path, request_: str, fault: Fault, kind: type[IscJobsError], said: str
) -> None:
    store = open_store(f"s3://bucket/{tmp_path.name}")
    store.put("old", b"1")
    proxy.choose = lambda _method, _path: fault
    with pytest.raises(kind, match=said):
        REQUESTS[request_](store)
    proxy.choose = lambda _method, _path: None
    assert store.get("old")[0] == b"1"
    record(f"S3: {fault.name}, said", lost=0, repeated=0, seconds=0)


class _Quiet(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def reply(self, code: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def served(do_get: Callable[[Any], None], context: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port of a server that answers GET so."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Quiet,), {"do_GET": do_get}))
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("fresh_credentials")
def test_renewed_credentials_are_used_without_a_new_start(
    s3: str, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a node or a pod gets them: from an address, for a while, and then others."""
    valid, pass_on = ["KEY1"], proxy.handle

    def give(handler: _Quiet) -> None:
        until = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=5)
        handler.reply(200, {"AccessKeyId": valid[0], "SecretAccessKey": "s", "Token": "t",
                            "Expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ")})  # fmt: skip

    def check(request: Any) -> None:
        if f"Credential={valid[0]}/" in request.headers.get("Authorization", ""):
            pass_on(request)
        else:
            request.rfile.read(int(request.headers.get("Content-Length") or 0))
            request.reply(400, (), b"<Error><Code>ExpiredToken</Code></Error>")

    with served(give) as port:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{port}/")
        monkeypatch.setattr(proxy, "handle", check)
        store, source = open_store(f"{s3}/{tmp_path.name}"), open_source(f"{s3}/{tmp_path.name}")
        for number in range(1, 5):
            valid[0] = f"KEY{number}"
            began = time.monotonic()
            store.put(f"{number}", b"1")
            assert store.stat(f"{number}") is not None
            assert [source.read(f"{number}") for _ in range(2)] == [b"1", b"1"]  # by boto3, and beside it
            record("S3: credentials renewed", lost=0, repeated=0, seconds=time.monotonic() - began)


@pytest.mark.usefixtures("fresh_credentials")
def test_a_pod_takes_the_role_that_its_service_account_is_bound_to(
    s3: str, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a managed cluster: a token in a file and the name of a role, no keys; STS gives them for the token."""
    asked, pass_on = [], proxy.handle

    def note(request: Any) -> None:
        asked.append((request.headers["Authorization"], request.headers["x-amz-security-token"]))
        pass_on(request)

    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", proxy._upstream.geturl())
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "token").write_text("token.of.the-account")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/isc-jobs-stage")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setattr(proxy, "handle", note)
    store, source = open_store(f"{s3}/{tmp_path.name}"), open_source(f"{s3}/{tmp_path.name}")
    store.put("1", b"1", if_none_match=True)
    assert source.read("1") == b"1"
    assert len(asked) >= 2
    assert all("Credential=ASIA" in signed and token for signed, token in asked)


def kubeconfig(path: Path, port: int) -> Path:
    named = {"cluster": "c", "user": "u"}
    path.write_text(yaml.safe_dump({
        "apiVersion": "v1", "kind": "Config", "current-context": "x", "contexts": [{"name": "x", "context": named}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {"token": "old"}}],
    }))  # fmt: skip
    return path


POD = {"name": "pods", "kind": "Pod", "namespaced": True, "verbs": ["list", "get"], "singularName": ""}
PODS = {"kind": "PodList", "items": [], "versions": ["v1"], "groups": [], "resources": [POD]}  # and how they are found


def refuse(handler: _Quiet, code: int = 401) -> None:
    handler.reply(code, {"kind": "Status", "code": code, "reason": "Unauthorized", "message": "Unauthorized"})


def test_an_api_server_that_knows_the_token_no_more_is_temporary_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(refuse) as port:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", port)))
        monkeypatch.setattr(config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config"))
        with pytest.raises(TemporaryError, match=r"401, .* they have expired") as raised:
            Api("isc-jobs")
    assert "renew them (log in again" in str(raised.value)
    record("API server: 401 Unauthorized, said", lost=0, repeated=0, seconds=0)


def test_a_right_that_is_withdrawn_is_said_in_the_servers_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = 'pods is forbidden: User "u" cannot list resource "pods" in the namespace "isc-jobs"'

    def forbid(handler: _Quiet) -> None:
        if "/pods" in handler.path:
            handler.reply(403, {"kind": "Status", "code": 403, "reason": "Forbidden", "message": message})
        else:
            handler.reply(200, PODS)

    with served(forbid) as port:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", port)))
        monkeypatch.setattr(config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config"))
        with pytest.raises(UsageError, match=f"cluster refuses Pod: {message}"):
            Api("isc-jobs").list("v1", "Pod")
    record("API server: 403 Forbidden, said", lost=0, repeated=0, seconds=0)


def test_a_service_accounts_token_is_read_again_when_it_was_rotated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    valid, asked = ["one"], []

    def check(handler: _Quiet) -> None:
        asked.append(handler.headers["Authorization"])
        if asked[-1].lower() != f"bearer {valid[0]}":
            refuse(handler)
        else:
            handler.reply(200, PODS)

    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1",
            "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key", "-out", "ca"]  # fmt: skip
    subprocess.run(made, cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "ca", tmp_path / "key")
    (tmp_path / "token").write_text("one")
    loader: Any = config.incluster_config.InClusterConfigLoader  # untyped
    begin: Any = loader.__init__

    def begin_short(self: Any, *arguments: Any, **options: Any) -> None:
        begin(self, *arguments, **options)
        self._token_refresh_period = dt.timedelta(0)  # a minute otherwise

    monkeypatch.setattr(loader, "__init__", begin_short)
    monkeypatch.setattr(config.incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(config.incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca"))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    with served(check, context) as port:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(port))
        api = Api("isc-jobs")
        assert api.list("v1", "Pod") == []
        (tmp_path / "token").write_text("two")
        valid[0] = "two"
        assert api.list("v1", "Pod") == []
    assert asked[-1].lower() == "bearer two"
    record("API server: token rotated", lost=0, repeated=0, seconds=0)
