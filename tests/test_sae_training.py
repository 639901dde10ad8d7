"""Autoencoders that are trained here: the stream of activations, what is subtracted from it, and
what is saved and measured."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "experiments"))

from saes import folder, lines, measuring, training

from steerlab.core.corpus import corpus
from steerlab.core.errors import SteerlabError
from steerlab.core.fingerprints import same_weights
from steerlab.engine.prompts import encode
from steerlab.models.data_packages import PACKAGES
from steerlab.models.gguf import folder_of
from steerlab.models.loading import load
from steerlab.models.model import Model
from steerlab.sae import SAE, saes

LANGS = ("en", "de", "ru")
LAYERS = (0, 2)


@pytest.fixture(scope="module")
def model(tiny: Callable[[str], Path]) -> Model:
    return load(tiny("gemma3"))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of 64 tokens, of which 256 are shuffled together."""
    monkeypatch.setattr(training, "BATCH", 64)
    monkeypatch.setattr(training, "MIXED", 256)
    monkeypatch.setattr(training, "ROWS", 4)


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of text, of which a fifth is held out: sentences of the package, numbered so that
    they are other lines."""
    monkeypatch.setattr(lines, "HELD_OUT_SHARE", 0.2)
    for lang in LANGS:
        text = [f"{line} ({n})" for n in range(2) for line in corpus()[lang][:80]]
        (tmp_path / "text").mkdir(exist_ok=True)
        (tmp_path / "text" / f"{lang}.txt").write_text("\n".join(text), "utf-8")
    return tmp_path / "text"


def stream_of(model: Model, *, centred: bool = True, seed: int = 0) -> training.Stream:
    said = {lang: corpus()[lang][:60] for lang in LANGS}
    documents = folder.Documents(model, said, longest=48, seed=seed)
    return training.Stream(model, documents, LAYERS, centred=centred)


# -------------------------------------------------------------------------------------------- text


def test_a_folder_gives_lines_that_are_not_measured_on_elsewhere(text: Path) -> None:
    spared = corpus().select(["de"]).take(5)
    with (text / "de.txt").open("a", encoding="utf-8") as file:
        file.write("\n" + "\n".join(line.upper() for line in spared["de"]))
        file.write("\n" + "a" * (folder.LONGEST + 1))
    found = folder.read_folder(text, LANGS, spared)
    for lang in LANGS:
        assert found.training[lang]
        assert found.held_out[lang]
        assert all(map(lines.is_held_out, found.held_out[lang]))
        assert not any(map(lines.is_held_out, found.training[lang]))
    kept = {*found.training["de"], *found.held_out["de"]}
    assert not kept & {line.upper() for line in spared["de"]}
    assert max(map(len, kept)) <= folder.LONGEST
    assert folder.read_folder(text, LANGS, spared).digest == found.digest
    (text / "ru.txt").unlink()
    with pytest.raises(SteerlabError, match=r"no text of ru in .*such as de\.txt"):
        folder.read_folder(text, LANGS, spared)


def test_documents_are_of_every_language_and_some_say_each_line_twice(model: Model) -> None:
    said = {"en": ["One."], "de": ["Zwei."]}
    documents = folder.Documents(model, said, longest=200)
    drawn = [model.tokenizer.decode(documents(), skip_special_tokens=True) for _ in range(200)]
    plain = {"One.\n" * n for n in range(1, 9)} | {"Zwei.\n" * n for n in range(1, 9)}
    twice = {"One.\nOne.\n\n" * n for n in range(1, 9)} | {
        "Zwei.\nZwei.\n\n" * n for n in range(1, 9)
    }
    assert set(drawn) <= plain | twice
    assert 0.1 < np.mean([text in twice for text in drawn]) < 0.3
    assert 0.4 < np.mean([text.startswith("One") for text in drawn]) < 0.6
    again = folder.Documents(model, said, longest=7)
    assert {tuple(again()) for _ in range(9)} >= {
        tuple(encode(model.tokenizer, ["One.\n" * 8])[0][:7])
    }
    assert sum(again.read.values()) <= 9 * 7


# ------------------------------------------------------------------------------------------ stream


@pytest.mark.usefixtures("small")
def test_a_stream_gives_the_activations_of_tokens_and_no_bos(model: Model) -> None:
    """Each vector is one that the model has at some token of the text behind BOS."""
    line = corpus()["de"][0]
    stream = training.Stream(model, lambda: encode(model.tokenizer, [line])[0], LAYERS)
    batch = next(stream)
    ids = torch.tensor(encode(model.tokenizer, [line]))
    seen: dict[int, torch.Tensor] = {}
    hooks: list[Any] = [
        ("resid_post", layer, lambda h, where, layer=layer: seen.__setitem__(layer, h[0, 1:]))
        for layer in LAYERS
    ]
    with torch.inference_mode(), model.attached(hooks):
        model.body(ids, torch.ones_like(ids, dtype=torch.bool))
    assert list(batch) == [f"blocks.{layer}.hook_resid_post" for layer in LAYERS]
    for layer, h in zip(LAYERS, batch.values(), strict=True):
        assert h.shape == (64, model.width)
        assert float(torch.cdist(h, seen[layer].half().float()).amin(1).max()) < 1e-2


@pytest.mark.usefixtures("small")
def test_a_centred_stream_is_the_other_less_a_constant(model: Model) -> None:
    plain, centred = stream_of(model, centred=False), stream_of(model)
    assert not plain.centres
    before, after = next(plain), next(centred)
    for name, h in before.items():
        torch.testing.assert_close(after[name] + centred.centres[name], h)
        assert float(after[name].mean(0).norm()) < float(h.mean(0).norm())
    constants = {name: centre.clone() for name, centre in centred.centres.items()}
    for _ in range(9):  # into the next shuffle
        next(centred)
    assert all(torch.equal(constants[name], centre) for name, centre in centred.centres.items())


# ---------------------------------------------------------------------------------------- training


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["topk", "batchtopk", "jumprelu"])
def test_what_is_trained_on_centred_activations_reads_plain_ones(
    model: Model, tmp_path: Path, kind: str
) -> None:
    stream = stream_of(model)
    recipe = training.Recipe(64 * 30, times=2, active=4)
    made, cost = training.train(model, stream, {f"layer_{n}": (kind, n) for n in LAYERS}, recipe)
    assert cost.tokens == recipe.tokens
    assert 0 < cost.reading < cost.cpu_seconds
    h = next(stream_of(model, centred=False, seed=3))
    for name, sae in made.items():
        hook = sae.cfg.metadata.hook_name
        centre = stream.centres[hook]
        with torch.no_grad():
            expected = sae.decode(sae.encode(h[hook] - centre)) + centre
        training.save(sae, tmp_path / name, centre=centre, training_tokens=recipe.tokens)
        ours = SAE.load(tmp_path / name)
        ours.need(model)
        assert ours.about["metadata"]["training_tokens"] == recipe.tokens
        rebuilt = ours.decode(ours.encode(h[hook]))
        if kind == "topk":  # the others' thresholds are those of training in the mean only
            torch.testing.assert_close(rebuilt, expected, rtol=0.02, atol=0.02)
        spread = (h[hook] - h[hook].mean(0)).square().sum()
        assert (rebuilt - h[hook]).square().sum() < 1.5 * spread
    assert list(saes(tmp_path)) == list(LAYERS)


@pytest.mark.usefixtures("small")
def test_training_goes_on_from_its_last_checkpoint(model: Model, tmp_path: Path) -> None:
    recipe = training.Recipe(64 * 16, times=2, active=4)
    named = {"layer_2": ("batchtopk", 2)}
    stream = stream_of(model)
    _, cost = training.train(model, stream, named, recipe, checkpoints=tmp_path)
    [last] = tmp_path.iterdir()  # the older ones are gone
    assert 0 < int(last.name) <= recipe.tokens
    spent = json.loads((last / "cost.json").read_text("utf-8"))
    assert spent["tokens"] == int(last.name)
    other = stream_of(model, seed=1)
    read: list[int] = []
    plain = other._mixed
    other._mixed = lambda: read.append(1) or plain()  # type: ignore[method-assign, func-returns-value]
    _, more = training.train(model, other, named, recipe, checkpoints=tmp_path, resume=True)
    assert more.tokens == recipe.tokens == cost.tokens
    assert more.cpu_seconds > spent["cpu_seconds"]
    name = "blocks.2.hook_resid_post"
    assert torch.equal(other.centres[name], stream.centres[name])
    assert len(read) == 1  # what was left, and no new estimate of the scale
    # With a recipe that asks for less, what is there is taken as it is.
    [newest] = tmp_path.iterdir()
    less = training.Recipe(64 * 12, times=2, active=4)
    third = stream_of(model, seed=2)
    third._mixed = lambda: pytest.fail("nothing is left to read")  # type: ignore[method-assign]
    made, taken = training.train(model, third, named, less, checkpoints=tmp_path, resume=True)
    assert taken.tokens == int(newest.name)
    assert made["layer_2"].cfg.normalize_activations == "none"  # the scale is in the weights


def test_a_centre_needs_an_autoencoder_that_subtracts_b_dec(tmp_path: Path) -> None:
    from sae_weights import WIDTH, theirs

    with pytest.raises(ValueError, match="subtracts b_dec"):
        training.save(
            theirs("jumprelu", apply_b_dec_to_input=False), tmp_path, centre=torch.zeros(WIDTH)
        )


def test_the_folder_of_the_cache_is_the_models_own(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEERLAB_CACHE", str(tmp_path))
    found = training.kept(model)
    assert found.parent == tmp_path / "saes"
    assert found.name.endswith(model.fingerprint)


# ------------------------------------------------------------------------------------- measurement


def test_measures_of_an_autoencoder_are_those_of_their_formulas(polyglot: Model) -> None:
    """On polyglot's own: with `SAE` itself, and `cross_entropy` as it is."""
    from steerlab.edits import Edit
    from steerlab.engine.cross_entropy import cross_entropy

    said = {lang: corpus().split("test")[lang][:4] for lang in LANGS}
    sae = saes(layers=[4])[4]
    text = measuring.text_of(polyglot, said, 4)
    assert text.langs == list(LANGS)
    assert (text.tokens == [len(row) - 1 for row in text.ids]).all()
    found = measuring.measure(polyglot, text, {"it": sae}, spliced=2)["it"]
    places = [("resid_post", 4)]
    states, owners = measuring.states(polyglot, text, places)
    h = states["resid_post", 4]
    assert len(h) == len(owners) == text.tokens.sum()
    error = (sae.decode(sae.encode(h)) - h).square().sum()
    explained = 1 - error / (h - h.mean(0)).square().sum()
    assert found["explained_variance"][0] == pytest.approx(float(explained), abs=1e-4)
    assert found["l0"][0] == pytest.approx(float((sae.encode(h) > 0).sum(1).float().mean()))
    assert found["dead"] == int(((sae.encode(h) > 0).sum(0) == 0).sum())
    run = text.first(2)
    nats = cross_entropy(polyglot, run.texts, [Edit(())])[0].double().numpy() * run.tokens
    assert found["nats_clean"] == pytest.approx(nats.sum() / run.tokens.sum(), rel=1e-5)
    assert found["nats_zeroed"] > found["nats_clean"] + found["nats_lost"][0] > found["nats_clean"]
    assert set(found["languages"]) == set(LANGS)
    table = measuring.table({"4": found}, "layer")
    assert f"| 4 | {found['explained_variance'][0]:.3f} [" in table
    assert "German" in measuring.languages({"4": found})


# ------------------------------------------------------------------------------------ the real one


@pytest.fixture(scope="module")
def gemma() -> Model:
    import importlib.metadata

    package = PACKAGES["gemma-3-270m"]
    try:
        for distribution, _ in package.pieces:
            importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError as error:
        if not folder_of("gemma-3-270m", package.sha256).is_dir():
            pytest.skip(f"{error}; to test with it: {package.install} ({package.terms})")
    return load("gemma-3-270m", dtype="auto")


@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("small")
def test_most_of_gemmas_stream_is_one_vector_which_is_subtracted(
    gemma: Model, tmp_path: Path
) -> None:
    said = {lang: corpus()[lang][:60] for lang in LANGS}
    stream = training.Stream(gemma, folder.Documents(gemma, said), (4, 12), centred=True)
    batch = next(stream)
    for name, h in batch.items():
        centre = stream.centres[name]
        assert centre.norm() > 0.8 * (h + centre).norm(dim=-1).mean()
    recipe = training.Recipe(64 * 4, times=2, active=32, half=True)
    made, _ = training.train(gemma, stream, {"layer_12": ("batchtopk", 12)}, recipe)
    name = "blocks.12.hook_resid_post"
    training.save(made["layer_12"], tmp_path / "layer_12", centre=stream.centres[name])
    SAE.load(tmp_path / "layer_12").need(gemma)


@pytest.mark.timeout(1200)
def test_gemmas_autoencoders_in_the_cache_are_those_of_their_card(gemma: Model) -> None:
    place = training.kept(gemma)
    if not (place / "saes.json").is_file():
        pytest.skip(f"no autoencoders in {place}; experiments/gemma/train_saes.py makes them")
    card = json.loads((place / "saes.json").read_text("utf-8"))
    assert same_weights(card["fingerprint"], gemma.fingerprint)
    found = saes(place)
    assert [str(layer) for layer in found] == list(card["layers"])
    for layer, sae in found.items():
        sae.need(gemma)
        assert sae.digest == card["layers"][str(layer)]["digest"]
        assert card["layers"][str(layer)]["loss_recovered"][0] > 0.5
