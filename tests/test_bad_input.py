"""Bad input and bad luck: a clear message each, nothing lost, and the same command goes on."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import QUICK, save_tiny, script
from processes import steerlab

from steerlab.cli import main
from steerlab.core.corpus import corpus
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import language
from steerlab.edits import add
from steerlab.engine.collect import collect
from steerlab.engine.decoding import generate
from steerlab.models.loading import load
from steerlab.studies.main.run import run


def refused(told: str) -> Any:
    return pytest.raises(SteerlabError, match=told)


# ---------------------------------------------------------------------------------------- languages


def test_unknown_language(lines):
    known = r"unknown language code 'qq'; known codes: en de nl sv"
    for act in (lambda: language("qq"), lambda: corpus(langs=["en", "qq"]), lambda: lines["qq"]):
        with refused(known):
            act()


# ------------------------------------------------------------------------------------------ corpora


def write(folder: Path, **texts: str) -> Path:
    folder.mkdir(exist_ok=True)
    for iso, text in texts.items():
        (folder / f"{iso}.txt").write_text(text, "utf-8")
    return folder


def test_corpora_that_are_none(tmp_path):
    with refused(
        r"are not aligned, their lines differ in number: de 2, en 3; mend them, or read them with "
        r"texts"
    ):
        corpus(write(tmp_path / "unequal", en="One.\nTwo.\nThree.\n", de="Eins.\nZwei.\n"))
    with refused(r"de\.txt line 2 is empty; an aligned corpus has a sentence on each line"):
        corpus(write(tmp_path / "holes", en="One.\nTwo.\nThree.\n", de="Eins.\n\nDrei.\n"))
    with refused(r"are empty; give at least one line"):
        corpus(write(tmp_path / "empty", en="", de=""))
    with refused(r"holds no <iso>\.txt files, such as en\.txt and de\.txt"):
        corpus(write(tmp_path / "nothing"))
    with refused(r"there is no folder .*gone"):
        corpus(tmp_path / "gone")


def test_a_corpus_too_small_to_score(tmp_path, tiny):
    few = {iso: "".join(f"{iso} {i}.\n" for i in range(30)) for iso in ("en", "de", "es")}
    settings = {"model": tiny("llama"), "corpus": write(tmp_path / "few", **few), "quick": True}
    with refused("give at least 32 sentences"):
        run(**settings, out=tmp_path / "run", progress=False)


# ------------------------------------------------------------------------------------------- models


@pytest.fixture
def broken(tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of a model's folder, to be broken."""
    return Path(shutil.copytree(tiny("llama"), tmp_path / "broken"))


def test_a_hub_id_without_network():
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    told = (
        r"could not load 'nobody/such-model': .* could not be fetched from the Hub or its cache "
        r".*connect once"
    )
    with refused(told):
        load("nobody/such-model")
    with refused(r"could not load '.*gone': it is no folder with a causal language model"):
        load(Path("gone") / "gone" / "gone")


def test_truncated_weights(broken):
    file = broken / "model.safetensors"
    whole = file.read_bytes()
    for size in (0, 9, 5_000, len(whole) - 1):
        file.write_bytes(whole[:size])
        with refused(
            r"the weights of '.*broken' are truncated, altered or of another shape .*; fetch the "
            r"model again"
        ):
            load(broken)
    file.unlink()
    with refused(r"could not load '.*broken'.*no file named model\.safetensors"):
        load(broken)


def test_weights_that_are_missing_or_of_another_width(broken):
    from safetensors.torch import load_file, save_file

    weights = load_file(broken / "model.safetensors")
    gone = weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with refused(
        r"'.*broken' has no weights for model\.layers\.1\.mlp\.up_proj\.weight; fetch the model "
        r"again"
    ):
        load(broken)
    weights["model.layers.1.mlp.up_proj.weight"] = gone[:, :5].contiguous()
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with refused(r"the weights of '.*broken' are truncated, altered or of another shape"):
        load(broken)


def test_devices_and_dtypes_that_are_not_there():
    with refused(r"there is no device 'abacus' here .*; use cpu, or cuda with a GPU"):
        load(device="abacus")
    for dtype in ("float31", "int8"):
        with refused(f"there is no dtype '{dtype}'; use float32, bfloat16, float16 or auto"):
            load(dtype=dtype)


def test_infinity_in_weights_by_the_command_line(broken, tmp_path, capsys):
    from safetensors.torch import load_file, save_file

    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][3] = float("inf")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    assert main([*QUICK, "--model", str(broken), "--out", str(tmp_path / "run")]) == 2
    assert (
        "hold NaN or infinity in model.norm.weight; fetch the model again"
        in capsys.readouterr().err
    )


def test_a_prompt_longer_than_the_context(polyglot):
    with refused(
        r"a prompt of \d+ tokens and 32 new ones make \d+; polyglot was made for 512: shorten the "
        r"prompt"
    ):
        generate(polyglot, ["word " * 600])


def test_logits_of_nothing(tiny):
    model = load(tiny("llama"))
    with torch.no_grad():
        model.hf.get_parameter("model.norm.weight")[0] = float("nan")
    with refused("logits hold NaN or infinity; its weights are broken, or the edit is too strong"):
        generate(model, ["No.\n"])


# --------------------------------------------------------------------------------------- directions


def test_layers_out_of_range(polyglot, directions):
    with refused(r"no layer 8 here; there are layers 0, 1, 2"):
        directions.between("en", "es").at(8)
    with refused("polyglot has layers 0 to 7; layer 8 was asked for"):
        collect(polyglot, corpus(), layers=[8])


def test_directions_of_another_model(directions, tiny, tmp_path):
    edit = add(directions.between("en", "es").at(1))
    with refused(r"add: shift has width 256, .* has 32"), edit.on(load(tiny("qwen2"))):
        pass
    twin = load(save_tiny(tmp_path / "twin", "llama", width=256, layers=8))
    told = (
        r"this edit was made with polyglot \([0-9a-f]{16}\), not with .*twin \([0-9a-f]{16}\); "
        r"directions of one model"
    )
    with refused(told), edit.on(twin):
        pass
    assert generate(twin, ["No.\n"], max_new_tokens=1)  # nothing is left attached


def test_directions_deeper_than_the_model(directions, tmp_path):
    shallow = load(save_tiny(tmp_path / "shallow", "llama", width=256, layers=3))
    with (
        refused(r"shallow has layers 0 to 2; layer 5 was asked for"),
        add(directions.between("en", "es").at(5)).on(shallow),
    ):
        pass


def test_files_of_directions_that_are_broken(directions, tmp_path):
    file = directions.save(tmp_path / "d.safetensors")
    whole = file.read_bytes()
    for size in (0, 7, 300, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        with refused(r"d\.safetensors is truncated or no safetensors file"):
            Directions.load(file)
    altered = bytearray(whole)
    altered[-5] ^= 1
    file.write_bytes(altered)
    with refused(
        r"d\.safetensors was altered after it was written: its checksum does not match; make it "
        r"again"
    ):
        Directions.load(file)
    file.write_bytes(whole)
    assert Directions.load(file).langs == directions.langs


# ----------------------------------------------------------------------------- full disks and stops


def cells(folder: Path) -> set[bytes]:
    """The finished batches of a run: the whole lines of its results."""
    lines = [
        line
        for file in (folder / "cells").glob("*.jsonl")
        for line in file.read_bytes().splitlines(True)
    ]
    return {line for line in lines if line.endswith(b"\n")}


def same_rows(folder: Path, other: Path) -> None:
    tables = [pd.read_parquet(path / "rows.parquet") for path in (folder, other)]
    pd.testing.assert_frame_equal(tables[0], tables[1])


def test_a_full_disk_loses_nothing(small, uninterrupted, tmp_path):
    """The directions, a batch of cells, the table: whichever comes first that does not fit."""
    folder = tmp_path / "run"
    batch, table = max(map(len, cells(uninterrupted))), (uninterrupted / "rows.csv").stat().st_size
    assert 20_000 < batch < table - 1000
    told = {
        4_000: "could not write .*diffmean.safetensors .*File too large.*make room",
        20_000: r"could not write .*\.jsonl .*; what was finished is kept: make room and run again",
        table - 1000: "make room and run again",
    }
    kept: set[bytes] = set()
    for size, message in told.items():
        for _ in range(1 if size < batch else 4):  # a batch a time, and then the table
            done = steerlab(*small, "--out", str(folder), full=size)
            assert done.returncode == 2, done.stderr
            assert re.search(message, done.stderr, re.DOTALL), done.stderr
            assert "Traceback" not in done.stderr
            assert not list(folder.rglob("*.new"))
            assert kept <= cells(folder)
            kept = cells(folder)
            if "could not write the run folder" in done.stderr:
                break
    assert "could not write the run folder" in done.stderr
    assert len(kept) == len(cells(uninterrupted))
    done = steerlab(*small, "--out", str(folder))
    assert done.returncode == 0, done.stderr
    assert cells(folder) == kept
    same_rows(folder, uninterrupted)


def start(words: list[str]) -> subprocess.Popen[str]:
    """The command as from a terminal: what a shell starts in the background would ignore Ctrl-C,
    and so would this."""

    def heed() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    pipe = subprocess.PIPE
    return subprocess.Popen(
        [script(), *words], stdout=pipe, stderr=pipe, text=True, preexec_fn=heed
    )


def wait_for(process: subprocess.Popen[str], ready: Any) -> None:
    end = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.01)


def test_ctrl_c_is_told(small, tmp_path):
    folder = tmp_path / "run"
    process = start([*small, "--out", str(folder)])
    wait_for(process, lambda: (folder / "directions" / "diffmean.safetensors").exists())
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert (
        "steerlab: stopped; what was finished is kept, the same command goes on from there" in err
    )
    assert "Traceback" not in err
    assert out == ""


def test_kill_in_the_middle_and_go_on(small, uninterrupted, tmp_path):
    folder = tmp_path / "run"
    process = start([*small, "--out", str(folder)])
    wait_for(process, lambda: cells(folder))
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    kept = cells(folder)
    assert not (folder / "summary.json").exists()
    done = steerlab(*small, "--out", str(folder))
    assert done.returncode == 0, done.stderr
    assert kept <= cells(folder)
    assert len(cells(folder)) == len(cells(uninterrupted))
    same_rows(folder, uninterrupted)


def test_an_existing_folder_of_another_run(finished):
    folder = finished[0]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    done = steerlab(*QUICK, "--seed", "7", "--out", str(folder))
    assert done.returncode == 2
    assert (
        "holds a run with other settings (seed 0 there, 7 here); give another --out or delete it"
        in done.stderr
    )
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
