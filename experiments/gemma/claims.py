"""Published claims that a run on Gemma 3 270M touches, each with the criterion that decides it.

The criteria are code and were committed before the run. A verdict is "holds here", "opposite here"
or "cannot tell": one base model of 270 M parameters cannot refute what was found on 8B models.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

HOLDS, OPPOSITE, UNDECIDED = "holds here", "opposite here", "cannot tell"
ALPHA = 0.05
FEW = 5  # LangFIR: fewer features than this in a language
LATE = 0.5  # of the depth: CLaS-Bench steers Llama-3.1-8B at layer 20 of 32
COSINE_DROP = 0.3  # from the middle of the depth to its end; .66 in Llama-3.1-8B
LOW_RANK = 12  # Neural FOXP2's code allows no more

Found = Mapping[str, Any]  # what a run found, by name


@dataclass(frozen=True)
class Claim:
    """A published claim.

    Args:
        text: the claim, as a sentence.
        source: where it is made, and its figure there.
        criterion: in words, what `decide` computes.
        decide: from what was found to (the verdict, the figures that it stands on).
    """

    text: str
    source: str
    criterion: str
    decide: Callable[[Found], tuple[str, str]]


def by_interval(interval: tuple[float, float, float]) -> str:
    """Holds where an interval of a difference lies above 0, the opposite where it lies below."""
    _, low, high = interval
    if low > 0:
        return HOLDS
    return OPPOSITE if high < 0 else UNDECIDED


def _shown(interval: tuple[float, float, float]) -> str:
    value, low, high = interval
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def _beats(control: str) -> Callable[[Found], tuple[str, str]]:
    def decide(found: Found) -> tuple[str, str]:
        interval = found["differences"][control]["joint"]
        return by_interval(interval), f"joint, DiffMean less {control}: {_shown(interval)}"

    return decide


def _best_estimator(found: Found) -> tuple[str, str]:
    """DiffMean against each other estimator with `add`, adjusted p."""
    less = found["others less diffmean"]  # name -> (difference, adjusted p)
    listed = ", ".join(f"{name} {value:+.3f} (p {p:.3f})" for name, (value, p) in less.items())
    if any(value > 0 and p < ALPHA for value, p in less.values()):
        return OPPOSITE, listed
    if all(value < 0 and p < ALPHA for value, p in less.values()):
        return HOLDS, listed
    return UNDECIDED, listed


def _late(found: Found) -> tuple[str, str]:
    """The best layer of the later half less that of the earlier half; each chosen on dev."""
    interval = found["late less early"]
    return by_interval(interval), (
        f"joint on test, layer {found['late layer']} less layer {found['early layer']}: "
        f"{_shown(interval)}"
    )


def _apart(found: Found) -> tuple[str, str]:
    middle, last = found["cosine in the middle"], found["cosine at the end"]
    figures = f"mean cosine of the language means {middle:.2f} in the middle, {last:.2f} at the end"
    if middle - last > COSINE_DROP:
        return HOLDS, figures
    return (OPPOSITE if last > middle else UNDECIDED), figures


def _families(found: Found) -> tuple[str, str]:
    rate, base, p = found["family rate"], found["family rate, embedding"], found["family p"]
    figures = (
        f"nearest neighbour of its own family: {rate:.0%} at the chosen layer, {base:.0%} at the "
        f"embedding layer (p of the difference {p:.3f})"
    )
    if p < ALPHA:
        return (HOLDS if rate > base else OPPOSITE), figures
    return UNDECIDED, figures


def _few_features(found: Found) -> tuple[str, str]:
    median, most = found["langfir median"], found["langfir most"]
    figures = f"features of a language in a layer: median {median:g}, at most {most}"
    if most < FEW:
        return HOLDS, figures
    return (OPPOSITE if median >= FEW else UNDECIDED), figures


def _selective(found: Found) -> tuple[str, str]:
    interval = found["langfir dominance less control"]
    figures = (
        "share of languages hurt most by the loss of their own features, less that of matched "
        f"random features: {_shown(interval)}"
    )
    if interval[1] == interval[2]:  # as of two languages that agree
        return UNDECIDED, f"{figures}; too few languages for an interval"
    return by_interval(interval), figures


def _low_rank(found: Found) -> tuple[str, str]:
    ranks = found["eigengap ranks"]
    figures = f"eigengap ranks from {min(ranks)} to {max(ranks)}"
    return (HOLDS if max(ranks) <= LOW_RANK else OPPOSITE), figures


CLAIMS = (
    Claim(
        "Steering with DiffMean beats asking in the prompt.",
        "CLaS-Bench (2026): S 84.5 against 67.7",
        "the interval of joint on test, DiffMean less the zero-shot prompt, lies above 0",
        _beats("prompt"),
    ),
    Claim(
        "Steering without parallel text beats a prompt with translated examples.",
        "ours to test: few-shot is what a base model can follow",
        "the interval of joint on test, DiffMean less the few-shot prompt, lies above 0",
        _beats("fewshot"),
    ),
    Claim(
        "DiffMean is the best way to find the direction.",
        "CLaS-Bench (2026): over probe, LDA, PCA",
        "every other estimator with add has less joint on test, at an adjusted p below .05; the "
        "opposite where one has more",
        _best_estimator,
    ),
    Claim(
        "The best layer lies in the later half.",
        "CLaS-Bench (2026): layer 20 of 32",
        "the interval of DiffMean's joint on test, the best layer of the later half less the best "
        "of the earlier half, each with its strength chosen on dev, lies above 0",
        _late,
    ),
    Claim(
        "Languages come apart in the later layers.",
        "measured on CLaS-Bench's release, Llama-3.1-8B: mean cosine .87 in the middle, .21 at the "
        "end",
        "the mean pairwise cosine of the raw language means falls by more than .3 from the middle "
        "layer to the last",
        _apart,
    ),
    Claim(
        "Directions cluster by family.",
        "CLaS-Bench (2026), a heatmap; 15 of 16 nearest neighbours measured on its release",
        "more nearest neighbours of the own family at the chosen layer than at the embedding "
        "layer, at p below .05",
        _families,
    ),
    Claim(
        "A language has few features.",
        "LangFIR (2026): fewer than 5 a language",
        "at most 4 in every language and layer; the opposite where the median is 5 or more",
        _few_features,
    ),
    Claim(
        "Taking a language's features away hurts that language alone.",
        "LangFIR (2026), qualitatively",
        "the interval of the share of languages hurt most by their own features, less that of "
        "matched random features, lies above 0",
        _selective,
    ),
    Claim(
        "The shift between two languages is of low rank.",
        "Neural FOXP2 (2026): at most 12 in its code",
        "the eigengap's rank is at most 12 for every target at the middle layers",
        _low_rank,
    ),
)


def table(found: Found) -> str:
    """The claims with their criteria and verdicts, as Markdown; one that lacks its figures says so."""
    lines = ["| claim | source | criterion | found | verdict |", "|---|---|---|---|---|"]
    for claim in CLAIMS:
        try:
            verdict, figures = claim.decide(found)
        except KeyError as missing:
            verdict, figures = "not run", f"no figure for {missing.args[0]!r}"
        cells = (claim.text, claim.source, claim.criterion, figures, f"*{verdict}*")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
