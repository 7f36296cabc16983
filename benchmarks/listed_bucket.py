"""An S3 server whose objects are made up as they are asked for: millions can be listed that nobody has to store.

It answers ListObjectsV2 in pages of 1000, as S3 does, and GetObject, always with the same picture; it counts both.
"""

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

BUCKET = "listed"
PAGE = 1000
BYTES = 165_000  # of each object, as listed: the challenge's mean
_HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    f"<Name>{BUCKET}</Name><Prefix></Prefix><MaxKeys>{PAGE}</MaxKeys><EncodingType>url</EncodingType>"
)


class ListedBucket:
    """So many objects, half of them references, half training pictures."""

    def __init__(self, count: int, picture: bytes) -> None:
        """``picture``: the bytes of every object."""
        self.count, self.picture = count, picture
        self.requests: Counter[str] = Counter()
        self.lock = threading.Lock()

    def key(self, number: int) -> str:
        """Of an object; in order of the numbers they are in order of the keys."""
        if number < self.count // 2:
            return f"reference_images/R{number:07d}.jpg"
        return f"train_images/T{number - self.count // 2:07d}.jpg"

    def page(self, first: int) -> bytes:
        """ListObjectsV2's answer from an object on."""
        end = min(first + PAGE, self.count)
        more = "<IsTruncated>false</IsTruncated>" if end == self.count else (
            f"<IsTruncated>true</IsTruncated><NextContinuationToken>{end}</NextContinuationToken>"
        )  # fmt: skip
        contents = (
            f"<Contents><Key>{self.key(number)}</Key><LastModified>2021-06-01T00:00:00.000Z</LastModified>"
            f"<ETag>&quot;{hashlib.md5(b'%d' % number, usedforsecurity=False).hexdigest()}&quot;</ETag>"
            f"<Size>{BYTES}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for number in range(first, end)
        )
        return f"{_HEAD}<KeyCount>{end - first}</KeyCount>{more}{''.join(contents)}</ListBucketResult>".encode()

    def answer(self, path: str) -> bytes:
        """Of a GET request."""
        address = urlsplit(path)
        query = parse_qs(address.query)
        lists = "list-type" in query
        with self.lock:
            self.requests["LIST" if lists else "GET"] += 1
        return self.page(int(query.get("continuation-token", ["0"])[0])) if lists else self.picture


@contextmanager
def listed_bucket(count: int, picture: bytes) -> Iterator[tuple[ListedBucket, str]]:
    """A running server, in threads of this process, and its address."""
    bucket = ListedBucket(count, picture)

    class Handler(BaseHTTPRequestHandler):
        """One write an answer, else TCP waits between them."""

        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = bucket.answer(self.path)
            head = f'HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nETag: "0"\r\n\r\n'
            self.wfile.write(head.encode() + body)

        def handle(self) -> None:
            with suppress(ConnectionError):  # of clients that were killed
                super().handle()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield bucket, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
