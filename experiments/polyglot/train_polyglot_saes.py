"""Train sparse autoencoders for polyglot with sae-lens, all layers from one stream of the model's
activations.

`python experiments/polyglot/train_polyglot_saes.py WORK --compare` trains TopK, BatchTopK and JumpReLU at
one layer, side by side on the same batches, into WORK/compare; without `--compare` it trains what
was chosen from that, at every layer, into the package, beside the model. WORK holds what data.py
left. `evaluate_saes.py WORK` writes the card.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from data import Documents
from saes.training import Recipe, Stream, save, train
from tokenizers import Tokenizer

from steerlab.models.loading import PACKAGED, load

COMPARED = 4
TOKENS, COMPARED_TOKENS = 1_600_000, 600_000
MIXTURE = (
    0.7,
    0.2,
    0.1,
)  # monolingual runs, bare translations, instructed pairs; languages in equal shares
LENGTH = 128


def documents(work: Path) -> Documents:
    """The training lines, every language as likely as any other."""
    lines = json.loads((work / "lines.json").read_text("utf-8"))
    found = Documents(
        lines, Tokenizer.from_file(str(PACKAGED / "tokenizer.json")), mixture=MIXTURE, seed=1
    )
    found.p_mono = np.full(len(found.p_mono), 1 / len(found.p_mono))
    found.p_pair = np.full(len(found.p_pair), 1 / len(found.p_pair))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--compare", action="store_true", help="three kinds at one layer")
    parser.add_argument("--kind", default="batchtopk")
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--layers", type=int, nargs="+")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    model = load(device=options.device)
    if options.compare:
        layers: tuple[int, ...] = (COMPARED,)
        saes = {kind: (kind, COMPARED) for kind in ("topk", "batchtopk", "jumprelu")}
        tokens, out = options.tokens or COMPARED_TOKENS, options.work / "compare"
    else:
        layers = tuple(options.layers or range(model.n_layers))
        saes = {f"layer_{layer}": (options.kind, layer) for layer in layers}
        tokens, out = options.tokens or TOKENS, PACKAGED / "saes"
    text = documents(options.work)
    stream = Stream(model, lambda: text.document(LENGTH)[0].tolist(), layers)
    made, _ = train(model, stream, saes, Recipe(tokens))
    for name, sae in made.items():
        save(sae, out / name, training_tokens=tokens)
        print(out / name)


if __name__ == "__main__":
    main()
