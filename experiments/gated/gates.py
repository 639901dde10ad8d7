"""Operators, windows, gates and controllers beside plain addition, at equal dose and at equal cost:
`python experiments/gated/gates.py` writes docs/gates.md; `--model gemma-3-270m` prints the same of
another model, and `--only clusters` writes one section of a page that is there anew."""

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import steerlab as sl
from steerlab.analysis.choices import Setting, at, choose
from steerlab.analysis.dose import equal
from steerlab.analysis.intervals import paired_difference
from steerlab.analysis.results import result
from steerlab.core.corpus import Corpus
from steerlab.core.directions import Directions
from steerlab.edits import gates
from steerlab.engine.decoding import decode
from steerlab.models.model import Model
from steerlab.scores.restarts import exact

sys.path.insert(0, str(Path(__file__).parent))
from off_topic import section
from reading import reading
from static import selectors
from ways import BUILT_IN, GAPS, ways

PAGE = Path(__file__).parents[2] / "docs" / "gates.md"
TARGETS, NEW = ("de", "es", "ru"), 24
DEV, TEST = 8, 24


class Bed:
    """A model, its texts, and a sweep of one kind of rows."""

    def __init__(
        self, name: str, targets: Sequence[str], dev: int, test: int, layers: Sequence[int]
    ):
        # A model of the project is read in the precision that its page was made in.
        self.model: Model = sl.load(name, dtype=None if name == "polyglot" else "auto")
        self.targets, self.lines = tuple(targets), {"dev": dev, "test": test}
        self.corpus = sl.corpus(langs=["en", *targets, "fr"])
        self.moments = sl.collect(self.model, self.corpus.split("estimate"), also=[])
        self.directions: Directions = sl.diffmean(self.moments)
        depth = self.model.n_layers
        # A third and two thirds of the way, unless they are named.
        self.layers = tuple(layers) or (round(0.4 * depth), round(0.7 * depth))
        self.form = "line" if name == "polyglot" else "echo:5"
        # All tokens of Gemma share most of their length: seen from zero no two means lie opposite.
        self.origin = "zero" if name == "polyglot" else "both"

    def sweep(self, split: str, **keys: Any) -> pd.DataFrame:
        rows = sl.sweep(
            self.model,
            self.corpus,
            targets=self.targets,
            split=split,
            limit=self.lines[split],
            new_tokens=NEW,
            prompt=self.form,
            fluency=True,
            progress=False,
            **keys,
        )
        if rows.attrs.get("failed"):
            first = next(iter(rows.attrs["failed"].items()))
            raise SystemExit(f"a cell failed: {first}")
        return rows


def dev_rows(bed: Bed) -> pd.DataFrame:
    """Every way at every layer and strength on dev, and the controls of `add`."""
    directions = {"means": bed.directions}
    parts = [bed.sweep("dev", directions=directions, operators=BUILT_IN, layers=bed.layers)]
    parts.append(
        bed.sweep(
            "dev", directions=directions, operators=ways(bed.moments, bed.origin), layers=bed.layers
        )
    )
    for rows in parts:
        rows["method"] = rows["operator"]
    return pd.concat(parts, ignore_index=True)


def test_rows(bed: Bed, settings: dict[str, Setting | None]) -> pd.DataFrame:
    """Each way at a setting of its own on test; those of one layer in one sweep."""
    own, parts = ways(bed.moments, bed.origin), []
    groups: dict[int, dict[str, Any]] = {}
    for method, setting in settings.items():
        if setting is not None:
            layer, strength = setting
            here = _at(own[method], strength) if method in own else (strength,)
            groups.setdefault(layer, {})[method] = here
    for layer, operators in groups.items():
        keys: dict[str, Any] = {"layers": [layer]} if layer >= 0 else {}
        rows = bed.sweep("test", directions={"means": bed.directions}, operators=operators, **keys)
        parts.append(rows.assign(method=rows["operator"]))
    return pd.concat(parts, ignore_index=True)


def _at(record: Any, strength: float) -> Any:
    from dataclasses import replace

    return replace(record, grid=(strength,))


def controls(bed: Bed, setting: Setting) -> pd.DataFrame:
    """Random and shuffled directions, added as `add` was chosen to be."""
    layer, strength = setting
    made = {
        "random": sl.controls.random(bed.directions, seed=0, source="en"),
        "shuffled": sl.controls.shuffled(bed.directions, seed=0),
    }
    rows = bed.sweep("test", directions=made, operators={"add": (strength,)}, layers=[layer])
    none = bed.sweep(
        "test", directions={"none": bed.directions}, operators={"add": (1e-6,)}, layers=[layer]
    )
    return pd.concat([rows, none], ignore_index=True)


def lines_of(rows: pd.DataFrame, settings: dict[str, Setting | None], main: str) -> list[str]:
    """A table: each way's joint with its interval, its difference from the main one, and costs."""
    out = [
        "| way | layer | strength | joint (95 %) | less `add` (95 %) | in language | dose | bits per byte × | n |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    base = rows[rows["method"] == main]
    for method, setting in settings.items():
        part = rows[rows["method"] == method]
        if setting is None or part.empty:
            out.append(f"| `{method}` | – | – | does not cost as much at its largest | | | | | 0 |")
            continue
        found = result(part)
        value, low, high = found["joint"]
        less = "–"
        if method != main:
            gap, down, up = paired_difference(
                part["joint"].to_numpy(float),
                part["sentence"].to_numpy(),
                base["joint"].to_numpy(float),
                base["sentence"].to_numpy(),
            )
            less = f"{gap:+.2f} ({down:+.2f} to {up:+.2f})"
        layer = "several" if setting[0] < 0 or method.startswith("selective") else setting[0]
        cost = part["bits_per_byte_ratio"].replace([np.inf, -np.inf], np.nan).mean()
        out.append(
            f"| `{method}` | {layer} | {setting[1]:.3g} | {value:.2f} ({low:.2f} to {high:.2f}) | {less} | "
            f"{part['in_language'].mean():.2f} | {part['dose'].mean():.2f} | {cost:.2f} | {len(part)} |"
        )
    return out


# ------------------------------------------------------------------------------ the parts


def compared(bed: Bed) -> tuple[list[str], dict[str, Setting], pd.DataFrame]:
    """The choice of each way, at equal dose and at equal bits per byte."""
    dev = dev_rows(bed)
    chosen = choose(dev)
    order = ["add", *(name for name in dev["method"].unique() if name != "add")]
    chosen = {name: chosen[name] for name in order}
    own = test_rows(bed, dict(chosen))
    said = ["### Each at its own choice", "", *lines_of(own, dict(chosen), "add"), ""]
    beside = controls(bed, chosen["add"])
    said += ["Controls, added where and as far as `add` was chosen to be:", ""]
    for name, part in beside.groupby("method", sort=False):
        value, low, high = result(part)["joint"]
        word = "unsteered" if str(name) == "none" else str(name)
        said.append(f"- {word!s}: joint {value:.2f} ({low:.2f} to {high:.2f}), n {len(part)}")
    layers = {name: setting[0] for name, setting in chosen.items()}
    for cost, title in (("dose", "dose"), ("bits_per_byte_ratio", "bits per byte")):
        level = float(at(dev, "add", chosen["add"])[cost].replace([np.inf, -np.inf], np.nan).mean())
        finite = dev[np.isfinite(dev[cost])]
        same: dict[str, Setting | None] = dict(equal(finite, layers, cost=cost, level=level))
        same["add"] = chosen["add"]
        rows = test_rows(bed, {name: same[name] for name in order})
        said += [
            "",
            f"### At equal {title}",
            "",
            f"Strengths at which each costs on dev what `add` costs at its choice, {level:.2f}.",
            "",
            *lines_of(rows, {name: same[name] for name in order}, "add"),
        ]
    return said, chosen, dev


def layers_apart(bed: Bed) -> list[str]:
    """Which layers tell source and target apart, by origin."""
    taken = "the published origin, zero" if bed.origin == "zero" else "the mean of both"
    said = [
        "Layers whose means of English and target lie on either side of the origin, along the one direction of all layers "
        "(`selective`). About the mean of the two every layer does, by construction; `selective apart` above takes "
        f"{taken}.",
        "",
        "| target | both | all | zero |",
        "|---|---|---|---|",
    ]
    for target in bed.targets:
        found = {
            origin: sl.estimate.selective(bed.moments, target, origin=origin).apart
            for origin in ("both", "all", "zero")
        }
        words = " | ".join(" ".join(map(str, layers)) or "none" for layers in found.values())
        said.append(f"| {target} | {words} |")
    return said


def strength_found(bed: Bed, dev: pd.DataFrame, chosen: dict[str, Setting]) -> list[str]:
    """Calibration on dev, and whether test agrees."""
    layer = chosen["add"][0]
    rows = dev[(dev["method"] == "add") & (dev["layer"] == layer)]
    found = sl.stats.calibrate(rows, target=0.5, value="in_language", low=0.0, high=2.0)
    test = bed.sweep(
        "test",
        directions={"means": bed.directions},
        operators={"add": (round(found.strength, 3),)},
        layers=[layer],
    )
    value, low, high = result(test)["lfs"] if "lfs" in result(test) else result(test)["in_language"]
    return [
        f"`calibrate` on the dev rows of `add` at layer {layer}, for half of the outputs in the language: strength "
        f"{found.strength:.2f} ({found.low:.2f} to {found.high:.2f}, 95 %). On test, at that strength: "
        f"{value:.2f} in the language ({low:.2f} to {high:.2f}), n {len(test)}.",
    ]


def controlled(bed: Bed, chosen: dict[str, Setting]) -> list[str]:
    """A controller that lets the edit act on English prompts alone, beside a threshold."""
    layer, strength = chosen["add"]
    target = bed.targets[0]
    edit = sl.add(bed.directions.between("en", target).at(layer), strength=strength)
    some = {
        split: {lang: _prompts(bed.corpus.split(split), lang) for lang in ("en", "fr")}
        for split in ("estimate", "test")
    }
    train, test = some["estimate"], some["test"]
    reads = max(0, layer // 2)
    begun = time.process_time()
    made = sl.fit_controller(
        bed.model, edit, train["en"][:60], train["fr"][:60], layer=reads, steps=8
    )
    cost = time.process_time() - begun
    mixed = train["en"][:30] + train["fr"][:30]
    noise = sl.fit_controller(bed.model, edit, mixed[::2], mixed[1::2], layer=reads, steps=0)
    threshold = _threshold(bed, layer, train)
    like = gates.like(bed.directions.between("fr", "en").at(layer), threshold)
    said = [
        f"Positive: {len(test['en'])} English prompts of test; negative: {len(test['fr'])} French ones. The edit is `add` towards "
        f"{target} at layer {layer}, strength {strength:g}; controller and threshold were fitted on `estimate`.",
        "",
        "| gate | numbers | false shut (95 %) | false open (95 %) | in the target, English prompts | changed, French prompts |",
        "|---|---|---|---|---|---|",
    ]
    plain = decode(bed.model, test["fr"], max_new_tokens=NEW).texts
    who = sl.scores.identifier()
    ways_of = {
        "none": (edit, 0),
        f"controller, reads layer {reads}": (made.before(edit), made.size),
        "controller of shuffled prompts": (noise.before(edit), noise.size),
        "`like`, threshold of `estimate`": (edit.when(like), bed.model.width + 1),
    }
    for name, (gated, size) in ways_of.items():
        opens = {lang: _opens(bed, gated, test[lang]) for lang in ("en", "fr")}
        shut = exact(int((~opens["en"]).sum()), len(opens["en"]))
        opened = exact(int(opens["fr"].sum()), len(opens["fr"]))
        english = _said(bed, gated, test["en"])
        french = _said(bed, gated, test["fr"])
        right = np.mean(
            [who.identify(text) == target if text.strip() else False for text in english]
        )
        changed = np.mean([a != b for a, b in zip(french, plain, strict=True)])
        said.append(
            f"| {name} | {size:,} | {shut[0]:.2f} ({shut[1]:.2f} to {shut[2]:.2f}) | "
            f"{opened[0]:.2f} ({opened[1]:.2f} to {opened[2]:.2f}) | {right:.2f} | {changed:.2f} |"
        )
    said += [
        "",
        f"Fitting the controller took {cost:.0f} s of processor time; its weights by layer act on one layer here.",
    ]
    return said


def _prompts(corpus: Corpus, lang: str) -> list[str]:
    return [f"{line}\n" for line in corpus[lang]][:60]


def _threshold(bed: Bed, layer: int, train: dict[str, list[str]]) -> float:
    """Halfway between the mean cosines of the two kinds of prompts."""
    direction = bed.directions.between("fr", "en").at(layer)
    means = sl.collect_texts(
        bed.model, bed.corpus.select(["en", "fr"]).split("estimate").take(40), layers=[layer]
    )
    unit = direction.unit[0].double()

    def cosines(lang: str) -> np.ndarray:
        mean = means.of(lang)[:, 0]
        goal = ((mean @ unit)[:, None] * unit).tanh()
        return np.asarray((mean * goal).sum(-1) / mean.norm(dim=-1) / goal.norm(dim=-1))

    return float((cosines("en").mean() + cosines("fr").mean()) / 2)


def _said(bed: Bed, edit: Any, prompts: list[str]) -> list[str]:
    try:
        return list(decode(bed.model, prompts, edit=edit, max_new_tokens=NEW).texts)
    except sl.SteerlabError:  # shut everywhere, which raises
        return list(decode(bed.model, prompts, max_new_tokens=NEW).texts)


def _opens(bed: Bed, edit: Any, prompts: list[str]) -> np.ndarray:
    """Whether the edit touches each prompt."""
    try:
        return np.array(decode(bed.model, prompts, edit=edit, max_new_tokens=1).dose) > 0
    except sl.SteerlabError:
        return np.zeros(len(prompts), bool)


def clusters_and_instances(bed: Bed, chosen: dict[str, Setting]) -> list[str]:
    """Whether differences of pairs have clusters, and whether the choice of pairs matters."""
    layer, strength = chosen["add"]
    some = bed.corpus.select(["en", *bed.targets]).split("estimate")
    texts = sl.collect_texts(bed.model, some, layers=[layer])
    said = [
        "| target | silhouette, k = 2 | k = 3 | k = 5 | probe, k = 3 | largest cluster |",
        "|---|---|---|---|---|---|",
    ]
    for target in bed.targets:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = {
                k: sl.estimate.clustered(texts, target, k=k).table().iloc[0] for k in (2, 3, 5)
            }
        said.append(
            f"| {target} | {found[2]['silhouette']:.2f} | {found[3]['silhouette']:.2f} | {found[5]['silhouette']:.2f} | "
            f"{found[3]['accuracy']:.2f} | {found[3]['largest']:.2f} |"
        )
    made = {"all pairs": sl.diffmean(texts)}
    for select in ("farthest", "nearest", "random"):
        made[select] = sl.diffmean(texts, select=select, k=20)
    rows = bed.sweep("test", directions=made, operators={"add": (strength,)}, layers=[layer])
    said += [
        "",
        f"`diffmean(select=, k=20)` of {len(some)} pairs, added at layer {layer}, strength {strength:g}:",
        "",
    ]
    for name, part in rows.groupby("method", sort=False):
        value, low, high = result(part)["joint"]
        said.append(f"- {name}: joint {value:.2f} ({low:.2f} to {high:.2f}), n {len(part)}")
    return [*said, "", *selected(bed, chosen)]


def selected(bed: Bed, chosen: dict[str, Setting]) -> list[str]:
    """The selector of clusters beside one neuron that is made louder for every prompt, each at its
    own choice on dev."""
    operators, neurons = selectors(bed.model, bed.corpus.split("estimate"), bed.targets, bed.layers)
    directions = {"means": bed.directions}
    dev = [
        bed.sweep("dev", directions=directions, operators={name: operator}, layers=bed.layers)
        for name, operator in operators.items()
    ]
    settings = choose(pd.concat([rows.assign(method=rows["operator"]) for rows in dev]))
    every: dict[str, Setting | None] = {"add": chosen["add"]}
    every |= {name: settings[name] for name in operators}
    parts = []
    for name, setting in every.items():
        layer, strength = setting or (0, 0.0)
        one = (strength,) if name == "add" else _at(operators[name], strength)
        keys: dict[str, Any] = {"layers": [layer]} if layer >= 0 else {}
        rows = bed.sweep("test", directions=directions, operators={name: one}, **keys)
        parts.append(rows.assign(method=rows["operator"]))
    return [
        "The selector of three clusters, which picks a vector for each prompt (`clustered`), beside G-ACT's static baseline, one neuron that is "
        "made louder for every prompt (`static_neuron`: that which writes most towards the target's commonest word that English does not "
        f"have; {'; '.join(neurons)}). Layer and strength (the neuron: its factor) are chosen on dev as above.",
        "",
        *lines_of(pd.concat(parts, ignore_index=True), every, "add"),
    ]


def off_topic(bed: Bed) -> list[str]:
    """Latents of deranged pairs, where the model has autoencoders in the package."""
    if bed.model.name != "polyglot":
        return ["The package has autoencoders of polyglot alone."]
    return section(bed.model, bed.corpus, bed.targets)


def axes(bed: Bed) -> list[str]:
    """An axis of log frequency, and one of the same scores shuffled."""
    lines = bed.corpus.split("estimate")["en"]
    scores = sl.estimate.log_frequency(lines, least=2)
    words = sl.collect_words(bed.model, scores, lines)
    shuffled = dict(
        zip(
            scores,
            np.random.default_rng(0).permutation(list(scores.values())).tolist(),
            strict=True,
        )
    )
    found = [sl.estimate.axis(words, each) for each in (scores, shuffled)]
    r = [each.provenance["settings"]["r"] for each in found]
    return [
        f"{len(words.words)} English word types that stand twice or more in `estimate`; correlation with log frequency over the fifth "
        f"of them held out, by layer: {' '.join(f'{each:.2f}' for each in r[0])}. Of shuffled scores: "
        f"{' '.join(f'{each:.2f}' for each in r[1])}. Steered along: [Axes of words](axes.md).",
    ]


def _command() -> str:
    """The command that is running, without the path of the page."""
    words = [word for word in sys.argv[1:] if not word.endswith(".md") and word != "--out"]
    return " ".join(["python experiments/gated/gates.py", *words])


Section = tuple[str, Callable[[], list[str]]]


def sections(bed: Bed, dev: pd.DataFrame, chosen: dict[str, Setting]) -> dict[str, Section]:
    """The sections that need no more than what `add` was chosen to be: title and text."""
    return {
        "layers": ("Layers that tell two languages apart", partial(layers_apart, bed)),
        "strength": ("A strength that is found", partial(strength_found, bed, dev, chosen)),
        "controllers": ("Controllers", partial(controlled, bed, chosen)),
        "clusters": ("Clusters and chosen pairs", partial(clusters_and_instances, bed, chosen)),
        "words": ("An axis of words", partial(axes, bed)),
        "off-topic": ("Latents that are on off topic", partial(off_topic, bed)),
    }


def page(bed: Bed, name: str) -> str:
    begun = time.process_time()
    tables, chosen, dev = compared(bed)
    words = ", ".join(bed.targets)
    text = [
        "# Gates, windows, angles",
        "",
        f"Written by `{_command()}` of {name}: DiffMean directions from English to {words}, {bed.lines['dev']} dev lines to "
        f"choose layer ({' or '.join(map(str, bed.layers))}) and strength, {bed.lines['test']} test lines to report, {NEW} tokens; *joint* is "
        "the share of outputs in the target language that say their own sentence. Intervals are over sentences.",
        "",
        "## Ways of applying one direction",
        "",
        *tables,
        "",
    ]
    for title, make in sections(bed, dev, chosen).values():
        text += [f"## {title}", "", *make(), ""]
    print(f"{time.process_time() - begun:.0f} s of processor time", file=sys.stderr)
    return reading("\n".join(text))


def renewed(text: str, bed: Bed, only: Sequence[str]) -> str:
    """A page with some of its sections made anew, and what did not work read anew."""
    dev = bed.sweep(
        "dev", directions={"means": bed.directions}, operators={"add": GAPS}, layers=bed.layers
    )
    dev["method"] = dev["operator"]
    known = sections(bed, dev, choose(dev))
    body = text.split("\n## What did not work\n")[0]
    for name in only:
        title, make = known[name]
        before, _, after = body.partition(f"\n## {title}\n")
        _, begins, rest = after.partition("\n## ")
        following = ["", f"## {rest}"] if begins else []
        body = "\n".join([f"{before}\n## {title}", "", *make(), *following, ""]).rstrip() + "\n"
    return reading(body)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", default="polyglot")
    options.add_argument("--targets", default=",".join(TARGETS))
    options.add_argument("--dev", type=int, default=DEV)
    options.add_argument("--test", type=int, default=TEST)
    options.add_argument("--layers", default="", help="two layers, such as 4,6")
    options.add_argument(
        "--out", type=Path, help="where the page is written (default: docs/gates.md of polyglot)"
    )
    options.add_argument(
        "--only",
        nargs="+",
        choices=("layers", "strength", "controllers", "clusters", "words", "off-topic"),
        help="write these sections of the page anew, and leave the others as they are",
    )
    given = options.parse_args()
    layers = [int(layer) for layer in given.layers.split(",") if layer]
    bed = Bed(given.model, given.targets.split(","), given.dev, given.test, layers)
    out = given.out or (PAGE if given.model == "polyglot" else None)
    if given.only:
        if out is None or not out.exists():
            raise SystemExit("--only needs a page that is there: give its file as --out")
        text = renewed(out.read_text("utf-8"), bed, given.only)
    else:
        text = page(bed, given.model)
    if out is None:
        print(text)
    else:
        out.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
