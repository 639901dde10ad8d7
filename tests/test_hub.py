"""Directions on the Hub: what a push leaves in a repository of a fake one, and what comes back."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
import yaml
from fake_hub import hub

import steerlab as sl
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.exchange.hub import card, write_repository
from steerlab.models.model import Model

FILES = ["README.md", "config.json", "cosines.svg", "directions.safetensors", "gaps.svg"]


@pytest.fixture
def reachable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Loopback may be reached, by no token of this machine, and into a cache of its own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        "huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path / "c"), raising=False
    )
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")


def front(text: str) -> dict[str, Any]:
    """What the Hub reads of a card."""
    _, between, _ = text.split("---\n", 2)
    read = yaml.safe_load(between)
    assert isinstance(read, dict)
    return read


@pytest.mark.usefixtures("reachable")
def test_what_is_pushed_comes_back_and_steers(directions: Directions, polyglot: Model) -> None:
    with hub() as here:
        options: dict[str, Any] = {"endpoint": here.url, "token": "hf_made_up"}
        address = directions.push_to_hub("me/ways", license="apache-2.0", private=True, **options)
        assert address == f"{here.url}/me/ways"
        assert sorted(here.repos["me/ways"]) == FILES
        assert here.private == {"me/ways": True}
        assert here.tokens == {"Bearer hf_made_up"}
        told = front(here.repos["me/ways"]["README.md"].decode())
        again = Directions.from_hub("me/ways", **options)
        fetched = [each for each in here.asked if "/resolve/" in each]
        assert {each.rpartition("/")[2] for each in fetched} == {"directions.safetensors"}
    assert told["license"] == "apache-2.0"
    assert told["library_name"] == "steerlab"
    assert told["language"] == sorted(directions.langs)
    assert "base_model" not in told  # polyglot is no repository of the Hub
    assert torch.equal(again.vectors, directions.vectors)
    assert again == directions
    edit = sl.add(again.between("en", "es").at(5))
    assert sl.generate(polyglot, "The weather is nice today.\n", edit=edit)


@pytest.mark.usefixtures("reachable")
def test_a_hub_that_refuses_is_told(directions: Directions) -> None:
    with hub(refuses=403) as here:
        with pytest.raises(SteerlabError, match=r"could not write me/ways on the Hub .*log in"):
            directions.push_to_hub("me/ways", endpoint=here.url, token="hf_made_up")
        with pytest.raises(SteerlabError, match="could not fetch directions.safetensors of me/no"):
            Directions.from_hub("me/none", endpoint=here.url)
    with pytest.raises(SteerlabError, match="'ways' is no repository of the Hub; give owner/name"):
        directions.push_to_hub("ways")
    for folder in ("./ways", "/tmp/ways", "../ways"):
        with pytest.raises(SteerlabError, match="a folder is written by write_repository"):
            directions.push_to_hub(folder)
    with pytest.raises(SteerlabError, match="is no repository of the Hub"):
        Directions.from_hub("a/b/c")


def test_without_the_network_it_is_told(
    directions: Directions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SteerlabError, match="could not write me/ways on the Hub"):
        directions.push_to_hub("me/ways", token="hf_made_up")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    closed = "http://127.0.0.1:9"  # where nobody listens
    with pytest.raises(SteerlabError, match="could not write me/ways on the Hub"):
        directions.push_to_hub("me/ways", endpoint=closed, token="hf_made_up")
    with pytest.raises(SteerlabError, match="could not fetch .* connect once"):
        Directions.from_hub("me/ways", endpoint=closed, token="hf_made_up")


def test_a_folder_is_a_repository_too(directions: Directions, tmp_path: Path) -> None:
    files = write_repository(directions, tmp_path / "ways")
    assert sorted(file.name for file in files) == FILES
    for where in (tmp_path / "ways", str(tmp_path / "ways")):
        assert Directions.from_hub(where) == directions
    with pytest.raises(SteerlabError, match="directions.safetensors"):
        Directions.from_hub(tmp_path)
    config = json.loads((tmp_path / "ways" / "config.json").read_text("utf-8"))
    assert config["langs"] == list(directions.langs)
    assert config["layers"] == list(directions.layers)


def test_what_lies_in_a_folder_stays(
    directions: Directions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model's config.json, and a card that somebody went on writing."""
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', "utf-8")
    with pytest.raises(SteerlabError, match="config.json is there, and steerlab did not write it"):
        write_repository(directions, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]
    write_repository(directions, tmp_path, force=True)
    monkeypatch.setattr("steerlab.core.targets._written", {})  # as another process sees it
    write_repository(directions, tmp_path)
    card = tmp_path / "README.md"
    card.write_text(card.read_text("utf-8") + "\nHow well they steer: see the paper.\n", "utf-8")
    with pytest.raises(SteerlabError, match="README.md is there, and steerlab did not write it"):
        write_repository(directions, tmp_path)


def test_the_pictures_show_the_numbers(directions: Directions, tmp_path: Path) -> None:
    write_repository(directions, tmp_path)
    for name, marks in (
        ("gaps.svg", len(directions.layers)),
        ("cosines.svg", len(directions.langs) ** 2),
    ):
        root = ElementTree.fromstring((tmp_path / name).read_text("utf-8"))
        rects = [each for each in root.iter() if each.tag.endswith("rect")]
        assert len(rects) == marks
    first = directions.means[:, 0].double()
    pairs = [float((a - b).norm()) for i, a in enumerate(first) for b in first[i + 1 :]]
    gaps = ElementTree.fromstring((tmp_path / "gaps.svg").read_text("utf-8"))
    titles = [str(each.text) for each in gaps.iter() if each.tag.endswith("title")]
    layer, shown = titles[0].split(": ")
    assert layer == str(directions.layers[0])
    assert float(shown) == pytest.approx(sum(pairs) / len(pairs), rel=0.01)


def test_a_card_names_its_model_and_no_folder_of_this_machine(
    directions: Directions, tmp_path: Path
) -> None:
    folder = tmp_path / "secret" / "my-model"
    folder.mkdir(parents=True)
    for name, base, shown in (
        ("google/gemma-3-270m", "google/gemma-3-270m", "google/gemma-3-270m"),
        (str(folder), None, "my-model"),
    ):
        told = {**directions.provenance, "model": {"name": name, "fingerprint": "0" * 16}}
        text = card(replace(directions, provenance=told), repo="me/ways")
        assert front(text).get("base_model") == base
        assert f"| model | {shown} |" in text
        assert "secret" not in text
        assert "sl.Directions.from_hub('me/ways')" in text


def test_the_code_of_a_card_runs(directions: Directions, polyglot: Model, tmp_path: Path) -> None:
    write_repository(directions, tmp_path / "ways")
    text = card(directions, repo=str(tmp_path / "ways"))
    code = text.split("```python\n")[1].split("```")[0]
    code = code.replace('"vector.gguf"', repr(str(tmp_path / "vector.gguf")))
    exec(code, {})
    assert (tmp_path / "vector.gguf").is_file()


def test_labels_that_are_no_languages_are_no_languages_of_the_card(directions: Directions) -> None:
    labels = ("formal@de", "informal@de", "python", "en", "fr")[: len(directions.langs)]
    told = front(card(replace(directions, langs=labels)))
    assert told["language"] == ["de", "en", "fr"]
