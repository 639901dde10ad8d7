"""Every method of SAE features and neurons steers from English, beside DiffMean and the
controls."""

from collections.abc import Callable, Mapping

import pandas as pd
from beds import OUT, SEEDS, SOURCE, Bed

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
from steerlab.studies.main.plan import DEV_TARGETS
from steerlab.studies.protocol import choose_and_report
from steerlab.sweeps.cell import NO_LAYER, Cell
from steerlab.sweeps.fits import fitted
from steerlab.sweeps.methods import METHODS
from steerlab.sweeps.runner import Runner

LAYERS, STRENGTHS = (1, 3, 5, 7), (0.5, 1.0, 1.5)
DEV_LINES, TEST_LINES = 16, 48
CONTROLS = ("random", "shuffled", "matched features", "random neurons")


def method(name: str, fits: tuple[str, ...], operator: str = "add") -> Method:
    """A row of the table: whose directions, by which operator, at which settings."""
    whole = OPERATORS[operator].whole  # acts on all layers that have units
    strengths = STRENGTHS if operator in ("add", "gate") else OPERATORS[operator].grid
    return Method(
        name=name,
        operator=operator,
        fits=fits,
        settings=tuple(
            (layer, strength)
            for layer in ((NO_LAYER,) if whole else LAYERS)
            for strength in strengths
        ),
    )


SHOWN = (
    method("diffmean", ("diffmean",)),
    method("sae diffmean", ("sae diffmean",)),
    method("langfir", ("langfir",)),
    method("langfir shuffled", ("langfir shuffled",)),
    method("monolinguality", ("monolinguality",)),
    method("monolinguality clamp", ("monolinguality",), "clamp"),
    method("diffmean gated", ("monolinguality gated",), "gate"),
    method("sae lape", ("sae lape",)),
    method("foxp2 add", ("foxp2",)),
    method("foxp2 push", ("foxp2",), "signed_shift"),
    method("foxp2 push and pull", ("foxp2",), "push_pull"),
    method("lape add", ("lape",), "neuron_add"),
    method("lape swap", ("lape",), "neuron_swap"),
    method("lape set", ("lape",), "neuron_set"),
    method("nju swap", ("nju",), "neuron_swap"),
    method("nju set", ("nju",), "neuron_set"),
    method("culnig swap", ("culnig",), "neuron_swap"),
    method("culnig set", ("culnig",), "neuron_set"),
)


def run(bed: Bed) -> tuple[str, dict[str, Setting]]:
    """The section's text, and what was chosen on dev."""
    fits = fit(bed)
    few = spread_over_families(bed.targets, DEV_TARGETS)
    design = Design(
        methods=SHOWN,
        controls=tuple(Control(method=each, chances=(OWN_CHOICE,)) for each in blind()),
        prompts={"prompt": "instructed"},
        dev=tuple((SOURCE, target) for target in few),
        test=tuple((SOURCE, target) for target in bed.targets),
        able=able_with(fits),
    )
    runner = Runner(
        model=bed.model,
        corpus=bed.corpus,
        directions=fits,
        identifier=sl.scores.identifier(),
        limits={"dev": DEV_LINES, "test": TEST_LINES},
        folder=OUT / "rows",
    )
    report = choose_and_report(runner, design, fluency=True, progress=True, log=print)
    rows, choices = report.tables, report.choices
    pd.concat(rows.values()).to_parquet(OUT / "steering.parquet")
    names = [each.name for each in SHOWN if each.name in choices]
    pairs = [
        (name, other)
        for name in names
        for other in ("diffmean", *CONTROLS, "unsteered", "prompt")
        if name != other
    ]
    tests = comparisons(rows, pairs, family=f"{len(pairs)} comparisons of this table")
    frame = table(design, rows, choices, sizes(bed), tests)
    frame.to_csv(OUT / "steering.csv", index=False)
    return markdown(frame) + "\n\n" + notes(tests, rows, choices, len(few)), choices


def fit(bed: Bed) -> dict[str, Directions]:
    """Directions of every method, and of the controls."""
    part = bed.corpus.split("estimate")
    found = fitted(bed.model, part, ["diffmean"], layers=range(bed.model.n_layers), source=SOURCE)
    found |= {
        name: units.fit(bed.readings) for name, units in METHODS.items() if name not in bed.refused
    }
    selections = bed.selections
    for seed in range(SEEDS):
        found[f"random {seed}"] = controls.random(found["diffmean"], seed=seed, source=SOURCE)
        found[f"shuffled {seed}"] = controls.shuffled(found["diffmean"], seed=seed)
        twins = matched(selections["monolinguality"], bed.latents, bed.norms, seed=seed)
        found[f"matched {seed}"] = decoded(twins, bed.latents, bed.readings.saes, source=SOURCE)
        others = random_units(selections["lape"], bed.neurons, seed=seed)
        found[f"neurons {seed}"] = masked(others, bed.neurons, source=SOURCE)
    return found


def blind() -> tuple[Method, ...]:
    """The controls: seeds are dealt over the sentences, so that one costs what a method costs."""
    seeds = lambda name: tuple(f"{name} {seed}" for seed in range(SEEDS))  # noqa: E731
    fits = (("random", "add"), ("shuffled", "add"), ("matched", "add"), ("neurons", "neuron_swap"))
    return tuple(
        method(name, seeds(fit), operator)
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
    named = {each.name: each.fits_of(SOURCE)[0].removesuffix(" gated") for each in SHOWN}
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
    operators = {each.name: each.operator for each in (*design.methods, *blind())}
    for name, part in rows.items():
        found, (layer, strength) = result(part), choices.get(name, (None, None))
        whole = layer == NO_LAYER
        told = {"method": name if name in methods else f"*{name}*"}
        told |= {"operator": operators.get(name, "")}
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


def notes(tests: dict, rows: dict[str, pd.DataFrame], choices: dict[str, Setting], few: int) -> str:
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
        f"dev lines and {few} targets, reported on {TEST_LINES} test lines and all "
        f"{rows['diffmean']['target'].nunique()} targets, "
        f"n = {len(rows['diffmean'])} outputs a row. Layer *all*: every layer that has units, or "
        "the window.",
        "p: paired sign-flip tests of `joint` by sentence, Holm's correction over "
        f"{tests['comparisons']} comparisons "
        "(each method against DiffMean, the controls, unsteered and the prompt); "
        f"{tests['sentences']} sentences show "
        f"a difference of {min(seen):.2f} to {max(seen):.2f} four times in five.",
        "The dose is what is moved in the residual stream, over its length, all layers added: of "
        "neurons that is what they write through the output projection.",
        "A target for which a method has no unit at its setting counts as it is then: unsteered. "
        "*Matched features* "
        "are twins of those of monolinguality in rate and norm, *random neurons* as many as LAPE's.",
    ]
    if lost := [each.name for each in SHOWN if each.name not in choices]:
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
