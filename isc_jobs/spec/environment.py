"""Variables of the cluster's containers as settings name them: they stand in manifests for all to read."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

from isc_jobs.spec.address import check_no_credentials
from isc_jobs.spec.errors import UsageError

_SECRET = re.compile(r"(SECRET|PASSWORD|PASSWD|TOKEN|ACCESS_KEY|ACCESS_KEY_ID|CREDENTIALS?)$", re.IGNORECASE)


def _no_secrets(values: Any) -> Any:
    """Before types are looked at, whose errors repeat what they found."""
    for name, value in values.items() if isinstance(values, dict) else ():
        if _SECRET.search(str(name)):
            raise ValueError(f"variable {name} is no place for a secret: put it into the secret of cluster.s3_secret")
        try:
            check_no_credentials(f"variable {name}", str(value))
        except UsageError as error:
            raise ValueError(str(error)) from error
    return values


Environment = Annotated[dict[str, str], BeforeValidator(_no_secrets)]
