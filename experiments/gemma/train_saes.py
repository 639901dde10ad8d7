"""Train sparse autoencoders for Gemma 3 270M: four layers, eight latents for each number of its
stream.

`python experiments/gemma/train_saes.py TEXT` reads TEXT/<language>.txt, one sentence or paragraph a
line, and writes into the user's cache, from which `sl.SAE.load` reads them. The weights of the model
come from packages that the extra `models` installs, and what is trained on its activations stays with
the user, as its terms do. `evaluate_saes.py TEXT` writes the card.

As polyglot's they are BatchTopK, of 32 latents at a token, which sae-lens stores as JumpReLU with one
threshold. Two things differ. Most of Gemma's stream is one vector that all tokens share (its mean is
nine tenths of its length), so that it is subtracted first and put back into `b_dec`. And matrices
multiply in bfloat16, which takes less than half of the time.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))  # experiments

from saes.folder import Documents, read_folder
from saes.training import Recipe, Stream, kept, save, train

import steerlab as sl

MODEL = "gemma-3-270m"
LAYERS = (4, 8, 12, 16)  # of 18; DiffMean steers best at 4 to 8
TOKENS = 1_024_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", type=Path, help="a folder with de.txt, en.txt, ...")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--langs", nargs="+", help="by default those of the packaged corpus")
    parser.add_argument("--layers", type=int, nargs="+", default=LAYERS)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--kind", default="batchtopk", choices=("topk", "batchtopk", "jumprelu"))
    parser.add_argument(
        "--source", default="the texts' own", help="their origin and licence, for the card"
    )
    parser.add_argument("--out", type=Path, help="by default a folder of the user's cache")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    options = parser.parse_args()
    model = sl.load(options.model, dtype="auto")
    out = options.out or kept(model)
    corpus = sl.corpus()
    langs = options.langs or list(corpus.langs)
    lines = read_folder(options.text, langs, corpus)
    # From a checkpoint other documents are drawn, so that none is read twice as often.
    documents = Documents(model, lines.training, seed=int(options.resume))
    stream = Stream(model, documents, options.layers, centred=True)
    recipe = Recipe(options.tokens, half=model.dtype == torch.bfloat16)
    saes = {f"layer_{layer}": (options.kind, layer) for layer in options.layers}
    made, cost = train(
        model, stream, saes, recipe, checkpoints=out / "checkpoints", resume=options.resume
    )
    for name, sae in made.items():
        centre = stream.centres[sae.cfg.metadata.hook_name]
        save(sae, out / name, centre=centre, training_tokens=cost.tokens)
    metadata = {
        **asdict(cost),
        "threads": torch.get_num_threads(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "kind": options.kind,
        "active": recipe.active,
        "langs": langs,
        "lines": {lang: len(of_lang) for lang, of_lang in lines.training.items()},
        "digest": lines.digest,
        "source": options.source,
    }
    (out / "training.json").write_text(json.dumps(metadata, indent=1), "utf-8")
    print(out)


if __name__ == "__main__":
    main()
