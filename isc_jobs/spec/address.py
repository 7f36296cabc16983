"""Addresses of stores, sources and endpoints, which must hold no credentials: they stand in manifests and logs."""

import re

from isc_jobs.spec.errors import UsageError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_CREDENTIALS = re.compile(r"://[^/]*@|[?&](X-Amz-|AWSAccessKeyId=|Signature=|sig=)", re.IGNORECASE)


def check_address(name: str, uri: str) -> str:
    """The address, if it is a folder or s3://bucket/prefix; raises UsageError that repeats no credentials."""
    check_no_credentials(name, uri)
    scheme = _SCHEME.match(uri)
    if scheme and scheme[0] != "s3://":
        raise UsageError(f"{name} {scheme[0]}…: expected a folder or s3://bucket/prefix")
    return uri


def check_no_credentials(name: str, text: str) -> None:
    """Raises UsageError if the text holds an address with a user, a password or a signature; they are not repeated."""
    if _CREDENTIALS.search(text):
        raise UsageError(
            f"{name} holds credentials within an address: give it without them, and them as AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, in a cluster as the secret of cluster.s3_secret"
        )
