"""GGUF files and data packages: what is in them is what is loaded, it is unpacked once, and what
cannot be read says so."""

import importlib.metadata
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gguf_files
import pytest
import torch
from conftest import PROMPTS
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from steerlab.core.cache import VARIABLE, cache_folder, made_once
from steerlab.core.corpus import corpus
from steerlab.core.errors import SteerlabError
from steerlab.engine.decoding import generate
from steerlab.engine.prompts import encode
from steerlab.models import data_packages
from steerlab.models.data_packages import PACKAGES, DataPackage
from steerlab.models.gguf import folder_of, need_own_words, sha256_of
from steerlab.models.loading import load


@pytest.fixture(autouse=True)
def cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, except where it reads a package that is large to unpack."""
    if "packaged" not in request.fixturenames:
        monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    return cache_folder()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A GGUF file of a tiny model."""
    gguf_files.write(tmp_path / "tiny.gguf", gguf_files.tiny_gemma3())
    return tmp_path / "tiny.gguf"


def test_every_weight_comes_out_of_the_file_as_it_went_in(tmp_path):
    file, packed = tmp_path / "tiny.gguf", ("mlp.up_proj.weight", "embed_tokens.weight")
    made = gguf_files.tiny_gemma3()
    kept = gguf_files.write(file, made, packed=packed)
    plain = dict(made.named_parameters())
    assert not any(torch.equal(kept[name], plain[name]) for name in kept if name.endswith(packed))
    loaded = dict(load(file, dtype="bfloat16").hf.named_parameters())
    assert loaded.keys() == kept.keys()
    for name, weight in loaded.items():
        assert torch.equal(weight, kept[name].to(torch.bfloat16)), name


def test_it_computes_what_the_model_that_was_written_computes(file):
    made = gguf_files.tiny_gemma3().eval()
    model = load(file)
    assert model.dtype == torch.float32
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(weight.to(torch.bfloat16))  # as it is unpacked
        ids = torch.tensor(encode(model.tokenizer, ["the weather"]))
        torch.testing.assert_close(model.hf(ids).logits, made(ids).logits, atol=1e-4, rtol=1e-4)


def test_the_tokenizer_is_that_of_the_file(file):
    model = load(file)
    tokenizer, names = model.tokenizer, gguf_files.tokens()
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (2, 1, 0)
    assert model.ends == {1}
    ids = encode(tokenizer, ["the the\nß"])[0]
    assert [names[token] for token in ids] == [gguf_files.BOS, "the", "Ġthe", "Ċ", "Ã", "Ł"]
    assert tokenizer.decode(ids[1:]) == "the the\nß"


def test_a_file_is_unpacked_once_and_found_by_its_hash(file, cache, tmp_path):
    digest = sha256_of([file])
    folder = folder_of("tiny", digest)
    assert not folder.exists()
    model = load(file)
    assert folder.parent == cache / "models"
    assert digest[:16] in folder.name
    assert model.metadata["gguf"] == digest
    stamps = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert load(file).fingerprint == model.fingerprint
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == stamps
    # The same name with another content is another model.
    gguf_files.write(file, gguf_files.tiny_gemma3(seed=1))
    other = load(str(file))
    assert other.metadata["gguf"] != digest
    assert other.fingerprint != model.fingerprint
    names = {path.name for path in folder.parent.iterdir() if path.is_dir()}
    assert names == {folder.name, folder_of("tiny", other.metadata["gguf"]).name}


def test_only_a_model_of_a_gguf_names_one(polyglot):
    assert "gguf" not in polyglot.metadata


def test_another_process_loads_the_same_file(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sent = pickle.dumps(load("tiny.gguf"))
    monkeypatch.chdir("/")
    assert pickle.loads(sent).metadata["gguf"] == sha256_of([file])


@pytest.mark.parametrize("share", [0.001, 0.2, 0.6, 0.999])
def test_a_file_that_was_cut_short_says_so(file, cache, share):
    content = file.read_bytes()
    file.write_bytes(content[: max(4, int(len(content) * share))])
    with pytest.raises(SteerlabError, match="damaged or cut short: fetch it again"):
        load(file)
    assert not [path for path in (cache / "models").iterdir() if path.is_dir()]


def test_what_is_no_gguf_says_so(tmp_path):
    (tmp_path / "page.gguf").write_text("<html>not found</html>")
    with pytest.raises(SteerlabError, match="is no GGUF file"):
        load(tmp_path / "page.gguf")
    with pytest.raises(SteerlabError, match="there is no file .*other.gguf"):
        load(tmp_path / "other.gguf")


def test_a_revision_of_a_file_is_refused(file):
    with pytest.raises(SteerlabError, match="leave revision out"):
        load(file, revision="main")


def test_an_architecture_that_cannot_be_read_is_named(tmp_path):
    file = tmp_path / "new.gguf"
    gguf_files.write(file, gguf_files.tiny_gemma3(), architecture="rwkv9")
    with pytest.raises(SteerlabError, match="cannot read from GGUF .*rwkv9.*Hugging Face folder"):
        load(file)


def test_a_file_without_some_weights_is_refused(tmp_path):
    made = gguf_files.tiny_gemma3()
    del made.model.layers[1].mlp.up_proj.weight
    gguf_files.write(tmp_path / "hole.gguf", made)
    with pytest.raises(SteerlabError, match=r"no weights for model.layers.1.mlp.up_proj.weight"):
        load(tmp_path / "hole.gguf")


# --------------------------------------------------------------------------------- made once, whole


@pytest.mark.parametrize("broken", [False, True])
def test_a_tokenizer_that_takes_its_own_words_to_pieces_is_refused(polyglot, broken):
    """transformers 5.17 makes a Unigram of equal scores of Gemma's vocabulary; the model then reads
    gibberish, and says so in nothing but its numbers."""
    tokenizer: Any = polyglot.tokenizer
    if broken:
        words = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        unigram = Tokenizer(models.Unigram([(word, -1000.0) for word in words], unk_id=0))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=unigram)
        with pytest.raises(SteerlabError, match=r"words of its own vocabulary whole.*5\.23"):
            need_own_words(tokenizer, Path("gemma.gguf"))
    else:
        need_own_words(tokenizer, Path("polyglot.gguf"))


def test_a_process_that_is_killed_leaves_nothing_half(tmp_path):
    folder, begun = tmp_path / "kept", tmp_path / "begun"
    code = (
        "import time, pathlib, sys; from steerlab.core.cache import made_once\n"
        "def make(fresh):\n"
        "    (fresh / 'half').write_text('half')\n"
        f"    pathlib.Path({str(begun)!r}).touch()\n"
        "    time.sleep(600)\n"
        f"made_once(pathlib.Path({str(folder)!r}), make)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    while not begun.exists():
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not folder.exists()
    assert [path.name for path in tmp_path.glob("*.new/*")] == ["half"]  # the negative control
    made_once(folder, lambda fresh: (fresh / "whole").touch())
    assert [path.name for path in folder.iterdir()] == ["whole"]
    assert not list(tmp_path.glob("*.new"))


def test_what_fails_is_not_kept(tmp_path):
    def make(fresh: Path) -> None:
        (fresh / "half").touch()
        raise SteerlabError("no")

    with pytest.raises(SteerlabError, match="no"):
        made_once(tmp_path / "kept", make)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_the_cache_is_where_the_user_says_or_the_platform_does(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if sys.platform == "linux":
        assert cache_folder() == tmp_path / "xdg" / "steerlab"


# ------------------------------------------------------------------------------------ data packages


def installed(folder: Path, name: str, pieces: list[bytes]) -> DataPackage:
    """Distributions of one file each in a folder of packages, whose code must not be run."""
    named = []
    for number, piece in enumerate(pieces):
        module = f"{name}_{number}"
        (folder / module).mkdir(parents=True)
        (folder / module / "__init__.py").write_text("raise RuntimeError('code was run')")
        (folder / module / "part").write_bytes(piece)
        info = folder / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        named.append((module, f"{module}/part"))
    return DataPackage(tuple(named), "", "pip install it", "terms of their own")


@pytest.fixture
def in_pieces(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataPackage:
    """The file as a data package of three pieces, whose hash is yet to be pinned."""
    content = file.read_bytes()
    cut = [content[:1000], content[1000:5000], content[5000:]]
    package = installed(tmp_path / "site", "tiny_gguf", cut)
    monkeypatch.syspath_prepend(tmp_path / "site")
    return package


def pinned(monkeypatch: pytest.MonkeyPatch, package: DataPackage, sha256: str) -> None:
    whole = DataPackage(package.pieces, sha256, package.install, package.terms)
    monkeypatch.setattr(data_packages, "PACKAGES", {"gemma-3-270m": whole})


def test_pieces_are_joined_and_no_code_is_run(in_pieces, file, cache, monkeypatch):
    pinned(monkeypatch, in_pieces, sha256_of([file]))
    model = load("gemma-3-270m")
    assert model.name == "gemma-3-270m"
    assert model.fingerprint == load(file).fingerprint
    assert model.metadata["gguf"] == sha256_of([file])
    assert not list(cache.rglob("*.gguf"))  # the joined file is not kept
    monkeypatch.undo()  # the packages are gone, what was unpacked is there
    monkeypatch.setenv(VARIABLE, str(cache))
    pinned(monkeypatch, in_pieces, sha256_of([file]))
    assert load("gemma-3-270m").fingerprint == model.fingerprint


def test_a_package_with_another_content_is_refused(in_pieces, cache, monkeypatch):
    pinned(monkeypatch, in_pieces, "0" * 64)
    with pytest.raises(SteerlabError, match=f"not {'0' * 64}; install them again: pip install it"):
        load("gemma-3-270m")
    assert not [path for path in (cache / "models").iterdir() if path.is_dir()]


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_that_is_missing_says_the_command_and_the_terms(name, monkeypatch):
    def missing(distribution: str) -> None:
        raise importlib.metadata.PackageNotFoundError(distribution)

    monkeypatch.setattr(data_packages, "distribution", missing)
    package = PACKAGES[name]
    with pytest.raises(SteerlabError) as raised:
        load(name)
    assert f"run: {package.install} " in str(raised.value)
    assert package.terms in str(raised.value)


def test_without_the_reader_of_the_format_the_command_is_said(file, monkeypatch):
    monkeypatch.setattr("transformers.utils.import_utils.is_gguf_available", lambda: False)
    with pytest.raises(SteerlabError, match=r"run: pip install 'steerlab\[models\]'"):
        load(file)


# -------------------------------------------------------------------- the real ones, where they are


def need(name: str) -> str:
    """Skip where a data package is neither installed nor unpacked."""
    package = PACKAGES[name]
    try:
        for distribution, _ in package.pieces:
            importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError as error:
        if not folder_of(name, package.sha256).is_dir():
            pytest.skip(f"{error}; to test with it: {package.install} ({package.terms})")
    return name


@pytest.fixture(params=PACKAGES)
def packaged(request: pytest.FixtureRequest) -> str:
    return need(request.param)


@pytest.mark.timeout(1200)  # the first of these unpacks the model, on cores that others use too
def test_a_packaged_model_reads_every_line_of_the_corpus_as_it_is(packaged):
    model = load(packaged, dtype="bfloat16")
    tokenizer = model.tokenizer
    texts = [f"{line}\n" for lang in corpus().langs for line in corpus()[lang]]
    ids = tokenizer(texts, add_special_tokens=False).input_ids
    assert tokenizer.batch_decode(ids) == texts
    unknown = tokenizer.unk_token_id
    assert not any(unknown in row for row in ids if unknown is not None)
    assert model.metadata["gguf"] == PACKAGES[packaged].sha256


@pytest.mark.timeout(1200)
def test_gemma_has_its_own_ends_and_goes_on_in_english():
    model = load(need("gemma-3-270m"), dtype="bfloat16")
    tokenizer = model.tokenizer
    ids = encode(tokenizer, ["a\n\nb\n"])[0]
    assert tokenizer.convert_ids_to_tokens(ids) == ["<bos>", "a", "\n\n", "b", "\n"]
    assert (model.n_layers, model.width, model.vocabulary) == (18, 640, 262144)
    assert model.ends == {tokenizer.eos_token_id} == {1}
    assert tokenizer.pad_token_id == 0
    said = "I need new shoes.\n" * 2 + "\n" + "We are going home.\n" * 2 + "\n"
    outputs = generate(model, [said + line for line in PROMPTS[:1]], max_new_tokens=12)
    assert outputs[0].split("\n")[0] == PROMPTS[0].strip()


@pytest.mark.timeout(1200)
def test_smollm_answers_in_its_chat_form():
    from steerlab.engine.prompts import prompt

    model = load(need("smollm2-135m-instruct"), dtype="bfloat16")
    asked = prompt(model.tokenizer, "chat", "What is the capital of France?")
    assert "Paris" in generate(model, [asked], max_new_tokens=12)[0]
