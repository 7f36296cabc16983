"""The store in an S3 bucket, of any endpoint that has conditional writes."""

import functools
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import boto3
import botocore.session
from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    FlexibleChecksumError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ResponseStreamingError,
)
from typing_extensions import override

from isc_jobs.spec.address import check_no_credentials
from isc_jobs.spec.errors import TemporaryError, UsageError
from isc_jobs.store.port import (
    CONNECTIONS,
    PART_BYTES,
    Conflict,
    NotFound,
    ObjectInfo,
    Store,
    check_key,
    check_prefix,
)

_ABSENT = {"404", "NoSuchKey", "NotFound"}
_CONFLICT = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
_REFUSED = {
    "AccessDenied",
    "403",
    "Forbidden",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "NoSuchBucket",
    "InvalidBucketName",
}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_SILENT = {"400", "403"}  # what an answer to HEAD, which has no body, says of any refusal
CONNECT_S, READ_S = 10, 60
_SPOILT = (FlexibleChecksumError, IncompleteReadError, ResponseStreamingError)
_READINGS = 5  # of an object whose bytes come so
_WRITER = "isc-jobs-write"  # metadata by which a conditional write knows itself again
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_T = TypeVar("_T")
_TRANSFER = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=CONNECTIONS)


def s3_client(*, anonymous: bool = False) -> Any:
    """A client by the usual AWS variables; requests are retried with backoff.

    Raises UsageError for an endpoint that is no address, or that holds a password.
    """
    for name in _ENDPOINTS:
        check_no_credentials(name, os.environ.get(name, ""))
    config = Config(
        retries={"mode": "standard", "max_attempts": 5}, connect_timeout=CONNECT_S, read_timeout=READ_S,
        signature_version=UNSIGNED if anonymous else "s3v4",
    )  # fmt: skip
    try:
        return _session().client("s3", config=config, region_name=os.environ.get("AWS_REGION"))
    except ValueError as error:
        raise UsageError(f"{' or '.join(_ENDPOINTS)} is no address: expected as https://s3.example.com") from error


@functools.cache
def _session() -> Any:
    """Leaves times as text: nobody here reads them, and to parse them is most of the work of a long listing."""
    session = botocore.session.get_session()
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
    return boto3.Session(botocore_session=session)


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket, and prefix with a closing slash (or empty); raises UsageError."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise UsageError(f"{uri}: expected s3://bucket/prefix")
    prefix = prefix.strip("/")
    return bucket, f"{prefix}/" if prefix else ""


class S3Store(Store):
    """Objects under ``s3://bucket/prefix``."""

    def __init__(self, uri: str) -> None:
        """Use the address; the bucket must exist."""
        self.uri = uri.rstrip("/")
        self.bucket, self.prefix = split_uri(uri)
        self._clients = {os.getpid(): s3_client()}

    @property
    def _client(self) -> Any:
        """Of this process: one that a fork took over would share its connections with its parent."""
        process = os.getpid()
        if process not in self._clients:
            self._clients[process] = s3_client()
        return self._clients[process]

    @override
    def stat(self, key: str) -> ObjectInfo | None:
        try:
            with explained(self.uri, key):
                head = self._head(key)
        except NotFound:
            return None
        return ObjectInfo(key, int(head["ContentLength"]), str(head["ETag"]))

    def _head(self, key: str) -> Any:
        """Where HEAD is refused, the answer to GET is raised, which says why."""
        try:
            return self._client.head_object(**self._at(key))
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in _SILENT:
                self._client.get_object(**self._at(key))["Body"].close()
            raise

    @override
    def get(self, key: str) -> tuple[bytes, str]:
        with explained(self.uri, key):
            return read_whole(lambda: self._read(key))

    def _read(self, key: str) -> tuple[bytes, str]:
        answer = self._client.get_object(**self._at(key))
        return answer["Body"].read(), str(answer["ETag"])

    @override
    def put(self, key: str, data: bytes, *, if_none_match: bool = False, if_match: str | None = None) -> str:
        condition = {"IfNoneMatch": "*"} if if_none_match else {"IfMatch": if_match} if if_match else {}
        writer = uuid.uuid4().hex
        request: dict[str, Any] = {"Metadata": {_WRITER: writer}, **condition} if condition else {}
        try:
            with explained(self.uri, key, conditional=bool(condition)):
                answer = self._client.put_object(**self._at(key), Body=data, ChecksumAlgorithm="SHA256", **request)
                return str(answer["ETag"])
        except Conflict:
            written = self._written_before(key, writer)
            if written is None:
                raise
            return written

    def _written_before(self, key: str, writer: str) -> str | None:
        """The entity tag, if this very request was done before: its answer was lost, or it came twice on its way."""
        try:
            with explained(self.uri, key):
                head = self._client.head_object(**self._at(key))
        except NotFound:
            return None
        return str(head["ETag"]) if head.get("Metadata", {}).get(_WRITER) == writer else None

    @override
    def upload(self, key: str, path: Path) -> None:
        with explained(self.uri, key):
            at = self._at(key)
            extra = {"ChecksumAlgorithm": "SHA256"}
            try:
                self._client.upload_file(str(path), at["Bucket"], at["Key"], ExtraArgs=extra, Config=_TRANSFER)
            except S3UploadFailedError as error:  # hides the ClientError that says what failed
                raise error.__context__ or error from None

    @override
    def download(self, key: str, path: Path) -> None:
        at = self._at(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
        with explained(self.uri, key):
            read_whole(lambda: self._client.download_file(at["Bucket"], at["Key"], str(partial), Config=_TRANSFER))
        partial.replace(path)

    @override
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        for info in list_bucket(self._client, self.uri, self.bucket, self.prefix + check_prefix(prefix)):
            yield ObjectInfo(info.key.removeprefix(self.prefix), info.size, info.etag)

    @override
    def delete(self, key: str) -> None:
        with explained(self.uri, key):
            self._client.delete_object(**self._at(key))

    @override
    def link(self, key: str, kind: str, seconds: int) -> str:
        request = self._at(key) | {"ResponseContentType": kind}
        return str(self._client.generate_presigned_url("get_object", request, ExpiresIn=seconds))

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.prefix + check_key(key)}


def read_whole(read: Callable[[], _T]) -> _T:
    """Once more, and again, if what comes is cut or damaged: boto3 repeats no request for that."""
    for attempt in range(_READINGS - 1):
        try:
            return read()
        except _SPOILT:
            time.sleep(random.uniform(0.1, 0.2) * 2**attempt)
    return read()


def list_bucket(client: Any, uri: str, bucket: str, prefix: str) -> Iterator[ObjectInfo]:
    """Every object under the prefix, by full key, in S3's order (sorted), a page in memory at a time."""
    pages = iter(client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix))
    while True:
        with explained(uri, prefix):
            page = next(pages, None)
        if page is None:
            return
        for item in page.get("Contents", ()):
            yield ObjectInfo(str(item["Key"]), int(item["Size"]), str(item["ETag"]))


@contextmanager
def explained(uri: str, key: str, *, conditional: bool = False) -> Iterator[None]:
    """Turn the client's errors into this layer's, in a sentence without credentials."""
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _ABSENT and not conditional:
            raise NotFound(f"{uri}: no object {key}") from error
        if code in _CONFLICT or code in _ABSENT:
            raise Conflict(f"{uri}: {key} exists already or was changed by another writer") from error
        if code in _REFUSED:
            raise UsageError(f"{uri}: the S3 server refuses ({code}): check bucket, credentials and rights") from error
        if code in _EXPIRED:
            raise TemporaryError(
                f"{uri}: the credentials have expired ({code}): renew AWS_SESSION_TOKEN or log in again, and run again"
            ) from error
        if code == "RequestTimeTooSkewed":
            raise TemporaryError(
                f"{uri}: the clock of this machine is off by more than the S3 server allows ({code}): set it, and run "
                "again"
            ) from error
        raise TemporaryError(f"{uri}: the S3 server fails ({code}) on {key}: run again later") from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise UsageError(f"{uri}: no AWS credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from error
    except (BotoCoreError, OSError) as error:
        raise TemporaryError(f"{uri}: cannot reach the S3 server ({type(error).__name__}): run again later") from error
