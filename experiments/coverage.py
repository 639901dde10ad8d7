"""Write docs/coverage.md, how often each interval holds the truth: `python experiments/coverage.py`.

Every number is a share of simulated samples of which the truth is known. The intervals are those
of the package itself; beside each stands the percentile bootstrap that it took the place of.
`--quick` simulates a tenth as much and writes nothing unless `--out` says where.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from steerlab.analysis.clustered import harmonic
from steerlab.analysis.intervals import by_sentence, harmonic_by_sentence, paired_difference
from steerlab.analysis.tests import paired_test

Floats = NDArray[np.float64]

PAGE = Path(__file__).parents[1] / "docs" / "coverage.md"
SAMPLES = 600  # of each cell: one standard error at .95 is .009
DRAWS = 400  # of the percentile bootstrap
SENTENCES = (5, 8, 16, 40, 70)
SHARES = (0.02, 0.05, 0.2, 0.5, 0.8, 0.98)
PAIRS = ((0.05, 0.02), (0.2, 0.05), (0.5, 0.5), (0.9, 0.6))
# Targets of each sentence, and the correlation of two outputs of a sentence.
CLUSTERS = ((1, 0.0), (4, 0.0), (4, 0.1), (4, 0.3), (15, 0.0), (15, 0.1), (15, 0.3))
FEW_CLUSTERS = ((1, 0.0), (4, 0.1), (15, 0.3))
HEAD = """# Coverage

<!-- experiments/coverage.py writes this page -->

How often a 95 % interval holds the truth, in {samples:,} simulated samples of each cell: sentences are drawn from a
beta distribution with the mean *p*, outputs of a sentence share its chance, so that two of them correlate by the
intraclass correlation (ICC). *Before* is the percentile bootstrap over sentences, which this package had first, and
*now* what [Methods](methods.md) describes; both have Clopper and Pearson's limits where all sentences agree. *Width* is
the mean width now over that before. A cell below .90 is bold.
"""


@dataclass(frozen=True)
class Cell:
    """How often two intervals of the same samples hold the truth, and how wide the new one is."""

    before: float
    now: float
    width: float


def chances(uniform: Floats, mean: float, icc: float) -> Floats:
    """Each sentence's chance of a success, by its place in the distribution, `[sample sentence]`."""
    if icc == 0:
        return np.full(uniform.shape, mean)
    # A table of the quantiles is much faster than as many calls of them.
    grid = np.linspace(0, 1, 2001)[1:-1]
    size = 1 / icc - 1
    return np.interp(uniform, grid, beta.ppf(grid, mean * size, (1 - mean) * size))


def outputs(rng: np.random.Generator, chance: Floats, targets: int) -> NDArray[np.bool_]:
    """Zeros and ones, `[sample sentence target]`."""
    return rng.random((*chance.shape, targets)) < chance[..., None]


def percentile(
    rng: np.random.Generator,
    averages: Sequence[Floats],
    statistic: Callable[..., Floats],
    least: float,
) -> Floats:
    """The percentile interval of a statistic of averages `[sample sentence]`: `[end sample]`.

    Where all draws agree, Clopper and Pearson's limits, as the package had them.
    """
    count = averages[0].shape[1]
    times = rng.multinomial(count, np.full(count, 1 / count), DRAWS) / count
    draws = statistic(*(average @ times.T for average in averages))
    ends = np.quantile(draws, (0.025, 0.975), axis=1)
    same = np.ptp(draws, axis=1) < 1e-12
    unseen = 1 - 0.025 ** (1 / count)
    ends[0, same] = np.maximum(least, draws[same, 0] - unseen * (draws[same, 0] - least))
    ends[1, same] = draws[same, 0] + unseen * (1 - draws[same, 0])
    return ends


def cell(before: Floats, now: Sequence[tuple[float, float, float]], truth: float) -> Cell:
    """What two kinds of intervals of the same samples hold."""
    ends = np.array(now)[:, 1:].T
    held = [
        float(((low <= truth + 1e-12) & (truth - 1e-12 <= high)).mean())
        for low, high in (before, ends)
    ]
    return Cell(
        held[0], held[1], float(np.ptp(ends, axis=0).mean() / np.ptp(before, axis=0).mean())
    )


def shares(
    rng: np.random.Generator, samples: int, count: int, targets: int, p: float, icc: float
) -> Cell:
    """The interval of a share p."""
    hits = outputs(rng, chances(rng.random((samples, count)), p, icc), targets)
    sentences = np.repeat(np.arange(count), targets)
    before = percentile(rng, [hits.mean(2)], lambda average: average, 0.0)
    return cell(before, [by_sentence(sample.ravel(), sentences) for sample in hits], p)


def two_scores(
    rng: np.random.Generator,
    samples: int,
    count: int,
    targets: int,
    p: tuple[float, float],
    icc: float,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Two scores of the same sentences: half of the sentences are as hard by one as by the other."""
    first = rng.random((samples, count))
    second = np.where(rng.random((samples, count)) < 0.5, first, rng.random((samples, count)))
    a = outputs(rng, chances(first, p[0], icc), targets)
    return a, outputs(rng, chances(second, p[1], icc), targets)


def differences(
    rng: np.random.Generator,
    samples: int,
    count: int,
    targets: int,
    p: tuple[float, float],
    icc: float,
) -> Cell:
    """The interval of a paired difference of two shares."""
    a, b = two_scores(rng, samples, count, targets, p, icc)
    sentences = np.repeat(np.arange(count), targets)
    before = percentile(rng, [a.mean(2), b.mean(2)], lambda one, other: one - other, -1.0)
    now = [
        paired_difference(one.ravel(), sentences, other.ravel(), sentences)
        for one, other in zip(a, b, strict=True)
    ]
    return cell(before, now, p[0] - p[1])


def harmonics(
    rng: np.random.Generator,
    samples: int,
    count: int,
    targets: int,
    p: tuple[float, float],
    icc: float,
) -> Cell:
    """The interval of S, the harmonic mean of two shares."""
    a, b = two_scores(rng, samples, count, targets, p, icc)
    sentences = np.repeat(np.arange(count), targets)

    def statistic(one: Floats, other: Floats) -> Floats:
        total = one + other
        mean: Floats = 2 * one * other / np.where(total > 0, total, 1)
        return mean

    before = percentile(rng, [a.mean(2), b.mean(2)], statistic, 0.0)
    now = [
        harmonic_by_sentence(one.ravel(), other.ravel(), sentences)
        for one, other in zip(a, b, strict=True)
    ]
    return cell(before, now, harmonic(*p))


def seeded(
    rng: np.random.Generator, samples: int, count: int, p: float, spread: float
) -> tuple[float, float, float]:
    """A control of 5 seeds, 4 targets of each sentence: how often the interval over sentences, that
    over sentences and seeds, and that of a method less the control hold the truth."""
    sentences = np.repeat(np.arange(count), 4)
    seeds = sentences % 5
    easy = chances(rng.random((samples, count)), p, 0.2)
    good = chances(rng.random((samples, 5)), p, spread)[:, np.arange(count) % 5]
    # The mean of the two keeps the share p.
    control = outputs(rng, (easy + good) / 2, 4)
    method = outputs(rng, 0.3 + easy / 2, 4)
    held = np.zeros(3)
    for mine, theirs in zip(method, control, strict=True):
        values = theirs.ravel()
        intervals = (
            by_sentence(values, sentences),
            by_sentence(values, sentences, control_seeds=seeds),
            paired_difference(mine.ravel(), sentences, values, sentences, b_seeds=seeds),
        )
        truths = (p, p, 0.3 - p / 2)
        for i, ((_, low, high), truth) in enumerate(zip(intervals, truths, strict=True)):
            held[i] += low <= truth <= high
    alone, both, paired = held / samples
    return float(alone), float(both), float(paired)


def rejected(
    rng: np.random.Generator, samples: int, count: int, draw: Callable[..., Floats]
) -> tuple[float, float]:
    """How often sign flips, and the studentised bootstrap, find a difference whose mean is 0."""
    sentences = np.arange(count)
    zeros = np.zeros(count)
    found = np.zeros(2)
    for sample in draw(rng, (samples, count)):
        for i, studentised in enumerate((False, True)):
            test = paired_test(
                sample, sentences, zeros, sentences, draws=399, studentised=studentised
            )
            found[i] += test.p <= 0.05
    flips, bootstrap = found / samples
    return float(flips), float(bootstrap)


def rejected_with_seeds(
    rng: np.random.Generator, samples: int, count: int, p: float, spread: float
) -> tuple[float, float]:
    """How often a method and a control of 5 seeds that are as good as one another over all seeds
    are told apart: by signs of sentences alone, and with other seeds."""
    sentences = np.repeat(np.arange(count), 4)
    seeds = sentences % 5
    easy = chances(rng.random((samples, count)), p, 0.2)
    good = chances(rng.random((samples, 5)), p, spread)[:, np.arange(count) % 5]
    control = outputs(rng, (easy + good) / 2, 4)
    method = outputs(rng, (easy + p) / 2, 4)
    found = np.zeros(2)
    for mine, theirs in zip(method, control, strict=True):
        sides = (mine.ravel(), sentences, theirs.ravel(), sentences)
        found[0] += paired_test(*sides, draws=399).p <= 0.05
        found[1] += paired_test(*sides, b_seeds=seeds, draws=399).p <= 0.05
    alone, both = found / samples
    return float(alone), float(both)


def number(value: float) -> str:
    """A share of two digits without its zero; bold below .90."""
    text = f"{value:.2f}".replace("0.", ".", 1)
    return f"**{text}**" if value < 0.895 else text


def grid(
    simulate: Callable[..., Cell],
    values: Sequence[object],
    clusters: Sequence[tuple[int, float]],
    samples: int,
    title: str,
) -> str:
    """A table of one kind of interval: clusters and sentences down, values across."""
    rng = np.random.default_rng(0)
    shown = [
        " and ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        for value in values
    ]
    head = [
        "targets",
        "ICC",
        "sentences",
        *(f"{title} {text}: before, now, width" for text in shown),
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lows = [1.0, 1.0]
    for targets, icc in clusters:
        for count in SENTENCES:
            parts = [str(targets), f"{icc:g}", str(count)]
            for value in values:
                found = simulate(rng, samples, count, targets, value, icc)
                lows = [min(lows[0], found.before), min(lows[1], found.now)]
                parts.append(f"{number(found.before)}, {number(found.now)}, {found.width:.1f}")
            lines.append("| " + " | ".join(parts) + " |")
    least = f"The least is {number(lows[0])} before and {number(lows[1])} now."
    return "\n".join([*lines, "", least])


def seed_table(samples: int) -> str:
    """The table of a control's seeds."""
    rng = np.random.default_rng(1)
    lines = [
        "| p | spread of seeds | sentences | over sentences | over both | method less control |",
        "|---|---|---|---|---|---|",
    ]
    for p in (0.05, 0.3):
        for spread in (0.0, 0.02, 0.1, 0.3):
            for count in (16, 70):
                held = seeded(rng, samples, count, p, spread)
                lines.append(
                    f"| {p} | {spread:g} | {count} | " + " | ".join(map(number, held)) + " |"
                )
    return "\n".join(lines)


def size_table(samples: int) -> str:
    """The table of tests under skewed differences whose mean is 0."""
    kinds: dict[str, Callable[..., Floats]] = {
        "symmetric (normal)": lambda rng, shape: rng.normal(size=shape),
        "skewed (exponential less 1)": lambda rng, shape: rng.exponential(size=shape) - 1,
        "rare and large (9 in 10 lose .1, 1 wins .9)": lambda rng, shape: (
            (rng.random(shape) < 0.1) - 0.1
        ),
        "very skewed (log-normal less its mean)": lambda rng, shape: (
            rng.lognormal(size=shape) - np.exp(0.5)
        ),
    }
    rng = np.random.default_rng(2)
    lines = [
        "| differences | sentences | sign flips | studentised bootstrap |",
        "|---|---|---|---|",
    ]
    for name, draw in kinds.items():
        for count in (8, 16, 40, 70):
            # Shares of rejections: none is bold.
            flips, bootstrap = rejected(rng, samples, count, draw)
            lines.append(f"| {name} | {count} | {flips:.3f} | {bootstrap:.3f} |")
    return "\n".join(lines)


def seed_size_table(samples: int) -> str:
    """The table of tests beside a control of several seeds that is no worse."""
    rng = np.random.default_rng(3)
    lines = [
        "| p | spread of seeds | sentences | signs of sentences | with other seeds |",
        "|---|---|---|---|---|",
    ]
    for p in (0.05, 0.3):
        for spread in (0.0, 0.02, 0.1, 0.3):
            for count in (16, 70):
                alone, both = rejected_with_seeds(rng, samples, count, p, spread)
                lines.append(f"| {p} | {spread:g} | {count} | {alone:.3f} | {both:.3f} |")
    return "\n".join(lines)


def page(samples: int = SAMPLES) -> str:
    """The whole page."""
    few = max(20, samples // 2)
    return "\n".join(
        [
            HEAD.format(samples=samples),
            "## Shares\n",
            grid(shares, SHARES, CLUSTERS, samples, "p"),
            f"\n## Paired differences\n\nOf two shares; {few} samples.\n",
            grid(differences, PAIRS, FEW_CLUSTERS, few, "p"),
            f"\n## S\n\nThe harmonic mean of two shares; {few} samples.\n",
            grid(harmonics, PAIRS, FEW_CLUSTERS, few, "p"),
            "\n## Seeds of a control\n\nFive seeds, four targets; sentence i has seed i mod 5. A seed has its own "
            f"chance, from a beta distribution with this ICC; {few} samples.\n",
            seed_table(few),
            "\n## Tests\n\nHow often p is at most .05 for differences whose mean is 0: .05 is right, more is too "
            f"often; {few} samples.\n",
            size_table(few),
            "\n### Beside a control of several seeds\n\nThe same for a method and a control of five seeds, as above, that "
            f"are as good as one another over all seeds; {few} samples.\n",
            seed_size_table(few),
            "",
        ]
    )


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples")
    parser.add_argument("--out", type=Path, help="where to; by default docs/coverage.md")
    options = parser.parse_args()
    text = page(SAMPLES // 10 if options.quick else SAMPLES)
    path = options.out or (None if options.quick else PAGE)
    if path is None:
        print(text)
    else:
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
