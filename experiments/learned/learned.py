"""Trained directions, directions of attributed tokens, chosen units and amplified edits beside the
difference of means: what each reaches, and the seconds and tokens that it took to fit. `python
experiments/learned/learned.py` writes docs/learned.md; `--model gemma-3-270m --out FILE` writes the
same of another model."""

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))  # experiments

from components import Atoms, Written, atoms, components_said, of_dev, written
from saes.training import kept

import steerlab as sl
from steerlab.analysis.choices import choose
from steerlab.analysis.intervals import paired_difference
from steerlab.analysis.results import result
from steerlab.core.directions import Directions
from steerlab.edits import Operator, add
from steerlab.engine.amplify import Strengths, amplifying_strengths
from steerlab.engine.forward import read
from steerlab.engine.prompts import encode
from steerlab.models.counting import counted
from steerlab.models.model import Model

PAGE = Path(__file__).parents[2] / "docs" / "learned.md"
NEW = 24
GAPS = (0.5, 1.0, 1.5)
OF_GRAINS = (
    " `grains`, of {pairs} pairs, takes a quarter of each prompt's tokens away, and its `random tokens` as many others; both, "
    "and `diffmean, length kept`, are added with each position's length kept, as published. The attributions miss {mean:.1%} of "
    "a pair's change on average and {worst:.1%} at most, after {points:.0f} points of the path."
)
RULES = (("kl", 0.1), ("kl", 0.0), ("difference", 0.1), ("difference", 0.0))


@dataclass
class Fitted:
    """A method's directions, the operator that it goes with, and what fitting took."""

    directions: Directions
    operator: str = "add"
    seconds: float = 0.0
    tokens: int = 0
    curve: str = "–"
    units: Atoms | None = None

    @property
    def everywhere(self) -> bool:
        """Whether it is of units of all layers."""
        return self.operator == "scale_units"


class Bed:
    """A model, its texts and the directions of every method."""

    def __init__(self, given: argparse.Namespace):
        self.model: Model = sl.load(given.model, dtype="float32")  # in which it is trained
        self.source, self.target = "en", given.target
        self.corpus = sl.corpus(langs=[self.source, self.target])
        self.form = "line" if given.model == "polyglot" else "echo:5"
        self.layer = given.layer if given.layer >= 0 else round(0.4 * self.model.n_layers)
        self.lines = {"dev": given.dev, "test": given.test}
        self.steps, self.pairs, self.seed = given.steps, given.pairs, given.seed
        # Some hundred passes of each pair, forth and back: of a large model that takes hours.
        by_default = given.pairs if given.model == "polyglot" else 0
        self.attributing = by_default if given.attributed < 0 else given.attributed
        # The packaged autoencoders are of the packaged model; others lie where they were trained.
        cached = None if given.model == "polyglot" else str(kept(self.model))
        self.saes = _saes(given.saes or cached)

    def fits(self) -> dict[str, Fitted]:
        """Every method, and the controls of each."""
        begun = time.process_time()
        texts = self.corpus.split("estimate").take(self.pairs)
        with counted(self.model) as count:
            moments = sl.collect(self.model, texts, layers=[self.layer], also=[], progress=False)
        means = sl.diffmean(moments)
        cost = time.process_time() - begun
        made = {"diffmean": Fitted(means, "add", cost, count.tokens)}
        pairs = sl.preferences(
            self.corpus, self.source, self.target, split="estimate", form=self.form, new=NEW
        ).take(self.pairs)
        trainings: dict[str, dict[str, Any]] = {
            "bipo": {"how": "bipo"},
            "bipo from diffmean": {"how": "bipo", "start": means},
            "lm": {"how": "lm"},
            "lm from diffmean": {"how": "lm", "start": means},
            "reft_r1 from diffmean": {"how": "reft_r1", "start": means},
        }
        sae = self.saes.get(self.layer)
        if sae is not None:
            bases = max(1, sae.latents // (2 * sae.width))
            random = sl.controls.dictionary(
                sae.width, 2 * sae.width * bases, layer=self.layer, seed=0
            )
            trainings |= {
                "yapo": {"how": "yapo", "sae": sae},
                "yapo, random dictionary": {"how": "yapo", "sae": random},
            }
        for name, options in trainings.items():
            directions = sl.learn(
                self.model, pairs, layer=self.layer, steps=self.steps, seed=self.seed, **options
            )
            made[name] = _fitted(directions)
            print(name, made[name].seconds, made[name].curve, file=sys.stderr, flush=True)
        wrong = _shuffled(pairs)
        made["bipo, shuffled answers"] = _fitted(
            sl.learn(self.model, wrong, layer=self.layer, steps=self.steps, seed=self.seed)
        )
        if self.attributing:
            made |= self.attributed(pairs.take(self.attributing), means)
        for name, units in atoms(self).items():
            first = next(iter(units.of.values()))
            made[name] = Fitted(first, "scale_units", units.seconds, units.tokens, units=units)
        made["random"] = Fitted(sl.controls.random(means, seed=self.seed, source=self.source))
        return made

    def attributed(self, pairs: Any, means: Directions) -> dict[str, Fitted]:
        """GrAInS and its controls, under its own operator, and the difference of means under it."""
        operator = "add_keep_norm"
        made = {"diffmean, length kept": Fitted(means, operator)}
        begun = time.process_time()
        found = sl.attribution(self.model, pairs)
        cost = time.process_time() - begun
        for groups, name in (("both", "grains"), ("positive", "grains, positive tokens alone")):
            for tokens, chosen in (("top", ""), ("random", ", random tokens")):
                directions = sl.grains(
                    self.model,
                    pairs,
                    layers=[self.layer],
                    groups=groups,
                    tokens=tokens,
                    attributions=found,
                    seed=self.seed,
                )
                fit = directions.provenance["cost"]
                read = found.attrs["tokens"] + fit["tokens"]
                seconds = cost + fit["cpu_seconds"]
                made[name + chosen] = Fitted(directions, operator, seconds, read)
                print(name + chosen, directions.provenance["completeness"], file=sys.stderr)
        return made

    def sweep(
        self,
        split: str,
        directions: Mapping[str, Directions],
        operators: Any,
        *,
        everywhere: bool = False,
    ) -> pd.DataFrame:
        rows = sl.sweep(
            self.model,
            self.corpus,
            targets=[self.target],
            split=split,
            limit=self.lines[split],
            new_tokens=NEW,
            prompt=self.form,
            directions=directions,
            operators=operators,
            layers=None if everywhere else [self.layer],
            progress=False,
        )
        if rows.attrs.get("failed"):
            raise SystemExit(f"a cell failed: {next(iter(rows.attrs['failed'].items()))}")
        return rows


def _saes(folder: str | None) -> Mapping[int, Any]:
    try:
        return sl.units.saes(folder)
    except sl.SteerlabError:
        return {}


def _of_sae(bed: Bed) -> str:
    """The autoencoder that is not the package's, in words."""
    sae = bed.saes.get(bed.layer)
    if sae is None or bed.model.name == "polyglot":
        return ""
    tokens = sae.about.get("metadata", {}).get("training_tokens") or 0
    return (
        f" The autoencoder of `yapo` has {sae.latents:,} latents and was trained on {tokens:,} tokens "
        "(`experiments/gemma/train_saes.py`)."
    )


def _shuffled(pairs: Any) -> Any:
    """The chosen answers of other sentences."""
    from dataclasses import replace

    lines = dict(pairs.texts.lines)
    target = lines[pairs.target]
    lines[pairs.target] = (*target[1:], target[0])
    return replace(pairs, texts=replace(pairs.texts, lines=lines))


def _fitted(directions: Directions) -> Fitted:
    made = directions.provenance
    losses = [loss for _, _, loss in made["curve"]]
    return Fitted(
        directions,
        "add_code" if made["estimator"] == "yapo" else "add",
        made["cost"]["cpu_seconds"],
        made["cost"]["tokens"],
        f"{losses[0]:.3f} → {min(losses):.3f} at step {made['curve'][losses.index(min(losses))][0]}",
    )


def grid_of(fit: Fitted) -> tuple[float, ...]:
    """Natural gaps, and the length at which it was trained."""
    if fit.operator == "add_code":
        return (0.5, 1.0, 1.5)
    length = float(fit.directions.provenance.get("length", 0))
    if length < 0.1:  # of `reft_r1`, whose vectors are of length 1
        return GAPS
    return tuple(sorted({*GAPS, round(length, 2)}))


def line_of(name: str, part: pd.DataFrame, base: pd.DataFrame, cells: list[str]) -> str:
    value, low, high = result(part)["joint"]
    dose = "–" if part["dose"].isna().all() else f"{part['dose'].mean():.2f}"
    less = "–"
    if part is not base:
        gap, down, up = paired_difference(
            part["joint"].to_numpy(float),
            part["sentence"].to_numpy(),
            base["joint"].to_numpy(float),
            base["sentence"].to_numpy(),
        )
        less = f"{gap:+.2f} ({down:+.2f} to {up:+.2f})"
    return (
        f"| {name} | {cells[0]} | {value:.2f} ({low:.2f} to {high:.2f}) | {less} | "
        f"{part['in_language'].mean():.2f} | {dose} | "
        + " | ".join(cells[1:])
        + f" | {len(part)} |"
    )


def methods(
    bed: Bed, fits: dict[str, Fitted]
) -> tuple[list[str], dict[str, float], pd.DataFrame, Written]:
    """Each at the strength that dev chooses, on test."""
    chosen: dict[str, float] = {}
    shown: dict[str, str] = {}
    tests: dict[str, pd.DataFrame] = {}
    for name, fit in fits.items():
        if not fit.everywhere and bed.layer not in fit.directions.where(bed.target, bed.source):
            continue  # the start was the best on held-out pairs, and it is nothing
        held = {"fit": fit.directions}
        if fit.units is not None:
            number, chosen[name] = fit.units.choose(bed)
            held = {"fit": fit.units.of[number]}
            shown[name] = f"{number:,} units, × {chosen[name]:g}"
        else:
            rows = bed.sweep("dev", held, {fit.operator: grid_of(fit)})
            chosen[name] = next(iter(choose(rows.assign(method=name)).values()))[1]
            shown[name] = f"{chosen[name]:g}"
        at = {fit.operator: (chosen[name],)}
        tests[name] = bed.sweep("test", held, at, everywhere=fit.everywhere)
        print(name, chosen[name], tests[name]["joint"].mean(), file=sys.stderr, flush=True)
    base = tests["diffmean"]
    said = [
        "| method | strength | joint (95 %) | less `diffmean` (95 %) | in language | dose | cosine | loss on held-out pairs | seconds | tokens | n |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    unit = fits["diffmean"].directions.between(bed.source, bed.target).at(bed.layer).unit[0]
    for name, fit in fits.items():
        cost = [f"{fit.seconds:.0f}", f"{fit.tokens:,}"] if fit.tokens else ["–", "–"]
        if name not in tests:
            said.append(
                f"| {name} | no direction | – | – | – | – | – | {fit.curve} | {' | '.join(cost)} | 0 |"
            )
            continue
        cosine = "–"
        if not fit.everywhere:
            own = fit.directions.between(bed.source, bed.target).at(bed.layer).unit[0]
            cosine = f"{float(torch.cosine_similarity(own, unit, dim=0)):.2f}"
        cells = [shown[name], cosine, fit.curve, *cost]
        said.append(line_of(name, tests[name], base, cells))
    weights = dict(written(bed, fits["diffmean"].directions))
    for name, found in weights.items():
        cells = [found.setting, "–", "–", f"{found.seconds:.0f}", f"{found.tokens:,}"]
        said.append(line_of(name, found.rows, base, cells))
        print(name, found.setting, found.rows["joint"].mean(), file=sys.stderr, flush=True)
    plain = bed.sweep("test", {"none": fits["diffmean"].directions}, {"add": (1e-6,)})
    said.append(line_of("unsteered", plain, base, ["0", "–", "–", "–", "–"]))
    return said, chosen, base, weights["steer2edit"]


def amplified(bed: Bed, fit: Fitted, strength: float, base: pd.DataFrame) -> list[str]:
    """`diffmean` at its choice, amplified by the strength that dev's answers ask for."""
    edit = add(fit.directions.between(bed.source, bed.target).at(bed.layer), strength=strength)
    dev = sl.preferences(bed.corpus, bed.source, bed.target, split="dev", form=bed.form)
    dev = dev.take(bed.lines["dev"])
    said = [
        "| rule | mask | μ | Gauss–Newton mean, median | nats a token at 0 → at μ | tokens, masked | joint (95 %) | less `diffmean` (95 %) | in language | n |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    rules: list[tuple[str, float, Strengths | None]] = [("kl", 0.1, None)]
    for rule, mask in RULES:
        rules.append((rule, mask, amplifying_strengths(bed.model, edit, dev, rule=rule, mask=mask)))
    for rule, mask, found in rules:
        at = 0.0 if found is None else found.best
        record = Operator(
            make=_make(at, rule, mask),
            knob="strength",
            unit="natural gaps",
            grid=(strength,),
            no_twin="it is compared with the plain edit",
        )
        rows = bed.sweep("test", {"fit": fit.directions}, {"amplified": record})
        value, low, high = result(rows)["joint"]
        gap, down, up = paired_difference(
            rows["joint"].to_numpy(float),
            rows["sentence"].to_numpy(),
            base["joint"].to_numpy(float),
            base["sentence"].to_numpy(),
        )
        about = "– | – | –"
        if found is not None:
            about = (
                f"{found.mean:.2f}, {found.median:.2f} | {found.loss[0]:.3f} → {found.loss[1]:.3f} | "
                f"{found.tokens}, {found.masked}"
            )
        said.append(
            f"| `{rule}` | {mask:g} | {at:.2f} | {about} | {value:.2f} ({low:.2f} to {high:.2f}) | "
            f"{gap:+.2f} ({down:+.2f} to {up:+.2f}) | {rows['in_language'].mean():.2f} | {len(rows)} |"
        )
    return said


def _make(at: float, rule: str, mask: float) -> Any:
    def make(direction: Any, *, strength: float = 1.0) -> Any:
        return sl.amplify(add(direction, strength=strength), at, rule=rule, mask=mask)

    return make


def alive(bed: Bed, means: Directions) -> str:
    """What `reft_r1` would have to learn from, as it sets out from the difference of means."""
    pairs = sl.preferences(
        bed.corpus, bed.source, bed.target, split="estimate", form=bed.form
    ).take(bed.pairs)
    unit = means.between(bed.source, bed.target).at(bed.layer).unit[0].float()
    found: list[torch.Tensor] = []

    def look(h: torch.Tensor, where: Any) -> None:
        found.append((h.float() @ unit)[where.text])

    with torch.inference_mode():
        for prompt in pairs.prompts(bed.model):
            read(
                bed.model, encode(bed.model.tokenizer, [prompt]), [("resid_post", bed.layer, look)]
            )
    along = torch.cat(found)
    return (
        f"- `h·w` along `diffmean`'s direction is {along.min():,.0f} to {along.max():,.0f} at {len(along):,} tokens of the "
        f"prompts, and above 0 at {int((along > 0).sum()):,} of them; `reft_r1` learns from these alone."
    )


def fell_short(said: list[str]) -> list[str]:
    """What the tables themselves show."""
    compared = [line for line in said if line.startswith("| ") and " to " in line]
    clear = [
        line.split("|")[1].strip()
        for line in compared
        if (found := [cell for cell in line.split("|") if "(+" in cell or "(-" in cell])
        and (found[0].count("+") == 3 or found[0].count("-") == 3)
    ]
    return [
        f"- Of {len(compared) - 1} rows beside `diffmean`, the difference of {len(clear)} has an interval without zero"
        + (f": {', '.join(clear)}." if clear else ".")
    ]


def of_grains(fits: dict[str, Fitted]) -> str:
    """What GrAInS' rows are of, and how exact its attributions."""
    if "grains" not in fits:
        return ""
    made = fits["grains"].directions.provenance
    about, pairs = made["completeness"], made["pairs"]
    points = about["points"] / pairs
    return OF_GRAINS.format(pairs=pairs, mean=about["mean"], worst=about["worst"], points=points)


def page(bed: Bed, command: str) -> str:
    fits = bed.fits()
    first, chosen, base, weights = methods(bed, fits)
    units = fits["austeer"].units
    assert units is not None
    plain = bed.sweep("dev", {"none": fits["diffmean"].directions}, {"add": (1e-6,)})
    second = amplified(bed, fits["diffmean"], chosen["diffmean"], base)
    return "\n".join(
        [
            "# Trained directions, amplified edits",
            "",
            f"`{command}` on {bed.model.name}, {bed.source} to {bed.target}, layer {bed.layer}, prompt form "
            f"`{bed.form}`. Directions are fitted on {bed.pairs} sentences of `estimate`, a fifth of the pairs held "
            f"out to stop; the strength is chosen on {bed.lines['dev']} lines of `dev`, and the numbers are of "
            f"{bed.lines['test']} lines of `test` (n) with 95 % intervals. At most {bed.steps} steps of 4 pairs, seed "
            f"{bed.seed}.{_of_sae(bed)} Formulas: [Methods](methods.md#trained-directions).",
            "",
            "## What each reaches, and what it costs",
            "",
            "Strengths are natural gaps, of `yapo` times the trained code, of `austeer` units and the factor of their rates; seconds are of the processor, with the model's "
            "own answers to the prompts; tokens are all that were read to fit. Cosine: with the difference of means; of "
            "`yapo` of the vector that the code decodes to.",
            "",
            *first,
            "",
            "Controls: `shuffled answers` are chosen answers of other sentences, in the same language; `random dictionary` "
            "has orthonormal bases and their negatives in the SAE's place; `random` is a direction of the same gap. A training "
            "whose best is step 0 never beat its start, which is what its row shows."
            + of_grains(fits)
            + " `austeer` scales neurons of all layers; its `random units` are as many others, its `shuffled labels` those "
            "that pairs with exchanged languages choose; each control chooses from the same grid. `steer2edit` changes the "
            "weights of all layers, its control along a random direction at the same setting.",
            "",
            "## What the settings of components were chosen from",
            "",
            *of_dev(units, weights, plain),
            "",
            "## Amplified",
            "",
            f"`diffmean` at its strength {chosen['diffmean']:g}, decoded from the edited and the plain model; μ has the "
            "least loss of the `dev` answers. The first row has μ = 0: the mask alone, which greedy decoding does not see. "
            "`difference` is proxy tuning, with and without the mask.",
            "",
            *second,
            "",
            "## What did not work",
            "",
            *fell_short([*first[3:], *second[2:]]),
            *components_said(units, weights),
            alive(bed, fits["diffmean"].directions),
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="polyglot")
    parser.add_argument("--target", default="de")
    parser.add_argument("--layer", type=int, default=-1, help="by default at 40 %% of the depth")
    parser.add_argument(
        "--saes",
        default=None,
        help="folder of the model's SAEs (default: polyglot's, or the cache's)",
    )
    parser.add_argument("--dev", type=int, default=10)
    parser.add_argument("--test", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument(
        "--attributed", type=int, default=-1, help="pairs of grains (default: all of polyglot)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, help="where the page is written (default: docs/learned.md of polyglot)"
    )
    given = parser.parse_args()
    told = " ".join(sys.argv[1:])
    command = f"python experiments/learned/learned.py {told}".strip()
    text = page(Bed(given), command)
    out = given.out or (PAGE if given.model == "polyglot" else None)
    if out is not None:
        out.write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
