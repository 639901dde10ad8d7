"""Every method of SAE features and neurons steers from English, beside DiffMean and the
controls."""

from collections.abc import Callable, Mapping

import pandas as pd
from beds import SOURCE, Bed
from setups import Setup

import steerlab as sl
from steerlab.analysis.choices import Setting
from steerlab.analysis.comparisons import comparisons
from steerlab.analysis.results import result
from steerlab.analysis.tables import markdown, spelled
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.edits import OPERATORS
from steerlab.estimate import controls
from steerlab.estimate.units import Selection, decoded, masked, matched, random_units
from steerlab.studies.design import (
    OWN_CHOICE,
    Control,
    Design,
    Method,
    spread_over_families,
)
from steerlab.studies.protocol import choose_and_report
from steerlab.sweeps.cell import NO_LAYER, Cell
from steerlab.sweeps.fits import fitted
from steerlab.sweeps.methods import METHODS
from steerlab.sweeps.runner import Runner

CONTROLS = ("random", "shuffled", "matched features", "random neurons")
# Whose directions each row takes, and by which operator.
ROWS = {
    "diffmean": ("diffmean", "add"),
    "sae diffmean": ("sae diffmean", "add"),
    "langfir": ("langfir", "add"),
    "langfir shuffled": ("langfir shuffled", "add"),
    "monolinguality": ("monolinguality", "add"),
    "monolinguality clamp": ("monolinguality", "clamp"),
    "diffmean gated": ("monolinguality gated", "gate"),
    "sae lape": ("sae lape", "add"),
    "foxp2 add": ("foxp2", "add"),
    "foxp2 push": ("foxp2", "signed_shift"),
    "foxp2 push and pull": ("foxp2", "push_pull"),
    "lape add": ("lape", "neuron_add"),
    "lape swap": ("lape", "neuron_swap"),
    "lape set": ("lape", "neuron_set"),
    "nju swap": ("nju", "neuron_swap"),
    "nju set": ("nju", "neuron_set"),
    "culnig swap": ("culnig", "neuron_swap"),
    "culnig set": ("culnig", "neuron_set"),
}


def method(setup: Setup, name: str, fits: tuple[str, ...], operator: str) -> Method:
    """A row of the table: whose directions, by which operator, at which settings."""
    whole = OPERATORS[operator].whole  # acts on all layers that have units
    strengths = setup.strengths if operator in ("add", "gate") else OPERATORS[operator].grid
    return Method(
        name=name,
        operator=operator,
        fits=fits,
        settings=tuple(
            (layer, strength)
            for layer in ((NO_LAYER,) if whole else setup.layers)
            for strength in strengths
        ),
    )


def shown(setup: Setup) -> tuple[Method, ...]:
    """The rows of the setup's methods."""
    return tuple(
        method(setup, name, (ROWS[name][0],), ROWS[name][1])
        for name in ROWS
        if name in setup.methods
    )


def run(bed: Bed) -> tuple[str, dict[str, Setting]]:
    """The section's text, and what was chosen on dev."""
    fits = fit(bed)
    setup = bed.setup
    few = spread_over_families(bed.targets, setup.dev_targets)
    design = Design(
        methods=shown(setup),
        controls=tuple(Control(method=each, chances=(OWN_CHOICE,)) for each in blind(setup)),
        prompts=setup.prompts,
        dev=tuple((SOURCE, target) for target in few),
        test=tuple((SOURCE, target) for target in bed.targets),
        form=setup.form,
        able=able_with(fits),
    )
    runner = Runner(
        model=bed.model,
        corpus=bed.corpus,
        directions=fits,
        identifier=sl.scores.identifier(),
        limits={"dev": setup.dev_lines, "test": setup.test_lines},
        folder=bed.out / "rows",
    )
    report = choose_and_report(runner, design, fluency=True, progress=True, log=print)
    rows, choices = report.tables, report.choices
    pd.concat(rows.values()).to_parquet(bed.out / "steering.parquet")
    names = [each.name for each in design.methods if each.name in choices]
    pairs = [
        (name, other)
        for name in names
        for other in ("diffmean", *CONTROLS, "unsteered", *setup.prompts)
        if name != other
    ]
    tests = comparisons(rows, pairs, family=f"{len(pairs)} comparisons of this table")
    frame = table(design, rows, choices, sizes(bed), tests)
    frame.to_csv(bed.out / "steering.csv", index=False)
    return markdown(frame) + "\n\n" + notes(bed, tests, rows, choices, len(few)), choices


def fit(bed: Bed) -> dict[str, Directions]:
    """Directions of every method, and of the controls."""
    part = bed.corpus.split("estimate")
    found = fitted(bed.model, part, ["diffmean"], layers=range(bed.model.n_layers), source=SOURCE)
    found |= {
        name: units.fit(bed.readings) for name, units in METHODS.items() if name not in bed.refused
    }
    selections = bed.selections
    for seed in range(bed.setup.seeds):
        found[f"random {seed}"] = controls.random(found["diffmean"], seed=seed, source=SOURCE)
        found[f"shuffled {seed}"] = controls.shuffled(found["diffmean"], seed=seed)
        twins = matched(selections["monolinguality"], bed.latents, bed.norms, seed=seed)
        found[f"matched {seed}"] = decoded(twins, bed.latents, bed.readings.saes, source=SOURCE)
        others = random_units(selections["lape"], bed.neurons, seed=seed)
        found[f"neurons {seed}"] = masked(others, bed.neurons, source=SOURCE)
    return found


def blind(setup: Setup) -> tuple[Method, ...]:
    """The controls: seeds are dealt over the sentences, so that one costs what a method costs."""
    seeds = lambda name: tuple(f"{name} {seed}" for seed in range(setup.seeds))  # noqa: E731
    fits = (("random", "add"), ("shuffled", "add"), ("matched", "add"), ("neurons", "neuron_swap"))
    return tuple(
        method(setup, name, seeds(fit), operator)
        for name, (fit, operator) in zip(CONTROLS, fits, strict=True)
    )


def able_with(fits: Mapping[str, Directions]) -> Callable[[Cell], bool]:
    """Whether a cell has directions, and units of its target at its layer, to make all edits
    with."""

    def able(cell: Cell) -> bool:
        if any(name not in fits for name in cell.fits):
            return False
        try:
            for sentence in range(len(cell.fits)):  # each takes another one of the directions
                cell.edit(fits, sentence)
        except SteerlabError:
            return False
        return True

    return able


def sizes(bed: Bed) -> dict[str, Selection]:
    """The selection behind each row that has one."""
    found = dict(bed.selections)
    named = {name: fit.removesuffix(" gated") for name, (fit, _) in ROWS.items()}
    return {name: found[fit] for name, fit in named.items() if fit in found}


def table(
    design: Design,
    rows: dict[str, pd.DataFrame],
    choices: dict[str, Setting],
    selections: dict[str, Selection],
    tests: dict,
) -> pd.DataFrame:
    made = []
    methods = {each.name for each in design.methods}
    controls = [each.method for each in design.controls]
    operators = {each.name: each.operator for each in (*design.methods, *controls)}
    for name, part in rows.items():
        found, (layer, strength) = result(part), choices.get(name, (None, None))
        whole = layer == NO_LAYER
        told = {"method": name if name in methods else f"*{name}*"}
        told |= {"operator": operators.get(name, "")}
        told |= {"layer": "" if layer is None else "all" if whole else str(layer)}
        told |= {"strength": "" if strength is None else f"{strength:g}"}
        told |= {"units a language": spread(selections.get(name), None if whole else layer)}
        scores = {
            "joint": "joint",
            "faithful": "faithful",
            "chrF": "chrf_reference",
            "LFS": "lfs",
            "relevance": "relevance",
            "S": "score",
            "copies": "echo",
        }
        told |= {label: spelled(found[key]) for label, key in scores.items() if key in found}
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
    bed: Bed, tests: dict, rows: dict[str, pd.DataFrame], choices: dict[str, Setting], few: int
) -> str:
    setup = bed.setup
    seen = [
        pair["detects_holm"]
        for told in tests["pairs"].values()
        for pair in told.values()
        if pair["detects_holm"]
    ]
    told = [
        f"Layers {', '.join(map(str, setup.layers))} and strengths "
        f"{', '.join(f'{s:g}' for s in setup.strengths)} (natural gaps) "
        f"with `add` and `gate`, the operator's own grid else; chosen by `joint` on {setup.dev_lines} "
        f"dev lines and {few} targets, reported on {setup.test_lines} test lines and all "
        f"{rows['diffmean']['target'].nunique()} targets, "
        f"n = {len(rows['diffmean'])} outputs a row. Layer *all*: every layer that has units, or "
        "the window.",
        "p: paired sign-flip tests of `joint` by sentence, Holm's correction over "
        f"{tests['comparisons']} comparisons "
        "(each method against DiffMean, the controls, unsteered and the prompts); "
        f"{tests['sentences']} sentences show "
        + (
            f"a difference of {min(seen):.2f} to {max(seen):.2f} four times in five."
            if seen
            else "no difference four times in five."
        ),
        "The dose is what is moved in the residual stream, over its length, all layers added: of "
        "neurons that is what they write through the output projection.",
        "A target for which a method has no unit at its setting counts as it is then: unsteered. "
        "*Matched features* "
        "are twins of those of monolinguality in rate and norm, *random neurons* as many as LAPE's.",
    ]
    if lost := [name for name in setup.methods if name not in choices]:
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
