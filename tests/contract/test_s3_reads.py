"""Direct reads of many objects: every key, and every answer that is no plain success."""

import base64
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import boto3
import pytest
from stores import s3

from isc_jobs.spec.errors import TemporaryError, UsageError
from isc_jobs.store import NotFound
from isc_jobs.store.source import open_source

__all__ = ["s3"]
# Kept connections end with the process.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
DATA = b"picture" * 1000
BAD = {
    "fails": (503, b"<Error><Code>SlowDown</Code></Error>"),
    "refuses": (403, b"<Error><Code>AccessDenied</Code></Error>"),
}
KEYS = ["a.jpg", "a b.jpg", "ä/é.jpg", "plus+sign=1.jpg", "100%.jpg", "a~b'(c)!*.jpg", "dir.with.dots/x"]


@pytest.mark.parametrize("anonymous", [False, True])
def test_objects_of_any_key_are_read_by_many_threads(s3: str, anonymous: bool) -> None:
    client = boto3.client("s3", region_name="us-east-1")
    for key in KEYS:
        client.put_object(Bucket="bucket", Key=f"set/{key}", Body=key.encode(), ACL="public-read")
    source = open_source(f"{s3}/set", anonymous=anonymous)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(source.read, KEYS * 10)) == [key.encode() for key in KEYS] * 10
    with pytest.raises(NotFound):
        source.read("absent.jpg")


class Moody(BaseHTTPRequestHandler):
    """Answers with each mood once, then well; an S3 server of one object."""

    protocol_version = "HTTP/1.1"
    moods: ClassVar[list[str]] = []
    connections: ClassVar[set[object]] = set()
    answered = 0

    def do_GET(self) -> None:
        cls = type(self)
        cls.connections.add(self.connection)
        cls.answered += 1
        mood = cls.moods.pop(0) if cls.moods else "well"
        if mood == "hangs up":
            self.close_connection = True
            return
        status, data = BAD.get(mood, (200, DATA))
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if status == 200:
            self.send_header("x-amz-checksum-crc32", base64.b64encode(zlib.crc32(DATA).to_bytes(4, "big")).decode())
        self.end_headers()
        if mood == "ends early":
            self.wfile.write(data[:-1])
            self.close_connection = True
            return
        self.wfile.write(bytes(reversed(data)) if mood == "damages" else data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def moody(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Moody]]:
    Moody.moods, Moody.connections, Moody.answered = [], set(), 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Moody)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    yield Moody
    server.shutdown()
    server.server_close()


def test_a_connection_is_kept(moody: type[Moody]) -> None:
    source = open_source("s3://bucket")
    assert [source.read("a") for _ in range(5)] == [DATA] * 5
    assert (len(moody.connections), moody.answered) == (2, 5)  # boto3's, and ours


@pytest.mark.parametrize("mood", ["fails", "hangs up", "ends early", "damages"])
def test_what_may_pass_is_tried_again(moody: type[Moody], mood: str) -> None:
    source = open_source("s3://bucket")
    assert source.read("a") == DATA
    moody.moods = [mood]
    assert [source.read("a") for _ in range(3)] == [DATA] * 3
    assert moody.answered == 5


def test_where_direct_reads_keep_failing_boto3_reads_alone(moody: type[Moody], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isc_jobs.store.s3_reads._PATIENCE", 3)
    source = open_source("s3://bucket")
    assert source.read("a") == DATA
    for _ in range(3):
        moody.moods = ["refuses"]
        assert source.read("a") == DATA
    before = moody.answered
    assert [source.read("a") for _ in range(4)] == [DATA] * 4
    assert moody.answered == before + 4
    assert len(moody.connections) == 2


def test_behind_a_proxy_boto3_reads_alone_and_no_way_is_looked_for_again(
    moody: type[Moody], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def proxies(url: str) -> dict[str, str]:
        asked.append(url)
        return {"http": "proxy"}

    monkeypatch.setattr("isc_jobs.store.s3_reads.get_environ_proxies", proxies)
    source = open_source("s3://bucket")
    assert [source.read("a") for _ in range(3)] == [DATA] * 3
    assert (len(asked), moody.answered, len(moody.connections)) == (1, 3, 1)


@pytest.mark.usefixtures("fresh_credentials")
def test_without_credentials_the_sentence_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="no AWS credentials found"):
        open_source("s3://bucket").read("a")


def test_what_does_not_pass_is_said_in_a_sentence(moody: type[Moody]) -> None:
    moody.moods = ["refuses"]
    with pytest.raises(UsageError, match="the S3 server refuses"):
        open_source("s3://bucket").read("a")
    source = open_source("s3://bucket")
    assert source.read("a") == DATA
    moody.moods = ["damages"] * 2
    assert source.read("a") == DATA
    moody.moods = ["damages"] * 6
    with pytest.raises(TemporaryError, match="run again"):
        source.read("a")
