"""How often a long computation writes a checkpoint, and what failures then cost: the model of Young and Daly.

J. W. Young, "A first order approximation to the optimum checkpoint interval", CACM 17(9), 1974; J. T. Daly, "A higher
order estimate of the optimum checkpoint interval for restart dumps", Future Generation Computer Systems 22(3), 2006.
Failures are a Poisson process; they may come during work, a checkpoint or a restart. All times are in seconds.
"""

import math

SHORTEST_S = 30.0
LONGEST_S = 1800.0


def young(cost_s: float, between_failures_s: float) -> float:
    """Work between checkpoints of ``cost_s`` that wastes least, to first order: sqrt(2 * cost * MTBF)."""
    return math.sqrt(2 * cost_s * between_failures_s)


def daly(cost_s: float, between_failures_s: float) -> float:
    """The same to higher order (Daly 2006, equation 37); the mean time between failures if the cost is twice that."""
    if cost_s >= 2 * between_failures_s:
        return between_failures_s
    ratio = cost_s / (2 * between_failures_s)
    return young(cost_s, between_failures_s) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - cost_s


def checkpoint_interval(cost_s: float, between_failures_s: float) -> float:
    """Daly's interval within bounds: what little is lost or won beyond them is not worth the surprise."""
    return min(max(daly(cost_s, between_failures_s), SHORTEST_S), LONGEST_S)


def expected_seconds(
    work_s: float, interval_s: float, *, cost_s: float, restart_s: float, between_failures_s: float
) -> float:
    """Mean time to the end of ``work_s`` with a checkpoint after each ``interval_s`` of it (Daly 2006, equation 20)."""
    segment = math.expm1((interval_s + cost_s) / between_failures_s)
    return between_failures_s * math.exp(restart_s / between_failures_s) * segment * work_s / interval_s
