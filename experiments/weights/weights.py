"""Steering in the weights beside hooks, and AUSteer and Steer2Edit beside plain addition:
`python experiments/weights/weights.py` writes docs/weights.md."""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

import steerlab as sl
from steerlab.analysis.intervals import by_sentence, paired_difference
from steerlab.edits import Edit
from steerlab.engine.decoding import decode
from steerlab.engine.prompts import prompt
from steerlab.engine.shots import read_shots, shots
from steerlab.scores.answer import Answer

PAGE = Path(__file__).parents[2] / "docs" / "weights.md"
SOURCE, TARGET, NEW = "en", "de", 24
DEV, ROUNDS, SEEDS = 20, 7, 3
LAYERS, STRENGTHS = (3, 4, 5, 6), (0.5, 1.0, 1.5, 2.0)
NUMBERS, SCALES = (32, 100, 300), (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
RHOS, ALPHAS = (1.0, 2.0, 4.0, 8.0, 16.0), (0.05, 0.2, 0.5, 0.8)
SITES, READS = ("attn_z", "mlp_post"), ("last", "mean")
EVERYWHERE = "everywhere"


class Bed:
    """A model, its texts, and what was read of them.

    Args:
        test: lines that are reported on.
        model: what `load` takes.
        form: how a sentence becomes a prompt.
        dev: lines that settings are chosen on.
    """

    def __init__(self, test: int, model: Any = None, form: str = "line", dev: int = DEV) -> None:
        self.model: Any = sl.load(model)
        self.form = form
        self.corpus = sl.corpus(langs=[SOURCE, TARGET])
        self.some = self.corpus.split("estimate")
        self.directions = sl.diffmean(sl.collect(self.model, self.some, also=[]))
        self.splits = {
            "dev": self.corpus.split("dev").take(dev),
            "test": self.corpus.split("test").take(test),
        }
        self.who = sl.scores.identifier()

    @cached_property
    def means(self) -> dict[str, Any]:
        return {site: sl.collect(self.model, self.some, site=site, also=[]) for site in SITES}

    @cached_property
    def texts(self) -> dict[tuple[str, str], Any]:
        return {
            (site, read): sl.collect_texts(self.model, self.some, site=site, read=read)
            for site in SITES
            for read in READS
        }

    def prompts(self, split: str) -> list[str]:
        given = shots(self.corpus, self.form, SOURCE, TARGET) if read_shots(self.form) else ()
        return [
            prompt(self.model.tokenizer, self.form, line, shots=given)
            for line in self.splits[split][SOURCE]
        ]

    def score(self, split: str, outputs: Sequence[str]) -> dict[str, np.ndarray]:
        """`joint` and `in_language` of outputs, which are of each line in turn."""
        lines = self.splits[split]
        answers = [
            Answer(output, given, line, number, SOURCE, TARGET)
            for output, given, line, number in zip(
                outputs, self.prompts(split), lines[SOURCE], lines.numbers, strict=True
            )
        ]
        judge = sl.judges.Retrieval(self.corpus.split(split))
        return sl.judges.score(answers, identifier=self.who, judge=judge)

    def many(self, split: str, edits: Sequence[Edit]) -> list[dict[str, np.ndarray]]:
        """The scores of each of some edits; all run together."""
        prompts = self.prompts(split)
        rows = [(edit, given) for edit in edits for given in prompts]
        stacked = sl.stack([edit for edit, _ in rows])
        said = decode(
            self.model, [given for _, given in rows], edit=stacked, max_new_tokens=NEW
        ).texts
        size = len(prompts)
        return [
            self.score(split, said[start : start + size]) for start in range(0, len(rows), size)
        ]

    def one(
        self, split: str, edit: Edit | None = None, weights: Any = None, model: Any = None
    ) -> dict[str, Any]:
        """The scores under an edit, or weights, or neither; of another model, if one is given."""
        with nullcontext() if weights is None else weights.on(self.model):
            said = decode(
                model or self.model, self.prompts(split), edit=edit, max_new_tokens=NEW
            ).texts
        return self.score(split, said) | {"said": said}


def best(scores: dict[Any, dict[str, np.ndarray]]) -> Any:
    """The setting with the most joint on dev, then the most in the language; of equal ones the
    first."""
    return max(
        scores, key=lambda key: (scores[key]["joint"].mean(), scores[key]["in_language"].mean())
    )


def added(bed: Bed, layer: int, strength: float, positions: str = "all") -> Edit:
    step = bed.directions.between(SOURCE, TARGET).at(layer)
    return sl.add(step, strength=strength, positions=positions)


def scaled(bed: Bed, place: tuple[str, str], selection: Any, strength: float) -> Edit:
    made = sl.units.momenta(selection, bed.texts[place], source=SOURCE)
    step = made.at(*made.where(TARGET)).between(SOURCE, TARGET)
    return sl.edits.scale_units(step, strength=strength)


def units(bed: Bed, place: tuple[str, str], number: int, **options: Any) -> Any:
    return sl.units.austeer(bed.texts[place], source=SOURCE, number=number, **options)


def edited(bed: Bed, rho: float, alpha: float, sites: str, seed: int | None = None) -> Any:
    """Steer2Edit, or None where no component agrees enough."""
    heads, neurons = (rho if kind in sites else None for kind in ("heads", "neurons"))
    try:
        return sl.steer2edit(
            bed.model,
            *bed.means.values(),
            source=SOURCE,
            target=TARGET,
            rho_heads=heads,
            rho_neurons=neurons,
            alpha=alpha,
            random=seed,
        )
    except sl.SteerlabError:
        return None


def table(bed: Bed, test: dict[str, dict[str, Any]], chosen: dict[str, str]) -> list[str]:
    sentences = np.array(bed.splits["test"].numbers)
    base = test["`add`, hooks"]["joint"].astype(float)
    out = [
        "| way | chosen on dev | joint (95 %) | less `add`, hooks (95 %) | in the language | n |",
        "|---|---|---|---|---|---|",
    ]
    for name, scores in test.items():
        joint = scores["joint"].astype(float)
        repeated = np.tile(sentences, len(joint) // len(sentences))
        value, low, high = by_sentence(joint, repeated)
        gap, down, up = paired_difference(joint, repeated, base, sentences)
        out.append(
            f"| {name} | {chosen.get(name, '–')} | {value:.2f} ({low:.2f} to {high:.2f}) | "
            f"{gap:+.2f} ({down:+.2f} to {up:+.2f}) | {scores['in_language'].mean():.2f} | {len(joint)} |"
        )
    return out


def pooled(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        name: np.concatenate([part[name] for part in parts]) for name in ("joint", "in_language")
    }


def of_addition(bed: Bed) -> Iterator[tuple[str, str, Any]]:
    """(way, setting, scores on test), of addition by hooks and in the weights."""
    yield "unsteered", "–", bed.one("test")
    keys = list(itertools.product(LAYERS, STRENGTHS))
    found = bed.many("dev", [added(bed, *key) for key in keys])
    layer, strength = best(dict(zip(keys, found, strict=True)))
    setting = f"layer {layer}, strength {strength:g}"
    yield "`add`, hooks", setting, bed.one("test", added(bed, layer, strength))
    edit = added(bed, layer, strength, EVERYWHERE)
    yield "`add`, hooks, BOS too", setting, bed.one("test", edit)
    yield "`add`, baked", setting, bed.one("test", weights=sl.bake(bed.model, edit))


def of_units(bed: Bed, said: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """AUSteer at its best setting, and its controls there."""
    keys = list(itertools.product(bed.texts, NUMBERS, SCALES))
    edits = [scaled(bed, place, units(bed, place, number), scale) for place, number, scale in keys]
    place, number, scale = best(dict(zip(keys, bed.many("dev", edits), strict=True)))
    setting = f"{number} units of `{place[0]}`, by {place[1]} tokens, strength {scale:g}"
    chosen = units(bed, place, number)
    said |= chosen.provenance["settings"]
    yield "AUSteer", setting, bed.one("test", scaled(bed, place, chosen, scale))
    drawn = [sl.units.random_atoms(chosen, seed=seed) for seed in range(SEEDS)]
    shuffled = [units(bed, place, number, shuffled=seed) for seed in range(SEEDS)]
    last = units(bed, place, number, layers=[bed.model.n_layers - 1])
    for name, selections in (
        ("random units", drawn),
        ("units of shuffled labels", shuffled),
        ("units of the last layer", [last]),
    ):
        edits = [scaled(bed, place, each, scale) for each in selections]
        yield name, f"{setting}, {len(edits)} draws", pooled(bed.many("test", edits))


def of_components(bed: Bed) -> Iterator[tuple[str, str, Any]]:
    """Steer2Edit at its best setting, and its control there."""
    keys = list(itertools.product(RHOS, ALPHAS, ("heads", "neurons", "heads and neurons")))
    scores = {}
    for key in keys:
        weights = edited(bed, *key)
        if weights is not None:
            scores[key] = bed.one("dev", weights=weights)
    rho, alpha, which = best(scores)
    setting = f"{which}, rho {rho:g}, alpha {alpha:g}"
    made = edited(bed, rho, alpha, which)
    yield "Steer2Edit", setting, bed.one("test", weights=made)
    controls = [edited(bed, rho, alpha, which, seed) for seed in range(SEEDS)]
    parts = [bed.one("test", weights=each) for each in controls]
    yield "Steer2Edit, random direction", f"{setting}, {SEEDS} draws", pooled(parts)


def costs(bed: Bed, layer: int = 4) -> list[str]:
    """Processor time of a token, of hooks and of weights over that of the model as it is."""
    edit = added(bed, layer, 1.0, EVERYWHERE)
    weights = sl.bake(bed.model, edit)
    return timed(
        {
            "as it is": (bed.model, nullcontext),
            "hooks": (bed.model, lambda: edit.on(bed.model)),
            "baked": (bed.model, lambda: weights.on(bed.model)),
        }
    )


def timed(
    ways: Mapping[str, tuple[Any, Callable[[], Any]]], rows: int = 8, new: int = 48
) -> list[str]:
    """A table of the processor time of a token, of models each in a context, over the first's."""
    ids = torch.full((rows, 32), 50)
    mask = torch.ones_like(ids)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS + 1):
        for name, (model, on) in ways.items():
            with on():
                begun = time.process_time()
                model.hf.generate(
                    ids,
                    attention_mask=mask,
                    max_new_tokens=new,
                    min_new_tokens=new,
                    do_sample=False,
                )
                spent = time.process_time() - begun
            if turn:  # the first warms up
                taken[name].append(1000 * spent / (rows * new))
    plain = next(iter(taken.values()))
    out = ["| | ms a token | over the model as it is |", "|---|---|---|"]
    for name, times in taken.items():
        ratios = [one / other for one, other in zip(times, plain, strict=True)]
        out.append(
            f"| {name} | {statistics.median(times):.2f} | {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}) |"
        )
    return out


def page(test: int) -> str:
    bed = Bed(test)
    found: dict[str, dict[str, Any]] = {}
    chosen: dict[str, str] = {}
    told: dict[str, Any] = {}
    for ways in (of_addition(bed), of_units(bed, told), of_components(bed)):
        for name, setting, scores in ways:
            found[name], chosen[name] = scores, setting
            print(name, setting, round(float(scores["joint"].mean()), 3), flush=True)
    same = np.mean(
        [
            one == other
            for one, other in zip(
                found["`add`, hooks, BOS too"]["said"], found["`add`, baked"]["said"], strict=True
            )
        ]
    )
    tied, of_these = told["tied"][TARGET]
    return "\n".join(
        [
            "# Steering in the weights",
            "",
            f"Written by `python experiments/weights/weights.py` on polyglot, {SOURCE} to {TARGET}: settings are chosen on {DEV} dev lines by "
            f"joint, and reported on {len(bed.splits['test'])} test lines; greedy, {NEW} tokens behind the bare line. What `bake`, `austeer` and "
            "`steer2edit` do is in [Methods](methods.md#in-the-weights). Gemma's stream, in which a shift stands behind a norm, has a page of its own: "
            "[a block more](weights_gemma.md).",
            "",
            *table(bed, found, chosen),
            "",
            f"- Baked and by hooks at the same positions, {same:.0%} of the outputs are the same text.",
            f"- AUSteer: {told['perfect'][TARGET]} units have the same sign in all pairs; at its last choice {tied} units are tied, of which "
            f"{of_these} were taken by mean over standard deviation. Chance reaches {told['chance'][TARGET]:.2f}.",
            "- The grids of AUSteer (strength 1) and of Steer2Edit (rho 2, alpha 0.2) were made longer after a first run had chosen "
            "at their ends; what is at an end now may go further still.",
            f"- Grids: `add` at layers {LAYERS} and strengths {STRENGTHS}; AUSteer {NUMBERS} units at strengths {SCALES} of each of {SITES}, by last tokens and by means; Steer2Edit "
            f"rho {RHOS}, alpha {ALPHAS}, of heads, of neurons, of both. Steer2Edit steers at all layers at once.",
            "",
            "## Time",
            "",
            f"Processor time of one thread, {ROUNDS} rounds in turn, 8 rows of 32 tokens that go on for 48, by the network's own `generate`; the median, "
            "and the least and largest ratio of a round.",
            "",
            *costs(bed),
            "",
        ]
    )


def write(page: Callable[[int], str], file: Path, *, about: str | None, test: int) -> None:
    """Make a page by the options of the command line."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--test", type=int, default=test, help="lines of test")
    parser.add_argument("--print", action="store_true", help="print the page, and write nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    text = page(arguments.test)
    if arguments.print:
        print(text)
    else:
        file.write_text(text, "utf-8")


if __name__ == "__main__":
    write(page, PAGE, about=__doc__, test=70)
