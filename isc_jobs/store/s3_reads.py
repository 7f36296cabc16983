"""Many small objects of a bucket, each at a fifth of the CPU time that boto3 takes.

boto3 shows where requests go and how they are signed, and takes over what fails; kept connections of the standard
library carry the others.
"""

import base64
import hashlib
import http.client
import os
import re
import ssl
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit

import boto3
import botocore.session
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

from isc_jobs.store.s3 import CONNECT_S, READ_S, read_whole

_SCOPE = re.compile(r"^AWS4-HMAC-SHA256 Credential=[^/]+/\d+/([^/]+)/s3/aws4_request")
_PATIENCE = 20  # direct reads that may fail in a row
_CHECKSUMS: dict[str, Callable[[bytes], bytes]] = {
    "x-amz-checksum-crc32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "x-amz-checksum-sha1": lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
    "x-amz-checksum-sha256": lambda data: hashlib.sha256(data).digest(),
}


@dataclass(frozen=True)
class _Way:
    """Where boto3 sends its requests, and how it signs them."""

    base: str  # address before the key
    region: str
    credentials: Any  # None: unsigned
    connect: Callable[[], http.client.HTTPConnection]


class ObjectReader:
    """Reads whole objects of a bucket; safe in threads, each of which keeps a connection."""

    def __init__(self, client: Any, bucket: str, *, anonymous: bool) -> None:
        """``client`` is boto3's: it reads the first object and so shows the way. Nothing is asked yet."""
        self._client, self._bucket, self._anonymous = client, bucket, anonymous
        self._way: _Way | None = None
        self._failed = 0  # direct reads in a row
        self._thread = threading.local()
        client.meta.events.register("before-send.s3.GetObject", self._sent)

    def read(self, key: str) -> bytes:
        """The object's bytes. All but a plain success falls to boto3, and so its errors are raised.

        It repeats with backoff, follows redirects, renews credentials, and says what is wrong. Where direct reads fail
        again and again it does all.
        """
        way = self._way
        if way is not None and self._failed < _PATIENCE:
            data = self._read_directly(way, key)
            if data is not None:
                self._failed = 0
                return data
            self._failed += 1
        data = read_whole(lambda: bytes(self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()))
        if way is None and self._failed < _PATIENCE:
            self._way = self._found(key)
        return data

    def _sent(self, request: Any, **_: object) -> None:
        """What boto3 sends in this thread."""
        authorization = request.headers.get("Authorization", "")
        text = authorization.decode() if isinstance(authorization, bytes) else authorization
        self._thread.sent = request.url.partition("?")[0], text

    def _found(self, key: str) -> _Way | None:
        """The way of what boto3 has just read; None behind a proxy, and for signatures of another kind."""
        url, authorization = self._thread.sent
        scope, address = _SCOPE.search(authorization), urlsplit(url)
        credentials = None if self._anonymous else boto3.Session().get_credentials()
        encoded = quote(key, safe="/~")
        if get_environ_proxies(url) or not url.endswith(encoded) or (scope is None) != (credentials is None):
            self._failed = _PATIENCE
            return None
        return _Way(
            url.removesuffix(encoded), scope[1] if scope else "", credentials,
            _connector(address.scheme, address.hostname or "", address.port),
        )  # fmt: skip

    def _read_directly(self, way: _Way, key: str) -> bytes | None:
        url = way.base + quote(key, safe="/~")
        try:
            connection = self._connection(way)
            address = urlsplit(url)
            connection.request("GET", address.path, headers=self._signed(way, url))
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException):
            if hasattr(self._thread, "connection"):
                self._thread.connection.close()
                del self._thread.connection
            return None
        return data if answer.status == HTTPStatus.OK and _matches(answer, data) else None

    def _signed(self, way: _Way, url: str) -> dict[str, str]:
        """Headers of the request, which asks for the checksum too."""
        request = AWSRequest("GET", url, headers={"x-amz-checksum-mode": "ENABLED"})
        if way.credentials is not None:
            S3SigV4Auth(way.credentials.get_frozen_credentials(), "s3", way.region).add_auth(request)
        return dict(request.headers.items())

    def _connection(self, way: _Way) -> http.client.HTTPConnection:
        """Of this thread, opened when it is first used and when it was closed."""
        if not hasattr(self._thread, "connection"):
            self._thread.connection = way.connect()
        kept: http.client.HTTPConnection = self._thread.connection
        if kept.sock is None:
            _open(kept)
        return kept


def _open(connection: http.client.HTTPConnection) -> None:
    connection.connect()
    connection.sock.settimeout(READ_S)


def _connector(scheme: str, host: str, port: int | None) -> Callable[[], http.client.HTTPConnection]:
    """What makes connections, trusting whom boto3 trusts."""
    if scheme == "http":
        return lambda: http.client.HTTPConnection(host, port, timeout=CONNECT_S)
    bundle = botocore.session.get_session().get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")
    trusted = ssl.create_default_context(cafile=get_cert_path(bundle or True))
    return lambda: http.client.HTTPSConnection(host, port, timeout=CONNECT_S, context=trusted)


def _matches(answer: http.client.HTTPResponse, data: bytes) -> bool:
    """Whether the bytes have the checksum that the object was stored with, if it is one that botocore checks too."""
    for header, digest in _CHECKSUMS.items():
        stated = answer.getheader(header)
        if stated is not None and "-" not in stated:  # "sum-3" is of the sums of three parts
            return base64.b64encode(digest(data)).decode() == stated
    return True
