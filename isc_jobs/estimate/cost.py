"""What a predicted run costs."""

from dataclasses import dataclass

from isc_jobs.estimate.bounds import Bounds
from isc_jobs.estimate.predict import Prediction

_MONTH_HOURS = 730.0


@dataclass(frozen=True, kw_only=True)
class Prices:
    """In one currency. Storage and requests as S3 Standard had them in us-east-1; GPUs and cores as the user says."""

    gpu_hour: float = 0.0
    core_hour: float = 0.0  # of stages without GPUs
    storage_gb_month: float = 0.023
    thousand_puts: float = 0.005  # and listings
    thousand_gets: float = 0.0004


def cost_of(prediction: Prediction, prices: Prices, months: float) -> Bounds:
    """Of a stage: its GPUs or cores, its requests, and its output kept for so long."""
    hours, asked = prediction.seconds / 3600, prediction.requests
    rented = prediction.gpus * prices.gpu_hour if prediction.gpus else prediction.cores * prices.core_hour
    requests = (asked.put + asked.list) / 1000 * prices.thousand_puts + asked.get / 1000 * prices.thousand_gets
    return hours * rented + requests + prediction.work.kept_bytes / 1e9 * prices.storage_gb_month * months


def run_months(predictions: list[Prediction]) -> float:
    """How long the run lasts, at most: for so long its outputs are kept at least."""
    return sum(prediction.seconds.high for prediction in predictions) / 3600 / _MONTH_HOURS
