"""Amounts as Kubernetes writes them: 500m, 2, 64Gi."""

import re
from typing import Annotated

from pydantic import AfterValidator

_FACTORS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "Ki": 2**10, "Mi": 2**20,
            "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}  # fmt: skip
_QUANTITY = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)(m|k|[MGTP]i?|Ki)?", re.ASCII)


def amount(quantity: str) -> float:
    """A quantity as a number; raises ValueError that says what one is."""
    match = _QUANTITY.fullmatch(quantity)
    if match is None or not float(match[1]):
        raise ValueError(
            "expected a number above 0, alone or with one of m, k, M, G, T, P, Ki, Mi, Gi, Ti, Pi, as 64Gi"
        )
    return float(match[1]) * _FACTORS[match[2] or ""]


def _checked(quantity: str) -> str:
    amount(quantity)
    return quantity


Quantity = Annotated[str, AfterValidator(_checked)]
