"""Names as Kubernetes allows them."""

import re
from typing import Annotated

from pydantic import AfterValidator

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def _checked(name: str) -> str:
    if not _LABEL.fullmatch(name):
        raise ValueError("expected small letters, digits and - between them, 63 characters at most")
    return name


DnsLabel = Annotated[str, AfterValidator(_checked)]
