"""Measure the sparse autoencoders that train_saes.py left in the user's cache, and write their card.

`python experiments/gemma/evaluate_saes.py TEXT` reads the lines of TEXT that were held out, writes
README.md and saes.json beside the weights, and the card as docs/gemma_saes.md.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))  # experiments

from saes.folder import read_folder
from saes.measuring import languages, measure, stored, table, text_of
from saes.training import kept

import steerlab as sl
from steerlab.sae import saes

MODEL = "gemma-3-270m"
LINES, SPLICED = 40, 16  # lines of a language: to rebuild, and of these to run on
PAGE = Path("docs/gemma_saes.md")


def card(found: Mapping[str, Any]) -> str:
    """The card, every number of it from this run and the training's."""
    some = next(iter(found["layers"].values()))
    trained = found["trained"]
    minutes = trained["cpu_seconds"] / 60
    listed = " ".join(trained["langs"])
    return f"""# Sparse autoencoders of {found["model"]}

One for each of layers {", ".join(found["layers"])} ({some["site"]}, {some["latents"]:,} latents, {found["width"]} numbers
in), trained by `experiments/gemma/train_saes.py` with sae-lens as {some["trained_as"]} ({trained["active"]} latents at a
token), stored in its format as {some["kind"]} ({found["stored_in"]} weights), for the model with fingerprint
`{found["fingerprint"]}`; steerlab refuses them for another. They lie in the user's cache and are no part of steerlab:
what is made from a model comes under the model's terms.

* Trained on {trained["tokens"]:,} tokens of {trained["dtype"]} activations, {len(trained["langs"])} languages as often
  ({listed}); {sum(trained["lines"].values()):,} lines to draw from, 1 to 8 a document, a fifth of the documents with every
  line said twice. {minutes:.0f} CPU minutes in {trained["threads"]} thread{"s" if trained["threads"] > 1 else ""}
  ({trained["reading"] / 60:.0f} of them reading), {trained["seconds"] / 60:.0f} minutes by the clock on a machine
  with other work.
* Text: {trained["source"]}. SHA-256 of the lines `{trained["digest"][:16]}`; none of the text is here.

Measured on {found["lines"]:,} held-out lines ({found["tokens"]:,} tokens; each alone after BOS, which is neither counted
nor replaced). Brackets are 95 % intervals by resampling lines within their languages (of the linearised ratio of sums).
Written by `experiments/gemma/evaluate_saes.py`.

* Explained variance: 1 - Σ‖h - ĥ‖² / Σ‖h - mean‖². The mean is that of all lines; by language, the language's own. A few
  directions hold most of this model's variance, so that loss recovered says more.
* L0: latents that are on at a token. Dead: on at no token of these lines.
* Loss recovered: (zeroed - spliced) / (zeroed - clean) of the cross-entropy of {found["spliced"]} lines per language,
  where the vectors of all tokens at the layer are replaced by zeros, or by their reconstructions. Clean:
  {some["nats_clean"]:.3f} nats per token; zeroed: {found["zeroed"]}. What is lost: spliced - clean.

## By layer

{table(found["layers"], "layer")}

## By language

The median over layers (least to most); every layer's with intervals is in saes.json.

{languages(found["layers"])}
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", type=Path, help="the folder that they were trained on")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--saes", type=Path, help="by default where train_saes.py puts them")
    parser.add_argument("--lines", type=int, default=LINES)
    parser.add_argument("--spliced", type=int, default=SPLICED)
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    began = time.process_time()
    model = sl.load(options.model, dtype="auto")
    place = options.saes or kept(model)
    trained = json.loads((place / "training.json").read_text("utf-8"))
    lines = read_folder(options.text, trained["langs"], sl.corpus())
    if lines.digest != trained["digest"]:
        raise SystemExit(f"{options.text} is not the text of {place}/training.json; give that one")
    text = text_of(model, lines.held_out, options.lines)
    given = saes(place)
    measured = measure(
        model, text, {str(layer): sae for layer, sae in given.items()}, spliced=options.spliced
    )
    _, precision = stored(place / f"layer_{next(iter(given))}")
    zeroed = [row["nats_zeroed"] for row in measured.values()]
    found = {
        "model": model.name,
        "fingerprint": model.fingerprint,
        "width": model.width,
        "stored_in": {"F16": "16-bit", "BF16": "16-bit", "F32": "32-bit"}[precision],
        "trained": trained,
        "lines": len(text.texts),
        "spliced": options.spliced,
        "tokens": int(text.tokens.sum()),
        "zeroed": f"{min(zeroed):.2f} to {max(zeroed):.2f}",
        "layers": measured,
    }
    (place / "saes.json").write_text(json.dumps(found, indent=1), "utf-8")
    for file in (place / "README.md", options.page):
        file.write_text(card(found), "utf-8")
    print(card(found))
    print(f"{time.process_time() - began:.0f} CPU seconds")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
