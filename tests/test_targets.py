"""What a write may replace: nothing, or a regular file that steerlab wrote.

Every target here lies in a folder of pytest's own; the nodes of devices are made there."""

import os
import socket
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from safetensors.torch import save_file
from test_files import autoencoder, directions

from steerlab import figures
from steerlab.cli import main
from steerlab.core.errors import SteerlabError
from steerlab.core.files import (
    need_folder,
    need_target,
    read_bytes,
    read_json,
    write_json,
    write_table,
    write_text,
)
from steerlab.core.targets import _written, is_ours, mark
from steerlab.sae import SAE
from steerlab.studies.feature_card.page import write as write_card

TABLE = pd.DataFrame({"a": [1]})
Write = Callable[..., object]

# Everything that writes a file where its caller says: the file's name, and the writer.
WRITERS: dict[str, tuple[str, Write]] = {
    "Directions.save": ("a.safetensors", lambda file, **o: directions(3).save(file, **o)),
    "SAE.save, weights": (
        "sae_weights.safetensors",
        lambda file, **o: autoencoder(3).save(file.parent, **o),
    ),
    "SAE.save, config": ("cfg.json", lambda file, **o: autoencoder(3).save(file.parent, **o)),
    "figures.write, page": (
        "a.html",
        lambda file, **o: figures.write(go.Figure(), file.with_suffix(""), data=TABLE, **o),
    ),
    "figures.write, table": (
        "a.csv",
        lambda file, **o: figures.write(go.Figure(), file.with_suffix(""), data=TABLE, **o),
    ),
    "card": ("a.html", lambda file, **o: write_card(file, "<head></head>", **o)),
    "write_text": ("a.txt", lambda file, **o: write_text(file, "text", **o)),
    "write_json": ("a.json", lambda file, **o: write_json(file, {"a": 1}, **o)),
    "write_table, csv": ("a.csv", lambda file, **o: write_table(file, TABLE, **o)),
    "write_table, parquet": ("a.parquet", lambda file, **o: write_table(file, TABLE, **o)),
}


def fifo(file: Path) -> None:
    os.mkfifo(file)


def bound(file: Path) -> None:
    where = os.getcwd()
    os.chdir(file.parent)  # the path of a socket may have no more than 107 letters
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(file.name)
    finally:
        os.chdir(where)


def character(file: Path) -> None:
    node(file, stat.S_IFCHR)


def block(file: Path) -> None:
    node(file, stat.S_IFBLK)


def node(file: Path, kind: int) -> None:
    """A node without a device behind it (major number 0), made in the test's own folder."""
    try:
        os.mknod(file, kind | 0o600, os.makedev(0, 99))
    except PermissionError:
        pytest.skip("only root makes nodes")


def linked(make: Callable[[Path], None]) -> Callable[[Path], None]:
    def link(file: Path) -> None:
        far = file.parent / "far" / file.name
        far.parent.mkdir()
        make(far)
        file.symlink_to(far)

    return link


SPECIAL: dict[str, Callable[[Path], None]] = {
    "fifo": fifo,
    "socket": bound,
    "character": character,
    "block": block,
}
SPECIAL |= {f"link to a {name}": linked(make) for name, make in list(SPECIAL.items())}


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("name", WRITERS)
def test_what_is_no_regular_file_is_never_replaced(name: str, kind: str, tmp_path: Path) -> None:
    file_name, write = WRITERS[name]
    file = tmp_path / file_name
    SPECIAL[kind](file)
    before = {path: os.lstat(path) for path in tmp_path.rglob("*")}
    for options in ({}, {"force": True}):
        with pytest.raises(SteerlabError, match=r"is a (pipe|socket|device), which is never repl"):
            write(file, **options)
    after = {path: os.lstat(path) for path in tmp_path.rglob("*")}
    script = {path for path in after if path.name == "plotly.min.js"}  # figures' own, beside it
    assert {path: after[path].st_ino for path in after.keys() - script} == {
        path: status.st_ino for path, status in before.items()
    }
    assert all(after[path].st_mode == before[path].st_mode for path in before)


@pytest.mark.parametrize("through", ["itself", "a link", "a link to a link"])
@pytest.mark.parametrize("name", WRITERS)
def test_a_foreign_file_is_replaced_only_when_forced(
    name: str, through: str, tmp_path: Path
) -> None:
    file_name, write = WRITERS[name]
    (tmp_path / "out").mkdir()
    file = real = tmp_path / "out" / file_name
    if through != "itself":
        real = tmp_path / "far" / file_name
        real.parent.mkdir()
        file.symlink_to(real)
    if through == "a link to a link":
        file.unlink()
        (tmp_path / "middle").symlink_to(real)
        file.symlink_to(Path("..") / "middle")
    real.write_bytes(b"somebody's")
    with pytest.raises(SteerlabError, match="steerlab did not write it; give another name, or rep"):
        write(file)
    assert real.read_bytes() == b"somebody's"
    write(file, force=True)
    assert real.read_bytes() != b"somebody's"
    assert file.is_symlink() == (through != "itself"), "a link stays one"
    assert stat.S_ISREG(os.lstat(real).st_mode)
    write(file)  # its own
    real.write_bytes(b"somebody's")
    with pytest.raises(SteerlabError, match="steerlab did not write it"):
        write(file)


ALONE = "Directions.save", "SAE.save, weights", "SAE.save, config", "figures.write, page"


@pytest.mark.parametrize("name", [*ALONE, "figures.write, table"])
def test_what_another_process_wrote_is_known_by_its_mark(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_name, write = WRITERS[name]
    write(tmp_path / file_name)
    monkeypatch.setattr("steerlab.core.targets._written", {})
    write(tmp_path / file_name)


@pytest.mark.parametrize("ending", [".svg", ".pdf", ".png"])
def test_drawings_bear_a_mark(ending: str, tmp_path: Path) -> None:
    image = tmp_path / f"a{ending}"
    end = b"\0\0\0\0IEND\xae\x42\x60\x82"
    image.write_bytes(b"a drawing" + (end if ending == ".png" else b"\n"))
    assert not is_ours(image)
    mark(image, ending)
    assert is_ours(image)
    assert image.read_bytes().startswith(b"a drawing")
    assert image.read_bytes().endswith(end) == (ending == ".png")


def test_what_lies_in_the_folder_of_a_run_is_the_runs(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    files = [tmp_path / "rows.csv", tmp_path / "figures" / "dose.json"]
    for file in files:
        file.write_text("{}")
        assert not is_ours(file)
    (tmp_path / "manifest.json").write_text('{"theirs": 1}')
    assert not any(map(is_ours, files)), "another tool's manifest says nothing"
    (tmp_path / "manifest.json").write_text('{"format": 1, "settings": {}}')
    assert all(map(is_ours, files))


def test_a_file_of_the_same_number_is_not_taken_for_an_own_one(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "text")
    file.unlink()
    file.write_text("somebody's own")
    assert file in _written
    assert not is_ours(file)


def test_what_the_work_reads_is_never_written_over(tmp_path: Path) -> None:
    mine = directions(3).save(tmp_path / "mine.safetensors")
    (tmp_path / "link.safetensors").symlink_to(mine)
    os.link(mine, tmp_path / "hard.safetensors")
    model = tmp_path / "model"
    model.mkdir()
    save_file({"a": torch.ones(1)}, model / "model.safetensors")
    for name, read in {
        "mine.safetensors": mine,
        "link.safetensors": mine,
        "hard.safetensors": mine,
        "model/model.safetensors": model,
    }.items():
        for force in (False, True):
            with pytest.raises(SteerlabError, match=r"is read by this very command \("):
                need_target(tmp_path / name, ".safetensors", inputs=[read], force=force)
    # What steerlab wrote into the folder of a model is not the model.
    own = directions(3).save(model / "own.safetensors")
    assert need_target(own, ".safetensors", inputs=[model, None, "polyglot"]) == own


def test_a_link_of_another_ending_leads_to_another_kind_of_file(tmp_path: Path) -> None:
    mine = directions(3).save(tmp_path / "mine.safetensors")
    (tmp_path / "page.html").symlink_to(mine)
    with pytest.raises(SteerlabError, match=r"page\.html \(which is .*mine\.safetensors\) is ther"):
        write_card(tmp_path / "page.html", "page")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("away/a.html", "No such file or directory"),
        ("file/a.html", "Not a directory"),
        ("folder.html", "Is a directory"),
        ("loop.html", "symbolic links"),
        ("x" * 300 + ".html", "name too long"),
        ("\udcff.html", r"the name '.*\\udcff\.html' holds bytes that are no UTF-8"),
        ("a\0.html", r"the name '.*' holds a NUL byte"),
    ],
)
def test_names_that_cannot_be_written_are_told_before_the_work(
    name: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "loop.html").symlink_to(tmp_path / "loop.html")
    with pytest.raises(SteerlabError, match=message):
        need_target(tmp_path / name, ".html")


@pytest.mark.parametrize("name", ["file", "file/run", "pipe", "pipe/run", "\udcff"])
def test_folders_that_cannot_be_made_are_told_before_the_work(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SteerlabError, match="Not a directory|no UTF-8"):
        need_folder(tmp_path / name)
    assert need_folder(tmp_path / "new" / "deep") == tmp_path / "new" / "deep"


VERBS = {
    "fit": ["fit", "diffmean", "polyglot"],
    "import": ["import", "means", "means.safetensors"],
    "show": ["show", "own.safetensors", "cosines", "--layer", "0"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_verbs_refuse_before_the_work(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("steerlab.models.loading.load", None)  # the work would need it
    fits = directions(3)
    basis = torch.eye(3)[:1].expand(2, 1, 1, 3).contiguous()
    replace(fits, vectors=torch.randn(2, 1, 3), basis=basis).save("own.safetensors")
    save_file({"means": torch.randn(2, 1, 4)}, "means.safetensors", {"langs": "en,de"})
    ending = ".html" if verb == "show" else ".safetensors"
    os.mkfifo(f"pipe{ending}")
    Path(f"theirs{ending}").write_bytes(b"somebody's")
    for name, force, message in (
        (f"pipe{ending}", [], "is a pipe, which is never replaced"),
        (f"pipe{ending}", ["--force"], "is a pipe, which is never replaced"),
        (f"theirs{ending}", [], "steerlab did not write it"),
    ):
        assert main([*VERBS[verb], "-o", name, *force]) == 2
        assert message in capsys.readouterr().err
    assert stat.S_ISFIFO(os.lstat(f"pipe{ending}").st_mode)
    assert Path(f"theirs{ending}").read_bytes() == b"somebody's"
    if verb == "fit":
        return
    if verb == "import":  # its own input, forced
        before = Path("means.safetensors").read_bytes()
        assert main([*VERBS[verb], "-o", "means.safetensors", "--force"]) == 2
        assert "is read by this very command" in capsys.readouterr().err
        assert Path("means.safetensors").read_bytes() == before
    assert main([*VERBS[verb], "-o", f"theirs{ending}", "--force"]) == 0
    assert Path(f"theirs{ending}").read_bytes() != b"somebody's"
    assert main([*VERBS[verb], "-o", f"theirs{ending}"]) == 0, "what it wrote itself"


def test_somebody_elses_new_file_keeps_a_folder_occupied(tmp_path: Path) -> None:
    from steerlab.sweeps.folder import claim, occupied

    (tmp_path / "rows.csv.0123456789ab.new").write_text("")
    assert not occupied(tmp_path), "what a killed write of ours left behind"
    (tmp_path / "x.new").write_text("somebody's")
    with pytest.raises(SteerlabError, match="holds files, but no run"):
        claim(tmp_path, {})


def test_reading_does_not_wait_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    for read in (read_json, read_bytes):
        with pytest.raises(SteerlabError, match="is a pipe or a device; give the name of a file"):
            read(tmp_path / "a.json")
    with pytest.raises(SteerlabError, match="is a folder; give the name of a file"):
        read_bytes(tmp_path)


def test_an_autoencoder_beside_a_foreign_one_is_refused_whole(tmp_path: Path) -> None:
    autoencoder(3).save(tmp_path)
    (tmp_path / "sae_weights.safetensors").write_bytes(b"somebody's")
    with pytest.raises(SteerlabError, match="did not write"):
        autoencoder(4).save(tmp_path)
    autoencoder(4).save(tmp_path, force=True)
    assert SAE.load(tmp_path).width == 4
