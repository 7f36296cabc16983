"""``python -m isc_jobs.controller`` is the command ``isc-jobs``."""

import sys

from isc_jobs.cli import main

if __name__ == "__main__":
    sys.exit(main())
