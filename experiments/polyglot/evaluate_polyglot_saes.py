"""Measure polyglot's sparse autoencoders and write their card.

`python experiments/polyglot/evaluate_polyglot_saes.py WORK` reads the held-out lines that data.py left in
WORK, measures the autoencoders in the package, and those in WORK/compare beside them, and writes
README.md and saes.json next to the weights. `--compare` prints the comparison alone. Nothing is
measured on lines that the model or an autoencoder saw.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from data import NAMES
from saes.measuring import languages, measure, stored, table, text_of

from steerlab.models.loading import PACKAGED, load
from steerlab.sae import SAE, saes

LINES, SPLICED = 140, 40  # lines of a language: to rebuild, and of these to run on


def card(told: Mapping[str, Any]) -> str:
    """The card, every number of it from this run."""
    some = next(iter(told["layers"].values()))
    return f"""---
license: cc-by-4.0
library_name: saelens
language: [{", ".join(NAMES)}]
---

# Sparse autoencoders of polyglot

One for each layer of polyglot ({some["site"]}, {some["latents"]:,} latents, {told["width"]} numbers in), trained by
sae-lens as {some["trained_as"]} on {told["training_tokens"]:,} tokens of polyglot's training text, every language as
often, and stored in its format as {some["kind"]} ({told["stored_in"]} weights). They are of the model with fingerprint
`{told["fingerprint"]}`; steerlab refuses them for another. This card is written by
`experiments/polyglot/evaluate_polyglot_saes.py`.

Measured on {told["lines"]:,} held-out lines ({told["lines_per_language"]} of each language, {told["tokens"]:,} tokens;
each alone after BOS, which is neither counted nor replaced). Brackets are 95 % intervals by resampling lines within
their languages (of the linearised ratio of sums).

* Explained variance: 1 - Σ‖h - ĥ‖² / Σ‖h - mean‖². The mean is that of all lines; by language, the language's own.
* L0: latents that are on at a token. Dead: on at no token of these lines.
* Loss recovered: (zeroed - spliced) / (zeroed - clean) of the cross-entropy of {SPLICED} of these lines per language,
  where the vectors of all tokens at the layer are replaced by zeros, or by their reconstructions. Clean:
  {some["nats_clean"]:.3f} nats per token; zeroed: {told["zeroed"]}. What is lost: spliced - clean.

## By layer

{table(told["layers"], "layer")}

## By language

The median over layers (least to most); every layer's with intervals is in saes.json.

{languages(told["layers"])}
{compared(told)}
## Licence

Derived, as polyglot is, from the texts that its card names: CC BY 4.0.
"""


def compared(told: Mapping[str, Any]) -> str:
    if not told["compare"]:
        return ""
    some = next(iter(told["compare"].values()))
    tokens = told["compare_tokens"]
    return f"""
## Which kind

Three kinds, trained side by side on the same {tokens:,} tokens at layer {some["layer"]}, measured as above (sae-lens
saves a BatchTopK autoencoder as a JumpReLU one, with one threshold for all latents):

{table(told["compare"], "trained as")}

BatchTopK was taken for all layers: sae-lens stores it as JumpReLU, with one learned threshold, so that each latent can
be read and edited without the others, which TopK's cannot. JumpReLU itself asks for more steps, or for a schedule tuned
to them, than all three were given here.
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--saes", type=Path, default=PACKAGED / "saes")
    parser.add_argument(
        "--compare", action="store_true", help="print the comparison of kinds, write nothing"
    )
    options = parser.parse_args()
    model = load(device="cpu")
    mono = json.loads((options.work / "held_out.json").read_text("utf-8"))["mono"]
    text = text_of(model, {iso: mono[iso] for iso in NAMES}, LINES)
    kinds = {folder.name: folder for folder in sorted((options.work / "compare").glob("*/"))}
    given = {f"compare {name}": SAE.load(folder) for name, folder in kinds.items()}
    if not options.compare:
        given |= {str(layer): sae for layer, sae in saes(options.saes).items()}
    found = measure(model, text, given, spliced=SPLICED)
    compare = {name: found.pop(f"compare {name}") for name in kinds}
    if options.compare:
        print(table(compare, "trained as"), "", languages(compare), sep="\n")
        return
    layers = found
    tokens, precision = stored(options.saes / f"layer_{next(iter(layers))}")
    zeroed = [row["nats_zeroed"] for row in layers.values()]
    told = {
        "fingerprint": model.fingerprint,
        "width": model.width,
        "training_tokens": tokens,
        "stored_in": {"F16": "16-bit", "BF16": "16-bit", "F32": "32-bit"}[precision],
        "lines": len(text.texts),
        "lines_per_language": LINES,
        "tokens": int(text.tokens.sum()),
        "zeroed": f"{min(zeroed):.2f} to {max(zeroed):.2f}",
        "layers": layers,
        "compare": compare,
        "compare_tokens": stored(next(iter(kinds.values())))[0] if kinds else 0,
    }
    (options.saes / "saes.json").write_text(json.dumps(told, indent=1), "utf-8")
    (options.saes / "README.md").write_text(card(told), "utf-8")
    print(card(told))


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
