"""SAE features and neurons of the languages of polyglot: how many, what they steer, whose language
they carry.

`python experiments/units/page.py [--only SECTION ...]` writes docs/units.md, its figures, and
build/units (rows and tables). A section that is not asked for keeps the text that it had; finished
batches of steering are kept.
"""

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping

import counting
import selectivity
import signed
import steering
from beds import IMAGES, OUT, PAGE, Bed, bed

HEAD = """# SAE features and neurons

The methods that choose the features of sparse autoencoders, or the neurons, of a language, on the packaged model and
its own SAEs (their card: steerlab/data/polyglot/saes/README.md), from the 120 sentences in 16 languages of the packaged
corpus' split `estimate`. A feature fires on a token where its value is above its threshold, a neuron where its gate is
positive; its firing rate is the share of tokens on which it does. Brackets are 95 % intervals over sentences, rows in
italics are controls. Written by `python experiments/units/page.py`.
"""
SECTIONS: dict[str, tuple[str, Callable[[Bed], str]]] = {
    "listed": ("How many", counting.listed),
    "steering": ("Steering", lambda found: steering.run(found)[0]),
    "selectivity": ("Selectivity", selectivity.run),
    "features": ("LangFIR's thresholds and texts", counting.features),
    "neurons": ("Where the neurons sit", counting.neurons),
    "signed": ("Neural FOXP2's signed shift", signed.run),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    options = parser.parse_args()
    for folder in (OUT, IMAGES):
        folder.mkdir(parents=True, exist_ok=True)
    kept = OUT / "sections.json"
    texts = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    found, start = bed(), time.monotonic()
    failed = []
    for name in options.only:
        try:
            texts[name] = SECTIONS[name][1](found)
        except Exception:  # the readings took minutes: what else can be made of them is made
            failed.append(name)
            traceback.print_exc()
            continue
        kept.write_text(json.dumps(texts, ensure_ascii=False), "utf-8")
        print(f"{name} after {time.monotonic() - start:.0f} s", flush=True)
    write(texts)
    print(PAGE)
    return 1 if failed else 0


def write(texts: Mapping[str, str]) -> None:
    """The page, of what sections there are."""
    parts = [
        f"## {title}\n\n{texts[name]}" for name, (title, _) in SECTIONS.items() if name in texts
    ]
    PAGE.write_text("\n".join([HEAD, *parts]), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
