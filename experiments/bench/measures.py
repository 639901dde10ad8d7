"""Times taken in turns, and their median with its range."""

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Spread = dict[str, float]  # median, low, high, n


def spread(values: Sequence[float]) -> Spread:
    """The median of some measurements with the lowest, the highest and how many there were."""
    return {
        "median": statistics.median(values),
        "low": min(values),
        "high": max(values),
        "n": len(values),
    }


def ratio(first: Sequence[float], second: Sequence[float]) -> Spread:
    """The spread of first / second, round by round, so that what slows both down in a round
    cancels."""
    return spread([a / b for a, b in zip(first, second, strict=True)])


def seconds(action: Callable[[], Any]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def interleaved(
    actions: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    budget: float = 0.0,
    warm_up: bool = True,
) -> dict[str, list[float]]:
    """Seconds of each action in each round, the order drawn anew for every round, after one warm-up
    each.

    At least `rounds` rounds; further ones, up to ten times as many, until `budget` seconds are
    spent.
    """
    draw = random.Random(0)
    found: dict[str, list[float]] = {name: [] for name in actions}
    if warm_up:
        for action in actions.values():
            action()
    start, done = time.perf_counter(), 0
    while done < rounds or (done < 10 * rounds and time.perf_counter() - start < budget):
        for name in draw.sample(list(actions), len(actions)):
            found[name].append(seconds(actions[name]))
        done += 1
    return found
