"""Whether a store keeps what runs rely on: ``python -m isc_jobs.store.probe URI``."""

import sys
import uuid

from isc_jobs.spec.errors import ExitCode, IscJobsError, UsageError
from isc_jobs.spec.plain import plain
from isc_jobs.store import Conflict, open_store


def probe(uri: str) -> None:
    """Write, overwrite conditionally, read and delete an object; raises UsageError if a condition is not kept."""
    store = open_store(uri)
    key = f"probes/{uuid.uuid4().hex}"
    etag = store.put(key, b"1", if_none_match=True)
    try:
        for condition in ({"if_none_match": True}, {"if_match": '"0"'}):
            try:
                store.put(key, b"2", **condition)
            except Conflict:
                continue
            raise UsageError(
                f"store {uri} overwrites in spite of {next(iter(condition))}: runs need conditional writes"
            )
        store.put(key, b"3", if_match=etag)
    finally:
        store.delete(key)


def main() -> int:
    """Probe the store that the first argument names; an exit code."""
    try:
        probe(sys.argv[1])
    except IscJobsError as error:
        print(f"probe: {plain(str(error))}", file=sys.stderr)
        return int(error.exit_code)
    print(f"store {sys.argv[1]}: conditional writes are kept", flush=True)
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())
