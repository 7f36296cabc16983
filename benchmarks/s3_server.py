"""A local S3 server for benchmarks: versitygw over a folder, or the one that AWS_ENDPOINT_URL_S3 names.

Get it with ``go install github.com/versity/versitygw/cmd/versitygw@latest`` and have it on the PATH.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from isc_jobs.store.s3 import s3_client

BUCKET = "benchmark"


@contextmanager
def s3_server(folder: Path, access_log: Path | None = None) -> Iterator[Any]:
    """A client of a running server that holds the bucket; a server of our own keeps its objects in ``folder``.

    With an ``access_log``, where it notes every request, it is one of our own in any case.
    """
    if "AWS_ENDPOINT_URL_S3" in os.environ and access_log is None:
        yield _with_bucket()
        return
    program = shutil.which("versitygw")
    if program is None:
        sys.exit(f"no S3 server: {__doc__}")
    folder = folder.resolve()
    (folder / "objects").mkdir(parents=True, exist_ok=True)
    (folder / "accounts").mkdir(exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    os.environ |= {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}", "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "benchmark-secret",
    }  # fmt: skip
    accounts = {"ROOT_ACCESS_KEY_ID": "benchmark", "ROOT_SECRET_ACCESS_KEY": "benchmark-secret"}
    noted = [] if access_log is None else ["--access-log", str(access_log)]
    command = [program, "--quiet", *noted, "--port", f"127.0.0.1:{port}", "--iam-dir", str(folder / "accounts"),
               "posix", str(folder / "objects")]  # fmt: skip
    server = subprocess.Popen(command, env=os.environ | accounts, stdout=subprocess.DEVNULL)
    try:
        _await(port)
        yield _with_bucket()
    finally:
        del os.environ["AWS_ENDPOINT_URL_S3"]
        server.terminate()
        server.wait()


def _await(port: int) -> None:
    for _ in range(200):
        with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    sys.exit("the S3 server does not answer")


def _with_bucket() -> Any:
    client = s3_client()
    with suppress(client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
        client.create_bucket(Bucket=BUCKET)
    return client
