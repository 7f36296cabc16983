"""Many small objects of a bucket, each at a fifth of the CPU time that boto3 takes.

botocore finds endpoint and credentials and signs; kept connections of the standard library carry the requests.
"""

import base64
import hashlib
import http.client
import ssl
import threading
import zlib
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit

import boto3
import botocore.session
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

from isc_jobs.store.s3 import READ_S

_EXAMPLE = "key"
_CHECKSUMS: dict[str, Callable[[bytes], bytes]] = {
    "x-amz-checksum-crc32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "x-amz-checksum-sha1": lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
    "x-amz-checksum-sha256": lambda data: hashlib.sha256(data).digest(),
}


class ObjectReader:
    """Reads whole objects of a bucket; safe in threads, each of which keeps a connection."""

    def __init__(self, client: Any, bucket: str, *, anonymous: bool) -> None:
        """``client`` is boto3's; nothing is sent yet."""
        self._client, self._bucket = client, bucket
        self._credentials = None if anonymous else boto3.Session().get_credentials()
        url: str = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": _EXAMPLE})
        self._base = url.partition("?")[0].removesuffix(_EXAMPLE)
        address = urlsplit(self._base)
        self._origin = f"{address.scheme}://{address.netloc}"
        self._connect = _connector(address.scheme, address.hostname or "", address.port)
        # Behind a proxy, and without credentials, which is an error, all falls to boto3.
        self._direct = not get_environ_proxies(self._base) and (anonymous or self._credentials is not None)
        self._thread = threading.local()

    def read(self, key: str) -> bytes:
        """The object's bytes. All but a plain success falls to boto3, and so its errors are raised.

        It repeats with backoff, follows redirects, renews credentials, and says what is wrong.
        """
        data = self._read_directly(key) if self._direct else None
        if data is None:
            return bytes(self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read())
        return data

    def _read_directly(self, key: str) -> bytes | None:
        url = self._base + quote(key, safe="/~")
        try:
            connection = self._connection()
            connection.request("GET", url.removeprefix(self._origin), headers=self._signed(url))
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException):
            self._connection().close()
            del self._thread.connection
            return None
        return data if answer.status == HTTPStatus.OK and _matches(answer, data) else None

    def _signed(self, url: str) -> dict[str, str]:
        """Headers of the request, which asks for the checksum too."""
        request = AWSRequest("GET", url, headers={"x-amz-checksum-mode": "ENABLED"})
        if self._credentials is not None:
            frozen = self._credentials.get_frozen_credentials()
            S3SigV4Auth(frozen, "s3", self._client.meta.region_name).add_auth(request)
        return dict(request.headers.items())

    def _connection(self) -> http.client.HTTPConnection:
        """Of this thread; http.client opens it when it is first used, and again when it was closed."""
        if not hasattr(self._thread, "connection"):
            self._thread.connection = self._connect()
        kept: http.client.HTTPConnection = self._thread.connection
        return kept


def _connector(scheme: str, host: str, port: int | None) -> Callable[[], http.client.HTTPConnection]:
    """What makes connections, trusting whom boto3 trusts."""
    if scheme == "http":
        return lambda: http.client.HTTPConnection(host, port, timeout=READ_S)
    bundle = botocore.session.get_session().get_config_variable("ca_bundle")
    trusted = ssl.create_default_context(cafile=get_cert_path(bundle or True))
    return lambda: http.client.HTTPSConnection(host, port, timeout=READ_S, context=trusted)


def _matches(answer: http.client.HTTPResponse, data: bytes) -> bool:
    """Whether the bytes have the checksum that the object was stored with, if it is one that botocore checks too."""
    for header, digest in _CHECKSUMS.items():
        stated = answer.getheader(header)
        if stated is not None and "-" not in stated:  # "sum-3" is of the sums of three parts
            return base64.b64encode(digest(data)).decode() == stated
    return True
