"""The store in an S3 bucket, of any endpoint that has conditional writes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from boto3.s3.transfer import TransferConfig
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from isc_jobs.spec.errors import TemporaryError, UsageError
from isc_jobs.store.port import CONNECTIONS, PART_BYTES, Conflict, NotFound, ObjectInfo, check_key

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
CONNECT_S, READ_S = 10, 60
_TRANSFER = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=CONNECTIONS)


def s3_client(*, anonymous: bool = False) -> Any:
    """A client by the usual AWS variables; requests are retried with backoff."""
    config = Config(
        retries={"mode": "standard", "max_attempts": 5}, connect_timeout=CONNECT_S, read_timeout=READ_S,
        signature_version=UNSIGNED if anonymous else "s3v4",
    )  # fmt: skip
    return boto3.client("s3", config=config, region_name=os.environ.get("AWS_REGION"))


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket, and prefix with a closing slash (or empty); raises UsageError."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise UsageError(f"{uri}: expected s3://bucket/prefix")
    prefix = prefix.strip("/")
    return bucket, f"{prefix}/" if prefix else ""


class S3Store:
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

    def stat(self, key: str) -> ObjectInfo | None:
        try:
            with explained(self.uri, key):
                head = self._client.head_object(**self._at(key))
        except NotFound:
            return None
        return ObjectInfo(key, int(head["ContentLength"]), str(head["ETag"]))

    def get(self, key: str) -> tuple[bytes, str]:
        with explained(self.uri, key):
            answer = self._client.get_object(**self._at(key))
            return answer["Body"].read(), str(answer["ETag"])

    def put(self, key: str, data: bytes, *, if_none_match: bool = False, if_match: str | None = None) -> str:
        condition = {"IfNoneMatch": "*"} if if_none_match else {"IfMatch": if_match} if if_match else {}
        try:
            with explained(self.uri, key, conditional=bool(condition)):
                answer = self._client.put_object(**self._at(key), Body=data, ChecksumAlgorithm="SHA256", **condition)
                return str(answer["ETag"])
        except Conflict as conflict:
            written = self._written_before(key, data, conflict)
            if written is None:
                raise
            return written

    def _written_before(self, key: str, data: bytes, conflict: Conflict) -> str | None:
        """The entity tag, if this very request was done before, its answer was lost, and it was sent again."""
        cause = conflict.__cause__
        sent_again = isinstance(cause, ClientError) and cause.response["ResponseMetadata"].get("RetryAttempts", 0) > 0
        if not sent_again:
            return None
        found, etag = self.get(key)
        return etag if found == data else None

    def upload(self, key: str, path: Path) -> None:
        with explained(self.uri, key):
            at = self._at(key)
            extra = {"ChecksumAlgorithm": "SHA256"}
            self._client.upload_file(str(path), at["Bucket"], at["Key"], ExtraArgs=extra, Config=_TRANSFER)

    def download(self, key: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
        with explained(self.uri, key):
            at = self._at(key)
            self._client.download_file(at["Bucket"], at["Key"], str(partial), Config=_TRANSFER)
        partial.replace(path)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        for info in list_bucket(self._client, self.uri, self.bucket, self.prefix + prefix):
            yield ObjectInfo(info.key.removeprefix(self.prefix), info.size, info.etag)

    def delete(self, key: str) -> None:
        with explained(self.uri, key):
            self._client.delete_object(**self._at(key))

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.prefix + check_key(key)}


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
        raise TemporaryError(f"{uri}: the S3 server fails ({code}) on {key}: run again later") from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise UsageError(f"{uri}: no AWS credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from error
    except (BotoCoreError, OSError) as error:
        raise TemporaryError(f"{uri}: cannot reach the S3 server ({type(error).__name__}): run again later") from error
