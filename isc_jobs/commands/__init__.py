"""What each command of the command line does: arguments in, exit code out. Heavy imports wait until one needs them."""

from isc_jobs.commands.data import dataset_make, evaluate
from isc_jobs.commands.doctor import doctor
from isc_jobs.commands.estimate import estimate
from isc_jobs.commands.fetching import fetch
from isc_jobs.commands.help import add_examples, completion
from isc_jobs.commands.indexing import index_add, index_build, index_query
from isc_jobs.commands.logs import logs
from isc_jobs.commands.matching import match
from isc_jobs.commands.report import report
from isc_jobs.commands.runs import _request, cancel, check, diff, render, resume, run_all, status
from isc_jobs.commands.weights import checkpoint_convert, checkpoint_inspect, export

__all__ = [
    "_request", "add_examples", "cancel", "check", "checkpoint_convert", "checkpoint_inspect", "completion",
    "dataset_make", "diff", "doctor", "estimate", "evaluate", "export", "fetch", "index_add",
    "index_build", "index_query", "logs", "match", "render", "report", "resume",
    "run_all", "status",
]  # fmt: skip
