"""The same work on another device or in another precision: what each call gives there and here.

`python experiments/bench/devices.py run OUT.json --device cuda --dtype float32` runs one small case
of every kind of call on polyglot and keeps the results; `python experiments/bench/devices.py
compare A.json B.json` prints a table of how far two of them are apart. A call that fails is in the
table with its error, and the others go on.
"""

import argparse
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import steerlab as sl

LANGS, SOURCE, TARGET = ["en", "de", "fr", "it", "ru"], "en", "de"
LAYERS = [2, 3, 5]
SITES = ("resid_pre", "resid_mid", "attn_out", "mlp_out", "attn_z", "mlp_post")
SHIFTS = ("add", "rotate", "affine", "push", "conceptor", "overwrite")
OF_UNITS = ("neuron_add", "neuron_set", "clamp", "gate", "signed_shift", "push_pull", "add")

Result = dict[str, Any]


class Work:
    """The calls, on one device; what several of them need is made once."""

    def __init__(self, device: str, dtype: str):
        self.model = sl.load(device=device, dtype=dtype)
        self.corpus = sl.corpus(langs=LANGS)
        self.texts = self.corpus.split("estimate").take(48)
        self.lines = [f"{line}\n" for line in self.corpus.split("dev")[SOURCE][:8]]

    @cache  # noqa: B019 -- one object, for the length of the script
    def moments(self) -> Any:
        return sl.collect(
            self.model,
            self.texts,
            layers=LAYERS,
            also=["scatter", "pairs", "sample"],
            source=SOURCE,
        )

    @cache  # noqa: B019
    def edits(self) -> list[Any]:
        directions = sl.diffmean(self.moments())
        step = directions.between(SOURCE, TARGET)
        return [
            sl.add(step.at(5)),
            sl.ablate(directions[SOURCE].at(3)),
            sl.rotate(step.at(3), share=1.0),
            sl.affine(step.at(2)),
        ]

    @cache  # noqa: B019
    def words(self) -> Any:
        return sl.mass.lexicon(self.model, self.texts)

    def sweep(self, **keys: Any) -> pd.DataFrame:
        return sl.sweep(self.model, self.corpus, targets=[TARGET], **keys)

    def directions(self) -> Result:
        found: Result = {"means": self.moments().mean}
        for name in ("diffmean", "lda", "pca", "probe", "eigengap"):
            fitted = getattr(sl, name)(self.moments())
            found[name] = fitted.between(SOURCE, TARGET).unit
        return found

    def reading(self) -> Result:
        whole = sl.cross_entropy(self.model, self.lines, self.edits())
        parts = sl.cross_entropy(self.model, self.lines, self.edits(), batch=3)
        return {"nats": whole, "nats in small batches": parts}

    def decoding(self) -> Result:
        texts = sl.generate(self.model, self.lines, max_new_tokens=16)
        for edit in self.edits():
            texts += sl.generate(self.model, self.lines, edit=edit, max_new_tokens=16)
        drawn = sl.generate(self.model, self.lines, temperature=0.8, seed=3, max_new_tokens=12)
        return {"greedy": texts, "sampled": drawn}

    def shifts(self) -> Result:
        rows = self.sweep(
            estimators=["diffmean", "ellipsoid", "sparse"],
            operators=list(SHIFTS),
            layers=[3],
            limit=4,
            new_tokens=16,
            fluency=True,
        )
        bits = rows["bits_per_byte_ratio"]
        return {"outputs": rows["output"], "dose": rows["dose"], "bits per byte": bits}

    def units(self) -> Result:
        rows = self.sweep(
            estimators=["lape", "monolinguality", "monolinguality gated", "culnig", "foxp2"],
            operators=list(OF_UNITS),
            layers=[3],
            limit=3,
            new_tokens=12,
        )
        return {"outputs": rows["output"], "dose": rows["dose"]}

    def masses(self) -> Result:
        found = sl.mass.language_masses(self.model, self.lines[:3], self.edits()[:2], self.words())
        return {"mass": found.mass, "kl": found.kl}

    def lift(self) -> Result:
        saes = sl.units.saes(layers=[3])
        firing = sl.collect_units(self.model, self.texts.take(24), saes)
        found = sl.units.causal_lift(
            self.model,
            self.corpus.split("dev").take(3),
            saes,
            sl.units.candidates(firing, source=SOURCE, pool=3),
            self.words(),
            firing=firing,
            source=SOURCE,
            strengths=(1.0, 2.0),
        )
        return {"slope": found.slope}

    def controls(self) -> Result:
        random = sl.effects.random_like(self.model, self.lines[:4], self.edits()[0], seed=1)
        dev = self.corpus.split("dev").take(4)
        rows = sl.effects.language_effects(self.model, dev, {TARGET: self.edits()[0]})
        nats = sl.cross_entropy(self.model, self.lines[:4], [random])
        return {"nats of a random twin": nats, "rise": rows["rise"], "dose": rows["dose"]}

    def sites(self) -> Result:
        found: Result = {}
        for site in SITES:
            moments = sl.collect(self.model, self.texts.take(12), layers=[3], site=site, also=[])
            edit = sl.add(sl.diffmean(moments).between(SOURCE, TARGET), strength=2.0)
            found[f"means at {site}"] = moments.mean
            found[f"nats under add at {site}"] = sl.cross_entropy(
                self.model, self.lines[:3], [edit]
            )
        return found

    def judging(self) -> Result:
        rows = self.sweep(layers=[3], strengths=[1], limit=4, new_tokens=16, judge="likelihood")
        return {"relevant": rows["relevant"].astype(float)}


CALLS: tuple[Callable[[Work], Result], ...] = (
    Work.directions,
    Work.reading,
    Work.decoding,
    Work.shifts,
    Work.units,
    Work.masses,
    Work.lift,
    Work.controls,
    Work.sites,
    Work.judging,
)


def run(out: Path, *, device: str, dtype: str) -> None:
    """Every call's results in a file, as JSON: numbers as nested lists, NaN as null."""
    work = Work(device, dtype)
    found: dict[str, Any] = {}
    for call in CALLS:
        try:
            found[call.__name__] = {name: _plain(value) for name, value in call(work).items()}
        except Exception as error:
            found[call.__name__] = {"error": f"{type(error).__name__}: {error}"}
        out.write_text(json.dumps(found), "utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        value = value.detach().double().cpu().numpy()
    values = np.asarray(value)
    if values.dtype.kind in "OUS":
        return [str(each) for each in values.ravel()]
    return np.nan_to_num(values.astype(float)).tolist()


def compare(first: Path, second: Path) -> str:
    """A Markdown table: texts that are the same, and the largest difference over the largest value
    elsewhere."""
    a, b = (json.loads(file.read_text("utf-8")) for file in (first, second))
    lines = ["| call | result | apart |", "|---|---|---|"]
    for call in a:
        errors = [found[call]["error"] for found in (a, b) if "error" in found.get(call, {})]
        if errors or call not in b:
            lines.append(f"| {call} | | {'; '.join(errors) or 'missing'} |")
            continue
        for name, value in a[call].items():
            lines.append(f"| {call} | {name} | {_apart(value, b[call][name])} |")
    return "\n".join(lines)


def _apart(a: list[Any], b: list[Any]) -> str:
    if a and isinstance(a[0], str):
        same = sum(one == other for one, other in zip(a, b, strict=True))
        return f"{same} of {len(a)} the same"
    one, other = np.array(a), np.array(b)
    if one.shape != other.shape:
        return f"shapes {one.shape} and {other.shape}"
    return f"{np.abs(one - other).max() / max(np.abs(one).max(), 1e-12):.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    running = verbs.add_parser("run")
    running.add_argument("out", type=Path)
    running.add_argument("--device", default="cpu")
    running.add_argument("--dtype", default="float32")
    comparing = verbs.add_parser("compare")
    comparing.add_argument("first", type=Path)
    comparing.add_argument("second", type=Path)
    options = parser.parse_args()
    if options.verb == "run":
        run(options.out, device=options.device, dtype=options.dtype)
    else:
        print(compare(options.first, options.second))


if __name__ == "__main__":
    main()
