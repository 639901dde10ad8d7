"""Every method of SAE features and neurons steers from English, beside DiffMean and the
controls."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd
from beds import OUT, SEEDS, SOURCE, Bed

import steerlab as sl
from steerlab.analysis.choices import at, choose
from steerlab.analysis.comparisons import comparisons
from steerlab.analysis.results import result
from steerlab.analysis.tables import markdown, spelled
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.edits import OPERATORS, steer
from steerlab.estimate import controls
from steerlab.estimate.units import Selection, decoded, masked, matched, random_units
from steerlab.studies.main.plan import Plan
from steerlab.sweeps.cell import Cell
from steerlab.sweeps.fits import fitted
from steerlab.sweeps.methods import METHODS
from steerlab.sweeps.runner import Runner

LAYERS, STRENGTHS = (1, 3, 5, 7), (0.5, 1.0, 1.5)
DEV_LINES, TEST_LINES = 16, 48
CONTROLS = ("random", "shuffled", "matched features", "random neurons")


@dataclass(frozen=True)
class Entry:
    """A row of the table: whose directions, by which operator."""

    method: str
    fits: tuple[str, ...]
    operator: str = "add"

    @property
    def settings(self) -> list[tuple[int, float]]:
        """(layer, strength) of the grid; layer -1 where the operator acts on all layers that
        have units."""
        whole = OPERATORS[self.operator].whole
        strengths = STRENGTHS if self.operator in ("add", "gate") else OPERATORS[self.operator].grid
        return [
            (layer, strength) for layer in ((-1,) if whole else LAYERS) for strength in strengths
        ]


ENTRIES = (
    Entry("diffmean", ("diffmean",)),
    Entry("sae diffmean", ("sae diffmean",)),
    Entry("langfir", ("langfir",)),
    Entry("langfir shuffled", ("langfir shuffled",)),
    Entry("monolinguality", ("monolinguality",)),
    Entry("monolinguality clamp", ("monolinguality",), "clamp"),
    Entry("diffmean gated", ("monolinguality gated",), "gate"),
    Entry("sae lape", ("sae lape",)),
    Entry("foxp2 add", ("foxp2",)),
    Entry("foxp2 push", ("foxp2",), "signed_shift"),
    Entry("foxp2 push and pull", ("foxp2",), "push_pull"),
    Entry("lape add", ("lape",), "neuron_add"),
    Entry("lape swap", ("lape",), "neuron_swap"),
    Entry("lape set", ("lape",), "neuron_set"),
    Entry("nju swap", ("nju",), "neuron_swap"),
    Entry("nju set", ("nju",), "neuron_set"),
    Entry("culnig swap", ("culnig",), "neuron_swap"),
    Entry("culnig set", ("culnig",), "neuron_set"),
)


def run(bed: Bed) -> tuple[str, dict[str, tuple[int, float]]]:
    """The section's text, and what was chosen on dev."""
    fits = fit(bed)
    entries = (*ENTRIES, *blind())
    limits = {"dev": DEV_LINES, "test": TEST_LINES}
    bench = Runner(bed.model, bed.corpus, fits, sl.scores.identifier(), limits, OUT / "rows")
    few = Plan(SOURCE, bed.targets, LAYERS).dev_targets
    bare = [Cell("unsteered", "none", -1, 0.0, SOURCE, iso, "dev") for iso in few]
    dev = ran(
        bench,
        [*bare, *(cell for entry in entries for cell in cells(entry, fits, few, "dev"))],
        "dev",
    )
    choices = choose(filled(dev, entries, few))
    bench = replace(bench, fluency=True)
    test = ran(bench, reported(entries, fits, choices, bed.targets), "test")
    plain = {name: test[test["method"] == name] for name in ("unsteered", "prompt")}
    steered = [entry for entry in entries if entry.method in choices]
    rows = {
        entry.method: covered(test, entry, choices, plain["unsteered"], bed.targets)
        for entry in steered
    } | plain
    pd.concat(rows.values()).to_parquet(OUT / "steering.parquet")
    names = [entry.method for entry in ENTRIES if entry.method in choices]
    pairs = [
        (name, other)
        for name in names
        for other in ("diffmean", *CONTROLS, *plain)
        if name != other
    ]
    tests = comparisons(rows, pairs, family=f"{len(pairs)} comparisons of this table")
    frame = table(entries, rows, choices, sizes(bed), tests)
    frame.to_csv(OUT / "steering.csv", index=False)
    return markdown(frame) + "\n\n" + notes(tests, rows, choices, len(few)), choices


def fit(bed: Bed) -> dict[str, Directions]:
    """Directions of every method, and of the controls."""
    part = bed.corpus.split("estimate")
    found = fitted(bed.model, part, ["diffmean"], layers=range(bed.model.n_layers), source=SOURCE)
    found |= {
        name: method.fit(bed.readings)
        for name, method in METHODS.items()
        if name not in bed.refused
    }
    selections = bed.selections
    for seed in range(SEEDS):
        found[f"random {seed}"] = controls.random(found["diffmean"], seed=seed)
        found[f"shuffled {seed}"] = controls.shuffled(found["diffmean"], seed=seed)
        twins = matched(selections["monolinguality"], bed.latents, bed.norms, seed=seed)
        found[f"matched {seed}"] = decoded(twins, bed.latents, bed.readings.saes, source=SOURCE)
        others = random_units(selections["lape"], bed.neurons, seed=seed)
        found[f"neurons {seed}"] = masked(others, bed.neurons, source=SOURCE)
    return found


def blind() -> tuple[Entry, ...]:
    """The controls: seeds are dealt over the sentences, so that one costs what a method costs."""
    seeds = lambda name: tuple(f"{name} {seed}" for seed in range(SEEDS))  # noqa: E731
    fits = (("random", "add"), ("shuffled", "add"), ("matched", "add"), ("neurons", "neuron_swap"))
    return tuple(
        Entry(name, seeds(fit), operator)
        for name, (fit, operator) in zip(CONTROLS, fits, strict=True)
    )


def cells(
    entry: Entry, fits: dict[str, Directions], targets: Sequence[str], split: str
) -> list[Cell]:
    """The grid of a method, without the settings at which it has nothing to steer a target with."""
    return [
        Cell(entry.method, entry.operator, layer, strength, SOURCE, target, split, entry.fits)
        for layer, strength in entry.settings
        for target in targets
        if possible(entry, fits, layer, strength, target)
    ]


def filled(dev: pd.DataFrame, entries: Sequence[Entry], targets: Sequence[str]) -> pd.DataFrame:
    """Every setting of every method with all targets: one for which it has no units there is as
    it was, unsteered."""
    parts, bare = [], dev[dev["method"] == "unsteered"]
    for entry in entries:
        for setting in entry.settings:
            if len(mine := at(dev, entry.method, setting)):
                parts.append(covered(mine, entry, {entry.method: setting}, bare, targets))
    return pd.concat(parts, ignore_index=True)


def possible(
    entry: Entry, fits: dict[str, Directions], layer: int, strength: float, target: str
) -> bool:
    if any(name not in fits for name in entry.fits):
        return False
    try:
        for name in entry.fits:
            steer(entry.operator, fits[name], strength, source=SOURCE, target=target, layer=layer)
    except SteerlabError:
        return False
    return True


def ran(bench: Runner, some: list[Cell], title: str) -> pd.DataFrame:
    rows = bench.run(some, title=title, progress=True)
    if lost := rows.attrs.get("failed"):
        raise SteerlabError(
            f"{len(lost)} cells failed; the first said: {next(iter(lost.values()))}"
        )
    return rows


def reported(
    entries: Sequence[Entry],
    fits: dict[str, Directions],
    choices: dict[str, tuple[int, float]],
    targets: Sequence[str],
) -> list[Cell]:
    """Each method and control at its choice, the model as it is, and the instruction."""
    steered = [
        Cell(
            entry.method, entry.operator, *choices[entry.method], SOURCE, target, "test", entry.fits
        )
        for entry in entries
        if entry.method in choices
        for target in targets
        if possible(entry, fits, *choices[entry.method], target)
    ]
    plain = (("unsteered", "line"), ("prompt", "instructed"))
    return steered + [
        Cell(name, "none", -1, 0.0, SOURCE, iso, "test", (), form)
        for name, form in plain
        for iso in targets
    ]


def covered(
    test: pd.DataFrame,
    entry: Entry,
    choices: dict[str, tuple[int, float]],
    unsteered: pd.DataFrame,
    targets: Sequence[str],
) -> pd.DataFrame:
    """A method's rows; a target for which it has no units there is as it would be: unsteered."""
    mine = at(test, entry.method, choices[entry.method]) if entry.method in choices else test[:0]
    missing = [iso for iso in targets if iso not in set(mine["target"])]
    layer, strength = choices.get(entry.method, (-1, 0.0))
    rest = unsteered[unsteered["target"].isin(missing)].copy()
    rest["method"], rest["operator"], rest["layer"], rest["strength"] = (
        entry.method,
        entry.operator,
        layer,
        strength,
    )
    return pd.concat([mine, rest], ignore_index=True)


def sizes(bed: Bed) -> dict[str, Selection]:
    """The selection behind each row that has one."""
    found = dict(bed.selections)
    named = {entry.method: entry.fits[0].removesuffix(" gated") for entry in ENTRIES}
    return {method: found[fit] for method, fit in named.items() if fit in found}


def table(
    entries: Sequence[Entry],
    rows: dict[str, pd.DataFrame],
    choices: dict[str, tuple[int, float]],
    selections: dict[str, Selection],
    tests: dict,
) -> pd.DataFrame:
    made = []
    mine = {entry.method: entry for entry in entries}
    for name, part in rows.items():
        found, (layer, strength) = result(part), choices.get(name, (None, None))
        whole = layer == -1
        told = {"method": name if name in {entry.method for entry in ENTRIES} else f"*{name}*"}
        told |= {"operator": mine[name].operator if name in mine else ""}
        told |= {"layer": "" if layer is None else "all" if whole else str(layer)}
        told |= {"strength": "" if strength is None else f"{strength:g}"}
        told |= {"units a language": spread(selections.get(name), None if whole else layer)}
        scores = {"joint": "joint", "LFS": "lfs", "relevance": "relevance", "S": "score"}
        told |= {label: spelled(found[key]) for label, key in scores.items()}
        told |= {
            "bits per byte": spelled(found["bits_per_byte_ratio"]),
            "dose": f"{found['dose']:.2f}",
        }
        pair = tests["pairs"].get(name, {}).get("diffmean")
        told["p against DiffMean"] = f"{pair['p_holm']:.2g}" if pair else ""
        made.append(told)
    return pd.DataFrame(made)


def spread(selection: Selection | None, layer: int | None) -> str:
    """The median and the range, over languages, of how many units there are at a layer, or at
    all layers."""
    if selection is None:
        return ""
    counts = selection.counts if layer is None else selection.counts[[layer]]
    each = counts.drop(index=SOURCE).sum(axis=1)
    return f"{each.median():g} ({each.min()}-{each.max()})"


def notes(
    tests: dict, rows: dict[str, pd.DataFrame], choices: dict[str, tuple[int, float]], few: int
) -> str:
    seen = [
        pair["detects_holm"]
        for told in tests["pairs"].values()
        for pair in told.values()
        if pair["detects_holm"]
    ]
    told = [
        f"Layers {', '.join(map(str, LAYERS))} and strengths "
        f"{', '.join(f'{s:g}' for s in STRENGTHS)} (natural gaps) "
        f"with `add` and `gate`, the operator's own grid else; chosen by `joint` on {DEV_LINES} "
        f"dev lines and {few} "
        f"targets, reported on {TEST_LINES} test lines and all "
        f"{rows['diffmean']['target'].nunique()} targets, "
        f"n = {len(rows['diffmean'])} outputs a row. Layer *all*: every layer that has units, or "
        "the window.",
        "p: paired sign-flip tests of `joint` by sentence, Holm's correction over "
        f"{tests['comparisons']} comparisons "
        "(each method against DiffMean, the controls, unsteered and the prompt); "
        f"{tests['sentences']} sentences show "
        f"a difference of {min(seen):.2f} to {max(seen):.2f} four times in five.",
        "A target for which a method has no unit at its setting counts as it is then: unsteered. "
        "*Matched features* "
        "are twins of those of monolinguality in rate and norm, *random neurons* as many as LAPE's.",
    ]
    if lost := [entry.method for entry in ENTRIES if entry.method not in choices]:
        told.append(f"Without units for any target, and so without a row: {', '.join(lost)}.")
    over = {
        name: [
            other
            for other in CONTROLS
            if pairs[other]["p_holm"] < 0.05 and pairs[other]["difference"] > 0
        ]
        for name, pairs in tests["pairs"].items()
    }
    beaten = "; ".join(f"{name}: {', '.join(others) or 'none'}" for name, others in over.items())
    told.append(f"Which controls a method is better than, at an adjusted p < .05: {beaten}.")
    return "\n".join(f"- {line}" for line in told) + "\n"
