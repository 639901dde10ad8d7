"""Directions on the Hub: the file, a card that says what made it, and pictures."""

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from steerlab.core.directions import Directions
from steerlab.core.display import bars, heat
from steerlab.core.errors import SteerlabError, first_line_of
from steerlab.core.files import need_folder, need_target, write_text
from steerlab.core.labels import spoken
from steerlab.core.targets import TAILS

FILE, CARD, CONFIG = "directions.safetensors", "README.md", "config.json"
GAPS, COSINES = "gaps.svg", "cosines.svg"
_REPO = re.compile(r"\w[\w.-]*/\w[\w.-]*")  # owner/name


def push_to_hub(
    directions: Directions,
    repo: str,
    *,
    license: str | None = None,
    private: bool = False,
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Write a repository of the Hub; `Directions.push_to_hub` says more.

    Args:
        directions: what is written.
        repo: owner/name.
        license: of the file, as the Hub names licences.
        private: whether a new repository is.
        token: of the Hub.
        endpoint: another address than the Hub's.
    """
    from huggingface_hub import HfApi

    _need_repo(repo, "; a folder is written by write_repository of steerlab.core.exchange.hub")
    with tempfile.TemporaryDirectory() as folder:
        write_repository(directions, folder, repo=repo, license=license)
        api = HfApi(endpoint=endpoint, token=token, library_name="steerlab")
        try:
            made = api.create_repo(repo, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=repo,
                folder_path=folder,
                commit_message=f"Directions by {directions.estimator}",
            )
        except Exception as error:  # the Hub's own, and those of whatever library it asks by
            raise SteerlabError(
                f"could not write {repo} on the Hub ({first_line_of(error)}); give a repository "
                "that is yours, and log in (hf auth login) or give token="
            ) from error
    return str(made)


def from_hub(
    repo: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    endpoint: str | None = None,
) -> Directions:
    """Read a repository of the Hub, or a folder; `Directions.from_hub` says more.

    Args:
        repo: owner/name, or a folder.
        revision: a branch, tag or commit.
        token: of the Hub.
        endpoint: another address than the Hub's.
    """
    if isinstance(repo, Path) or Path(repo).is_dir():
        return Directions.load(Path(repo) / FILE)
    from huggingface_hub import hf_hub_download

    _need_repo(repo, ", or a folder that is there")
    try:
        file = hf_hub_download(repo, FILE, revision=revision, token=token, endpoint=endpoint)
    except Exception as error:
        raise SteerlabError(
            f"could not fetch {FILE} of {repo} from the Hub, and it is not in its cache "
            f"({first_line_of(error)}); check the name, connect once, or give a folder"
        ) from error
    return Directions.load(file)


def write_repository(
    directions: Directions,
    folder: str | Path,
    *,
    repo: str = "OWNER/NAME",
    license: str | None = None,
    force: bool = False,
) -> list[Path]:
    """Write what `push_to_hub` uploads into a folder, to look at or to send in another way; gives
    the files.

    Raises `SteerlabError`, before anything is written, where a file of the same name lies there
    that steerlab did not write, such as a model's config.json.

    Args:
        directions: what is written.
        folder: is made where it is not there; other files in it stay.
        repo: what the card calls the repository.
        license: of the file, as the Hub names licences; by default the card names none.
        force: replace files that steerlab did not write.
    """
    where = need_folder(folder)
    texts = {
        CARD: card(directions, repo=repo, license=license),
        CONFIG: json.dumps(_config(directions), indent=1, ensure_ascii=False) + "\n",
        GAPS: _light(bars(_gaps(directions))),
        COSINES: _light(_cosines(directions)),
    }
    where.mkdir(parents=True, exist_ok=True)
    # A card has no mark, since people go on writing it; the same one may be there.
    changed = [name for name, text in texts.items() if not _holds(where / name, text)]
    for name in (FILE, *changed):
        need_target(where / name, Path(name).suffix, force=force)
    directions.save(where / FILE, force=force)
    for name in changed:
        write_text(where / name, texts[name], force=force)
    return [where / name for name in (FILE, *texts)]


def _holds(file: Path, text: str) -> bool:
    return file.is_file() and file.read_bytes() == text.encode()


def card(directions: Directions, *, repo: str = "OWNER/NAME", license: str | None = None) -> str:
    """The model card: what the file is, what made it, how to use it, and what it does not say.

    Args:
        directions: what it describes.
        repo: what the repository is called.
        license: as the Hub names licences; by default the card names none.
    """
    source, target = _example(directions)
    layer = directions.layers[len(directions.layers) // 2]
    model = _model(directions)
    corpus = directions.provenance.get("corpus", {})
    rows = {
        "model": model or "unknown",
        "weights' fingerprint": directions.provenance.get("model", {}).get("fingerprint"),
        "estimator": directions.estimator,
        "labels": " ".join(directions.langs),
        "layers": " ".join(map(str, directions.layers)),
        "site": directions.site,
        "rank": directions.basis.shape[2],
        "only from": directions.source,
        "corpus": _base(corpus.get("name")),
        "its hash": corpus.get("hash"),
        "its lines": corpus.get("lines"),
    }
    told = "\n".join(f"| {key} | {value} |" for key, value in rows.items() if value is not None)
    unit = (
        "one natural gap, the distance between the means of the two labels at the layer"
        if directions.strength_unit == "gap"
        else "a step of length 1 in the residual stream"
    )
    pair = f"directions.between({source!r}, {target!r}).at({layer})"
    code = "\n".join(
        [
            "import steerlab as sl",
            "",
            f"directions = sl.Directions.from_hub({repo!r})",
            f"model = sl.load({(model or 'MODEL')!r})",
            f"direction = {pair}",
            'print(sl.generate(model, "...", edit=sl.add(direction, strength=1.0)))',
            'direction.export("vector.gguf")  # for llama.cpp and repeng',
        ]
    )
    return f"""{_front(directions, license)}
# Directions of {_base(model) or "a model"} by {directions.estimator}

Where each label lies in the residual stream of a language model, for steering with steerlab. They
are of one model: added in another they mean nothing, and steerlab refuses it.

| what | |
|---|---|
{told}

```python
{code}
```

Strength 1 is {unit}.

![The mean gap between two labels, by layer]({GAPS})

*The mean gap between two labels, by layer: how far strength 1 goes.*

![Cosines]({COSINES})

*Cosine of the labels' vectors less their mean, at layer {layer}.*

What this card does not say: how well they steer. That hangs on operator, layer and strength, and is
measured beside controls, by `steerlab run` or `sl.sweep`.
"""


def _front(directions: Directions, license: str | None) -> str:
    """What the Hub reads, between two lines of dashes; values as JSON, which YAML reads too."""
    codes = sorted({code for label in directions.langs if (code := _code(label))})
    model = directions.provenance.get("model", {}).get("name")
    lines = ["---", "library_name: steerlab"]
    lines += ["tags:", *[f"- {tag}" for tag in ("steering-vector", "activation-steering")]]
    if codes:
        lines += ["language:", *[f"- {json.dumps(code)}" for code in codes]]
    if isinstance(model, str) and _REPO.fullmatch(model) and not Path(model).exists():
        lines += [f"base_model: {json.dumps(model)}"]
    if license is not None:
        lines += [f"license: {json.dumps(license)}"]
    return "\n".join([*lines, "---"])


def _code(label: str) -> str:
    """The language of a label by its code; "" for a label of none."""
    try:
        return spoken(label, "a card").iso
    except SteerlabError:
        return ""


def _config(directions: Directions) -> dict[str, Any]:
    return {
        "library_name": "steerlab",
        "file": FILE,
        "estimator": directions.estimator,
        "langs": list(directions.langs),
        "layers": list(directions.layers),
        "site": directions.site,
        "width": directions.width,
        "strength_unit": directions.strength_unit,
        "model": _model(directions),
    }


def _model(directions: Directions) -> str | None:
    """The model's name; of a folder its last part, as the rest is of a machine."""
    return _base(directions.provenance.get("model", {}).get("name"))


def _base(name: Any) -> str | None:
    if not name:
        return None
    text = str(name)
    local = Path(text).is_absolute() or Path(text).exists() or text.startswith(("./", "../", "~"))
    return Path(text).name if local else text


def _example(directions: Directions) -> tuple[str, str]:
    """A source and a target that can be asked for."""
    source = directions.source or directions.langs[0]
    return source, next((lang for lang in directions.langs if lang != source), source)


def _gaps(directions: Directions) -> Mapping[str, float]:
    """The mean distance between two means, by layer."""
    means = directions.means.double().cpu()
    count = len(directions.langs)
    found = {}
    for place, layer in enumerate(directions.layers):
        apart = torch.cdist(means[:, place], means[:, place]).sum() / max(count * (count - 1), 1)
        found[str(layer)] = float(apart)
    return found


def _cosines(directions: Directions) -> str:
    middle = directions.layers[len(directions.layers) // 2]
    unit = torch.nn.functional.normalize(
        directions.at(middle).centred()[:, 0].double().cpu(), dim=-1
    )
    rows: Sequence[Sequence[float]] = (unit @ unit.T).tolist()
    return heat(rows, directions.langs, directions.langs)


def _light(svg: str) -> str:
    """A picture by itself, with the mark of steerlab: on a page without styles `currentColor` would
    be black on anything."""
    return svg.replace("currentColor", "#888") + TAILS[".svg"].decode()


def _need_repo(repo: Any, otherwise: str) -> None:
    if not _REPO.fullmatch(str(repo)):
        raise SteerlabError(
            f"{str(repo)[:80]!r} is no repository of the Hub; give owner/name{otherwise}"
        )
