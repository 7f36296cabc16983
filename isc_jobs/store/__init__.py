"""The artifact store: a port with two adapters, a folder and S3."""

from pathlib import Path

from isc_jobs.spec.address import check_address
from isc_jobs.store.port import Conflict, NotFound, ObjectInfo, Store

__all__ = ["Conflict", "NotFound", "ObjectInfo", "Store", "open_store"]


def open_store(uri: str) -> Store:
    """The store at ``s3://bucket/prefix`` or in a folder; raises UsageError for another scheme or credentials."""
    if check_address("store", uri).startswith("s3://"):
        from isc_jobs.store.s3 import S3Store

        return S3Store(uri)
    from isc_jobs.store.directory import DirectoryStore

    return DirectoryStore(Path(uri))
