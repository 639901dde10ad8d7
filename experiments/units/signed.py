"""Neural FOXP2's signed shift against plain shifts of equal dose, and its push alone against
push and pull."""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
from beds import SOURCE, Bed

import steerlab as sl
from steerlab import figures
from steerlab.analysis.intervals import by_sentence
from steerlab.analysis.tables import markdown, spelled
from steerlab.core.directions import Direction, Directions
from steerlab.core.errors import SteerlabError
from steerlab.edits import Edit, add, signed_shift, stack
from steerlab.engine.decoding import decode
from steerlab.engine.language_mass import gold_masses, language_masses
from steerlab.engine.least_kl import least_kl
from steerlab.engine.random_edits import doses
from steerlab.estimate import spectrum_table
from steerlab.estimate.spectra import Spectrum
from steerlab.estimate.units import latent_spectra, monolinguality
from steerlab.estimate.units.foxp2 import WIDTHS
from steerlab.scores.judges import Answer, Retrieval, score
from steerlab.scores.text import first_line
from steerlab.sweeps.fits import fitted
from steerlab.sweeps.methods import METHODS

LARGEST = 60  # values among which the rank in the middle is looked for: above what is allowed
PUSHES, PULLS, SHARE = (0.5, 1.0, 2.0, 4.0, 8.0), (0.0, 0.5, 1.0), 0.8


def run(bed: Bed) -> str:
    fit = METHODS["foxp2"].fit(bed.readings)
    part = bed.corpus.split("estimate")
    dense = fitted(bed.model, part, ["diffmean"], layers=range(bed.model.n_layers), source=SOURCE)[
        "diffmean"
    ]
    rows, chosen, without = [], [], []
    for target in bed.targets:
        try:
            both, alone, free = strengths(bed, fit, target)
        except SteerlabError:
            without.append(target)
            continue
        layers = windowed(fit, target).layers
        told = {
            "target": target,
            "window": f"{layers[0]}-{layers[-1]}",
            "λ, β": told_of(both),
            "λ alone": f"{alone[0]:g}",
        }
        chosen.append(told | {"least KL of all": told_of(free)})
        rows.append(measured(bed, target, variants(bed, fit, dense, target, both, alone)))
    frame = pd.concat(rows, ignore_index=True)
    frame.to_parquet(bed.out / "signed.parquet")
    settings = pd.DataFrame(chosen)
    settings.to_csv(bed.out / "signed_choices.csv", index=False)
    pairs = bed.readings.pairs
    assert pairs is not None
    middle = in_the_middle(bed)
    table = spectrum_table(latent_spectra(pairs), kind="latents", widths=WIDTHS)
    return "\n\n".join(
        [
            shifts(bed, frame, settings, without),
            spectra(bed, table, middle),
            tokens(bed),
            traced(bed),
        ]
    )


def in_the_middle(bed: Bed) -> list[Spectrum]:
    """The spectra of all targets at the layers from a third to two thirds of the depth, where the
    gap may lie anywhere: their ranks are what a published claim is judged by."""
    pairs = bed.readings.pairs
    assert pairs is not None
    middle = [
        spectrum
        for spectrum in latent_spectra(pairs, largest=LARGEST, bootstraps=0)
        if bed.model.n_layers <= 3 * spectrum.layer <= 2 * bed.model.n_layers
    ]
    bed.note(**{"eigengap ranks": [spectrum.rank for spectrum in middle]})
    return middle


def shifts(bed: Bed, frame: pd.DataFrame, settings: pd.DataFrame, without: Sequence[str]) -> str:
    """The table of the edits, and what was chosen for each target."""
    note = (
        f"λ (push, of {', '.join(f'{p:g}' for p in PUSHES)}) and β (pull, of "
        f"{', '.join(f'{p:g}' for p in PULLS)}) are "
        f"for each target those of the least KL on {bed.setup.dev_lines} dev lines among those that reach "
        f"{SHARE:g} of the best "
        f"gain, once among β > 0 and once with β = 0; the table is of {bed.setup.test_lines} test lines and "
        f"{len(settings)} "
        "targets. ΔM: the mass of the target's own tokens less the source's after the prompt, "
        "beside the unsteered; "
        "KL in nats to the unsteered next-token distribution. *Equal dose*: that of *push and "
        "pull* on the dev lines, "
        f"over the same layers."
    )
    if without:
        note += f" No strength gains anything, so left out: {', '.join(without)}."
    return f"{markdown(summary(frame))}\n\n{note}\n\n{markdown(settings)}"


def told_of(setting: tuple[float, float]) -> str:
    return f"{setting[0]:g}, {setting[1]:g}"


Setting = tuple[float, float]


def strengths(bed: Bed, fit: Directions, target: str) -> tuple[Setting, Setting, Setting]:
    """The (λ, β) of least KL on dev: with a pull, without one, and of all."""
    step = windowed(fit, target)
    found = []
    for pulls in (PULLS[1:], PULLS[:1], PULLS):
        edits = {(a, b): signed_shift(step, push=a, pull=b) for a in PUSHES for b in pulls}
        texts = bed.prompts("dev", bed.setup.dev_lines)
        found.append(
            least_kl(bed.model, edits, texts, bed.words, source=SOURCE, target=target, share=SHARE)[
                0
            ]
        )
    return found[0], found[1], found[2]


def spectra(bed: Bed, table: pd.DataFrame, middle: Sequence[Spectrum]) -> str:
    """The spectrum of the masked latents' differences, with its window."""
    drawn = figures.spectrum(table, targets=bed.setup.shown, kind="latents")
    bed.record("latent_spectra", table[table["target"].isin(bed.setup.shown)])
    figures.write(drawn, bed.out / "latent_spectra", data=table)
    bed.draw(latent_spectra=figures.paper(drawn, width=160, height=90))
    ranks = [spectrum.rank for spectrum in middle]
    first = table[table["place"] == 1]
    inside = first[first["in_window"]]
    return (
        f"The eigengap's rank of the masked differences is {first['rank'].median():g} in the "
        "median over targets and "
        f"layers ({first['rank'].min()}-{first['rank'].max()}); inside the windows its mass is "
        f"{inside['mass'].median():.2f} and its stability {inside['stability'].median():.3f} in "
        "the median. "
        f"Looked for among the first {LARGEST} values instead of 12, at layers "
        f"{', '.join(map(str, sorted({each.layer for each in middle})))} the rank is "
        f"{min(ranks)} to {max(ranks)}.\n\n"
        f"{bed.shown('latent_spectra', 'Spectra of latents')}"
    )


def tokens(bed: Bed) -> str:
    """The token sets that masses are read with, and how they do on gold text that they were not
    made from."""
    gold = gold_masses(bed.model, bed.corpus.split("dev").take(bed.setup.dev_lines), bed.words)
    rows = []
    for place, iso in enumerate(bed.words.langs):
        others = [float(value) for other, value in enumerate(gold[place]) if other != place]
        told = {
            "language": iso,
            "tokens": bed.words.sizes[iso],
            "own mass": f"{float(gold[place, place]):.2f}",
        }
        told |= {
            "next": f"{max(others):.2f}",
            "some": " ".join(bed.words.sample(iso)).replace("|", ""),
        }
        rows.append(told)
    head = "The tokens that stand for each language, and their mass on its own dev lines:"
    return f"{head}\n\n{markdown(pd.DataFrame(rows))}\n"


def traced(bed: Bed) -> str:
    """How much of a feature the neuron that writes most of it writes."""
    found = sl.units.trace(
        bed.model, bed.saes, monolinguality(bed.latents), bed.neurons, source=SOURCE, top=1
    )
    found.to_csv(bed.out / "traced.csv", index=False)
    share = found["share"]
    top = found.sort_values("share", ascending=False).head(6).round(3)
    return (
        f"Of what the MLPs write into one of the {len(found)} features of monolinguality, target "
        f"less {SOURCE}, the "
        f"neuron that writes the most writes {share.median():.3f} in the median and "
        f"{share.max():.3f} at most (share "
        f"of all absolute contributions, along the direct path). The largest:\n\n{markdown(top)}\n"
    )


def windowed(fit: Directions, target: str) -> Direction:
    inside = fit.extra["window"][fit.langs.index(target)].bool().tolist()
    return fit.at(
        *(layer for layer, there in zip(fit.layers, inside, strict=True) if there)
    ).between(SOURCE, target)


def variants(
    bed: Bed, fit: Directions, dense: Directions, target: str, both: Setting, alone: Setting
) -> Mapping[str, Edit]:
    """The two signed shifts at their own strengths, and edits of the first's dose over the
    target's window."""
    step, texts = windowed(fit, target), bed.prompts("dev", bed.setup.dev_lines)
    shift = signed_shift(step, push=both[0], pull=both[1])
    dose = float(doses(bed.model, texts, [shift])[0])
    like = lambda make: scaled(bed, texts, make, dose)  # noqa: E731
    plain = like(lambda size: add(step, strength=size))
    return {
        "push and pull": shift,
        "push alone, own λ": signed_shift(step, push=alone[0]),
        "push alone, equal dose": like(lambda size: signed_shift(step, push=size)),
        "plain add of the same vectors, equal dose": plain,
        "DiffMean, equal dose": like(
            lambda size: add(dense.at(*step.layers).between(SOURCE, target), strength=size)
        ),
        "random, equal dose": sl.effects.random_like(bed.model, texts, plain),
        "unsteered": Edit(()),
    }


def scaled(bed: Bed, texts: list[str], make: Callable[[float], Edit], dose: float) -> Edit:
    """The edit at the size at which it has this dose, within 2 %."""
    size = 1.0
    for _ in range(8):
        found = float(doses(bed.model, texts, [make(size)])[0])
        if abs(found - dose) <= 0.02 * dose:
            return make(size)
        size *= dose / found
    raise SteerlabError(f"the dose {dose:.2f} was not reached, the last was {found:.2f}")


def measured(bed: Bed, target: str, edits: Mapping[str, Edit]) -> pd.DataFrame:
    """A row for each edit and test line: gain and KL after the prompt, and what was said."""
    lines, texts = (
        bed.corpus.split("test").take(bed.setup.test_lines),
        bed.prompts("test", bed.setup.test_lines),
    )
    masses = language_masses(bed.model, texts, list(edits.values()), bed.words)
    ours, theirs = (masses.langs.index(iso) for iso in (target, SOURCE))
    gain = masses.gain[..., ours] - masses.gain[..., theirs]
    judge, identifier, found = Retrieval(bed.corpus.split("test")), sl.scores.identifier(), []
    for place, (name, edit) in enumerate(edits.items()):
        many = stack([edit] * len(texts)) if edit.parts else None
        said = decode(bed.model, texts, edit=many, max_new_tokens=32)
        told = zip(said.texts, texts, lines[SOURCE], lines.numbers, strict=True)
        answers = [
            Answer(first_line(text), given, line, number, SOURCE, target)
            for text, given, line, number in told
        ]
        rows = pd.DataFrame(score(answers, identifier=identifier, judge=judge))
        rows = rows.assign(
            variant=name, target=target, sentence=list(lines.numbers), dose=said.dose
        )
        found.append(rows.assign(gain=gain[place].tolist(), kl=masses.kl[place].tolist()))
    return pd.concat(found, ignore_index=True)


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    made = []
    for name, part in frame.groupby("variant", sort=False):
        told = {"edit": name}
        for label, column in (
            ("ΔM", "gain"),
            ("KL", "kl"),
            ("LFS", "in_language"),
            ("joint", "joint"),
        ):
            values = part[column].to_numpy(float)
            if name == "unsteered" and label in ("ΔM", "KL"):
                told[label] = "0"  # by definition
                continue
            told[label] = spelled(
                by_sentence(values, part["sentence"].to_numpy(), strata=part["target"].to_numpy())
            )
        made.append(told | {"dose": f"{part['dose'].astype(float).mean():.2f}", "n": len(part)})
    return pd.DataFrame(made)
