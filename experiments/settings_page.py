"""Write docs/settings.md, the tables of every verb's settings: `python
experiments/settings_page.py`."""

from pathlib import Path

from steerlab.cli.options import shown
from steerlab.core.settings import Checked, default_of
from steerlab.studies.clas.settings import Settings as ClasSettings
from steerlab.studies.main.settings import Settings
from steerlab.sweeps.grid import Grid

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
HEAD = """# Settings

<!-- experiments/settings_page.py writes this page from the classes of the settings -->

A setting has one name, one check and one sentence of help. On the command line `judge_model` is `--judge-model`; in
Python it is a keyword of the call, `judge_model=`; in a sweep's YAML file it is a key. A yes or no is a flag, such as
`--quick`, and `--no-quick` takes it back. Several values have commas between them: `--langs en,de`, in Python
`langs="en,de"` or `["en", "de"]`. The word `all` asks for all languages, layers or lines. What is wrong is said before
any work, with the key, what was given, what is allowed and the nearest key.
"""
SECTIONS: list[tuple[str, type[Checked], str]] = [
    (
        "The main job",
        Settings,
        "`steerlab run`, and `sl.run(out=...)` with these keywords; `model` may also be a loaded "
        "model and `corpus` a `Corpus`.",
    ),
    (
        "A sweep",
        Grid,
        "`steerlab sweep FILE.yaml`, where an option wins over the file, and `sl.sweep(model, "
        "corpus)` with these keywords. `operators` are read with `strengths`: a name takes them, or "
        "the operator's own where there are none; in YAML `{add: [0.5, 1], rotate: [1]}` gives each "
        "its own.",
    ),
    (
        "CLaS-Bench",
        ClasSettings,
        "`steerlab clas`, and `sl.clas.run(out=...)` with these keywords; `judge` may also be a "
        "judge that is made.",
    ),
]


def table(settings: type[Checked]) -> str:
    """One row for each setting."""
    lines = ["| setting | default | what it is |", "|---|---|---|"]
    for name, field in settings.model_fields.items():
        default = "" if field.default_factory else shown(default_of(settings, name))
        text = str(field.description).replace("<", "&lt;").replace(">", "&gt;")
        lines.append(f"| `{name}` | {default and f'`{default}`'} | {text} |")
    return "\n".join(lines)


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for title, settings, text in SECTIONS:
        parts.append(f"## {title}\n\n{text}\n\n{table(settings)}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    print(PAGE)
