"""The stage programs: ``python -m isc_jobs.stages.<name> --spec FILE``."""
