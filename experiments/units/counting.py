"""How many features LangFIR finds at which thresholds and from how many texts, and where neurons
sit."""

import pandas as pd
from beds import SOURCE, Bed

from steerlab import figures
from steerlab.analysis.tables import markdown
from steerlab.core.errors import SteerlabError
from steerlab.engine.collect_units import collect_units
from steerlab.estimate.units import langfir_counts, langfir_stability, lape, nju

CONSISTENCY, NOISE = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0), (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
SAMPLES = (10, 25, 50, 100)


def features(bed: Bed) -> str:
    """LangFIR's counts and stability."""
    read = bed.readings
    assert read.random is not None
    counts = langfir_counts(bed.latents, read.random, consistency=CONSISTENCY, noise=NOISE)
    drawn = figures.threshold_counts(counts)
    bed.record("langfir_counts", counts)
    figures.write(drawn, bed.out / "langfir_counts", data=counts)
    at = counts[(counts["consistency"] == 0.95) & (counts["noise"] == 0.05)]
    table = at.groupby("layer")["count"].agg(["median", "min", "max"]).reset_index()
    table["without any"] = (
        at.groupby("layer")["count"].apply(lambda part: int((part == 0).sum())).to_numpy()
    )
    second = langfir_counts(
        bed.latents, read.random, read.shuffled, consistency=[0.95], noise=[0.05]
    )
    table["after shuffled too"] = second.groupby("layer")["count"].median().to_numpy()
    texts = bed.corpus.split("estimate")
    own = collect_units(bed.model, texts, read.saes, keep=len(texts))
    random = collect_units(bed.model, texts, read.saes, noise="random", keep=len(texts))
    stable = langfir_stability(own, random, samples=SAMPLES)
    curve = figures.stability_curve(stable)
    bed.record("langfir_stability", stable)
    figures.write(curve, bed.out / "langfir_stability", data=stable)
    bed.draw(
        langfir_counts=figures.paper(drawn, width=160, height=90),
        langfir_stability=figures.paper(curve, width=120, height=80),
    )
    means = (
        stable.groupby("samples")["jaccard"]
        .describe()[["50%", "min", "max"]]
        .reset_index()
        .round(2)
    )
    means.columns = pd.Index(["texts", "median Jaccard", "least", "most"])
    return (
        f"Features a language at consistency .95 and noise .05, over {len(bed.corpus.langs)} "
        "languages and "
        f"{len(texts)} texts each:\n\n{markdown(table)}\n\n{bed.shown('langfir_counts', 'Counts')}\n\n"
        f"How far the set from a sample of the texts agrees with that from all {len(texts)}, of "
        "which the sample is a "
        "part (so that 100 texts are near 1 by construction); languages and layers that have "
        "features:\n\n"
        f"{markdown(means)}\n\n{bed.shown('langfir_stability', 'Stability')}\n"
    )


def neurons(bed: Bed) -> str:
    """Where LAPE's and NJU's neurons sit."""
    chosen, aligned = lape(bed.neurons), nju(bed.neurons)
    counts = chosen.counts
    counts.to_csv(bed.out / "lape_counts.csv")
    drawn = figures.units_by_layer(counts)
    kinds = aligned.kinds_by_layer()
    kinds.to_csv(bed.out / "nju_kinds.csv", index=False)
    try:
        divided = aligned.parts()
        words = "The layers divide into " + "; ".join(
            f"{name}: {told(layers)}" for name, layers in divided.items()
        )
    except SteerlabError as error:
        divided, words = None, f"The layers do not divide into four parts: {error}"
    parts = figures.kinds_by_layer(kinds, parts=divided)
    bed.record("lape_by_layer", counts.reset_index(names="language"))
    part = {layer: name for name, layers in (divided or {}).items() for layer in layers}
    bed.record("nju_by_layer", kinds.assign(part=kinds["layer"].map(part)) if part else kinds)
    figures.write(drawn, bed.out / "lape_by_layer", data=counts.reset_index(names="language"))
    figures.write(parts, bed.out / "nju_by_layer", data=kinds)
    bed.draw(
        lape_by_layer=figures.paper(drawn, width=140, height=90),
        nju_by_layer=figures.paper(parts, width=140, height=90),
    )
    table = counts.assign(all=counts.sum(axis=1)).reset_index(names="language")
    return (
        f"LAPE's neurons by language and layer (of {bed.neurons.units} a layer; the lowest 1 % of "
        "the entropies):\n\n"
        f"{markdown(table)}\n\n{bed.shown('lape_by_layer', 'Neurons of LAPE')}\n\n"
        f"NJU's λ is {aligned.penalty:.3f} and its bar {aligned.bar:.3f}. {words.rstrip('.')}.\n\n"
        f"{bed.shown('nju_by_layer', 'Kinds of neurons')}\n"
    )


def told(layers: tuple[int, ...]) -> str:
    return ", ".join(map(str, layers)) or "none"


def listed(bed: Bed) -> str:
    """Units a language of every method: median and range over languages, all layers together."""
    rows = []
    for name, selection in bed.selections.items():
        each = selection.counts.drop(index=SOURCE).sum(axis=1)
        share = selection.chosen.any(0).sum(-1).float()
        rows.append(
            {
                "method": name,
                "of": "features" if selection.site == "resid_post" else "neurons",
                "median": f"{each.median():g}",
                "range": f"{each.min()}-{each.max()}",
                SOURCE: int(selection.counts.T[SOURCE].sum()),
                "distinct by layer": " ".join(f"{int(count)}" for count in share.tolist()),
            }
        )
    assert bed.readings.random is not None
    counts = langfir_counts(bed.latents, bed.readings.random, consistency=[0.95], noise=[0.05])
    each = counts["count"]
    bed.note(**{"langfir median": float(each.median()), "langfir most": int(each.max())})
    found = bed.selections.get("langfir")
    shared = (
        []
        if found is None
        else [
            int((found.chosen[:, place].sum(0) >= 0.75 * len(found.langs)).sum())
            for place in range(len(found.layers))
        ]
    )
    common = (
        ""
        if found is None
        else f"- Of LangFIR's features, so many are those of three quarters of the languages, by layer: {shared}.\n"
    )
    refused = common + "".join(
        f"- None of {name}: {reason}\n" for name, reason in bed.refused.items()
    )
    trained = sorted(
        {sae.about.get("metadata", {}).get("training_tokens") or 0 for sae in bed.saes.values()}
    )
    of_saes = (
        f"- The SAEs are of layers {', '.join(map(str, bed.saes))}, trained on "
        f"{' and '.join(f'{tokens:,}' for tokens in trained)} tokens. LangFIR finds "
        f"{each.median():g} features in the median of languages and layers, {each.max()} at "
        "most.\n"
    )
    return f"{markdown(pd.DataFrame(rows))}\n\n{of_saes}{refused}"
