"""How many latents are on where a sentence has another's translation, beside a null of exchanged
pairs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import steerlab as sl
from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.core.samples import derangement
from steerlab.models.model import Model

BETWEEN = "\n"  # of a sentence and its translation, as polyglot was trained to read them
DRAWS, TOP, RISE = 1000, 10, 0.2
FILTER = (0.8, 0.0)  # the least share of deranged pairs, the largest of true ones


def section(model: Model, corpus: Corpus, targets: Sequence[str]) -> list[str]:
    """A table by target and layer, and what it says."""
    saes = sl.units.saes()
    said = [
        "| target | layer | pass at .8 and 0 | of exchanged pairs | pass at .5 and .2 | of exchanged pairs | a rise of .2 or more | of exchanged pairs | "
        "largest rise | of exchanged pairs (95th percentile) | rise of ten, held out | of exchanged pairs (95th percentile) | "
        "of halves read apart |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows = []
    for target in targets:
        own, other, apart = flags(model, corpus, target, saes)
        for number, layer in enumerate(saes):
            row = counts(own[:, number], other[:, number], apart[:, number])
            rows.append(row)
            said.append(
                f"| {target} | {layer} | {row['pass']} | {row['pass null']:.2f} | {row['loose']} | {row['loose null']:.2f} | {row['rises']} | "
                f"{row['rises null']:.2f} | {row['largest']:.2f} | {row['largest null']:.2f} | {row['held out']:+.3f} | {row['held out null']:+.3f} | {row['apart']:+.3f} |"
            )
    passing = sum(row["pass"] for row in rows)
    beyond = sum(row["largest"] > row["largest null"] for row in rows)
    held = float(np.mean([row["held out"] for row in rows]))
    clear = sum(row["held out"] > row["held out null"] for row in rows)
    apart_rise = float(np.mean([row["apart"] for row in rows]))
    begin = (
        f"Of {own.shape[2]:,} latents a layer (the packaged autoencoders), those that LangFIR's filter keeps with true pairs as noise (`sl.units.off_topic`): on "
        f"in at least .8 of {len(own)} English sentences with another's translation, and in none with their own, at any token; and of a "
        "looser filter. *Of exchanged pairs*: the mean of 1,000 draws in which a coin says of each sentence which of its two pairs is the "
        "true one. *Rise*: the share of deranged pairs in which a latent is on, less that of true ones. *Held out*: the ten latents of the "
        "largest rise on `estimate`, read on dev and test. *Of halves read apart*: the rise of the same ten where no half was read with the other, and a "
        "latent counts as on in a pair if it is on in either half: a subject that both halves of a true pair share is in one true pair, and in two deranged "
        "ones."
    )
    end = (
        f"{passing} latents pass the filter, in all layers and languages together"
        + (", so that `off_topic` raises" if not passing else "")
        + f"; the largest rise is beyond its null in {beyond} of {len(rows)} cells. The ten latents of the largest rise keep a rise of {held:+.3f} on "
        f"lines that did not choose them, beyond its null in {clear} of {len(rows)}; halves that were read apart have {apart_rise:+.3f} of it, which is "
        "counting and no latent of what does not belong together."
    )
    return [begin, "", *said, "", f"{end} {raised(model, corpus, targets[0], saes)}"]


def texts(corpus: Corpus, target: str) -> tuple[list[str], list[str]]:
    """(each English sentence with its translation, each with another's)."""
    questions, answers = list(corpus["en"]), list(corpus[target])
    own = [f"{a}{BETWEEN}{b}" for a, b in zip(questions, answers, strict=True)]
    return own, sl.units.deranged_pairs(questions, answers, between=BETWEEN)


def flags(
    model: Model, corpus: Corpus, target: str, saes: Mapping[int, Any]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether each latent is on anywhere in each pair, true and deranged, [text layer latent], and
    the second less the first of halves that are read apart. The lines of `estimate` come first;
    each part is deranged by itself."""
    found: tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]] = ([], [], [])
    for split in ("estimate", "dev", "test"):
        part = corpus.split(split)
        for side, some in zip(found, texts(part, target), strict=False):
            side.append(on(model, some, saes))
        english, translated = (on(model, part[lang], saes) for lang in ("en", target))
        order = derangement(len(part), 0).tolist()
        either = (english | translated[order]).astype(np.float32)
        found[2].append(either - (english | translated))
    return np.concatenate(found[0]), np.concatenate(found[1]), np.concatenate(found[2])


def on(model: Model, some: Sequence[str], saes: Mapping[int, Any]) -> np.ndarray:
    made: np.ndarray = read(model, some, saes).seen[0, : len(some)].numpy().astype(bool)
    return made


def read(model: Model, some: Sequence[str], saes: Mapping[int, Any]) -> Any:
    pairs = Corpus("pairs", {"en": tuple(some)}, tuple(range(len(some))))
    return sl.collect_units(model, pairs, saes=saes, keep=len(some), progress=False)


def raised(model: Model, corpus: Corpus, target: str, saes: Mapping[int, Any]) -> str:
    """What `off_topic` itself says of one language."""
    own, other = (read(model, some, saes) for some in texts(corpus.split("estimate"), target))
    try:
        found = sl.units.off_topic(own, other)
    except SteerlabError as error:
        return f"On the {len(corpus.split('estimate'))} pairs of `estimate` in {target} it says: *{error}*."
    return f"On `estimate` in {target} it keeps {int(found.chosen.sum())} latents."


def counts(own: np.ndarray, other: np.ndarray, apart: np.ndarray) -> dict[str, Any]:
    """What passes at a layer, from flags [text latent], and the same of exchanged pairs; `apart` is
    the difference of the flags of halves that were read apart."""
    a, b = own.astype(np.float32), other.astype(np.float32)
    n = len(a)
    signs = np.random.default_rng(0).choice(np.array([1, -1], np.float32), (DRAWS, n))
    middle, half = (a + b).sum(0) / 2, (b - a) / 2
    moved = signs @ half  # of exchanged pairs, [draw latent]
    null = {"own": (middle - moved) / n, "other": (middle + moved) / n}
    real = {"own": a.mean(0)[None], "other": b.mean(0)[None]}

    def passing(of: Mapping[str, np.ndarray], consistency: float, most: float) -> np.ndarray:
        # Sums of floats: a share of .8 may round to less.
        return ((of["other"] >= consistency - 1e-6) & (of["own"] <= most + 1e-6)).sum(1)

    rise = {name: of["other"] - of["own"] for name, of in (("real", real), ("null", null))}
    step, early = (b - a), n // 2
    first = np.concatenate([np.ones((1, n), np.float32), signs])  # the pairs as they are, and drawn
    seen = (first[:, :early] @ step[:early]) / early
    later = (first[:, early:] @ step[early:]) / (n - early)
    chosen = np.argpartition(-seen, TOP - 1, axis=1)[:, :TOP]
    kept = np.take_along_axis(later, chosen, axis=1).mean(1)
    return {
        "pass": int(passing(real, *FILTER)[0]),
        "pass null": float(passing(null, *FILTER).mean()),
        "loose": int(passing(real, 0.5, 0.2)[0]),
        "loose null": float(passing(null, 0.5, 0.2).mean()),
        "rises": int((rise["real"] >= RISE - 1e-6).sum()),
        "rises null": float((rise["null"] >= RISE - 1e-6).sum(1).mean()),
        "largest": float(rise["real"].max()),
        "largest null": float(np.quantile(rise["null"].max(1), 0.95)),
        "held out": float(kept[0]),
        "apart": float(apart[early:][:, chosen[0]].mean()),
        "held out null": float(np.quantile(kept[1:], 0.95)),
    }
