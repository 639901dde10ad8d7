"""SAE features and neurons of the languages of a model: how many, what they steer, whose language they
carry.

`python experiments/units/page.py [--model NAME] [--only SECTION ...]` writes the page that setups.py
names for the model, its figures, rows and tables. A section that is not asked for keeps the text that it had; finished
batches of steering are kept.
"""

import argparse
import re
import sys
import time
import traceback
from collections.abc import Callable

import counting
import selectivity
import signed
import steering
from beds import Bed, bed
from setups import SETUPS, Setup

PICTURE = re.compile(r"!\[[^]]*\]\(([^)]*)\)$")
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
    parser.add_argument("--model", choices=SETUPS, default="polyglot")
    options = parser.parse_args()
    setup = SETUPS[options.model]
    for folder in (setup.out, setup.page.parent / "images"):
        folder.mkdir(parents=True, exist_ok=True)
    kept = setup.out / "sections"
    kept.mkdir(exist_ok=True)
    found, start = bed(options.model), time.monotonic()
    failed = []
    for name in options.only:
        try:
            text = SECTIONS[name][1](found)
        except Exception:  # the readings took minutes: what else can be made of them is made
            failed.append(name)
            traceback.print_exc()
            continue
        (kept / f"{name}.md").write_text(text, "utf-8")
        write(setup)
        print(f"{name} after {time.monotonic() - start:.0f} s", flush=True)
    print(setup.page)
    return 1 if failed else 0


def write(setup: Setup) -> None:
    """The page, of what sections there are; pictures that were not drawn are left out."""
    parts = []
    for name, (title, _) in SECTIONS.items():
        file = setup.out / "sections" / f"{name}.md"
        if file.exists():
            lines = [
                line
                for line in file.read_text("utf-8").splitlines()
                if not (picture := PICTURE.match(line)) or (setup.page.parent / picture[1]).exists()
            ]
            parts.append(f"## {title}\n\n" + "\n".join(lines) + "\n")
    head = f"# {setup.title}\n\n{setup.head}"
    setup.page.write_text("\n".join([head, *parts]), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
