"""Damaged files and words of a command line, at random: no traceback, no hang, no silent other
number.

`make fuzz` tries 10,000 inputs, in at most 30 minutes; `make fuzz ARGS="--short"`, which the tests
run, 60 in at most 20 seconds. Input i of a seed is the same on every machine, so that `--seed 3 --only
417` tries one again.

SAFETY. A fuzzer writes where its inputs say. Each works in a folder that this program has made, and
every path among its inputs lies there: a line that names another place is refused before it is
run. As root it does not run at all: a child gives up root, or nothing starts.
"""

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LONG, SHORT = 10_000, 60  # inputs
LIMIT = {LONG: 30 * 60.0, SHORT: 20.0}  # seconds
SLOWEST = 20  # seconds of one input: more is a hang
NOBODY = 65534  # the user that owns nothing


@dataclass(frozen=True)
class Found:
    """What should not have happened."""

    number: int
    kind: str
    what: str
    said: str


class Hang(BaseException):
    """An input took too long; not an `Exception`, so that nothing swallows it."""


# ------------------------------------------------------------------------------------------ safety


def need_safe(folder: Path) -> None:
    """Raise unless this process may do no harm: not root, in an empty folder of its own."""
    if os.geteuid() == 0:
        raise SystemExit("fuzz: root may write anywhere, so that it does not run as root")
    folder = folder.resolve()
    if not folder.is_relative_to(Path(tempfile.gettempdir()).resolve()) or any(folder.iterdir()):
        raise SystemExit(f"fuzz: {folder} is no empty folder below the one for temporary files")
    if folder.stat().st_uid != os.geteuid():
        raise SystemExit(f"fuzz: {folder} is somebody else's")


def need_inside(words: Sequence[str], folder: Path) -> None:
    """Raise for a word that names a place outside the folder: links are resolved, and devices are
    never named."""
    for word in words:
        for piece in (word, word.partition("=")[2]):
            if "/" not in piece and ".." not in piece:
                continue
            real = Path(os.path.realpath(folder / piece))
            if not real.is_relative_to(folder.resolve()):
                raise SystemExit(f"fuzz: {word!r} leads out of {folder}")


def give_up_root() -> None:
    """Become nobody, for good, who may read what root may (the packages may be root's own) and write
    nothing but what is everybody's; raises where the system has no such thing."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    keep_capabilities, no_new_privileges, may_read = 8, 38, 1 << 2  # CAP_DAC_READ_SEARCH

    def need(result: int) -> None:
        if result:
            raise SystemExit(
                f"fuzz: root could not be given up ({os.strerror(ctypes.get_errno())})"
            )

    need(libc.prctl(keep_capabilities, 1, 0, 0, 0))
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    # Version 3 of the interface; then effective, permitted, inheritable, for 64 capabilities.
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    need(libc.capset(header, (ctypes.c_uint32 * 6)(may_read, may_read, 0, 0, 0, 0)))
    need(libc.prctl(no_new_privileges, 1, 0, 0, 0))


def as_nobody(work: Callable[[], int]) -> int:
    """Do the work in a child that has given up root; its exit status."""
    child = os.fork()
    if not child:
        status = 1
        try:
            give_up_root()
            status = work()
        except SystemExit as error:
            print(error.code, file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# --------------------------------------------------------------------------------------- mutations


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A file's bytes with a bit turned, a piece cut, doubled or overwritten, or a number changed."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        place = rng.randrange(max(1, len(changed)))
        size = rng.choice((1, 2, 8, 64))
        kind = rng.randrange(7)
        if not changed or kind == 0:
            changed[place:place] = rng.choice(PIECES)
        elif kind == 1:
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del changed[place:]
        elif kind == 3:
            del changed[place : place + size]
        elif kind == 4:
            changed[place:place] = changed[place : place + size]
        elif kind == 5:
            changed[place : place + size] = rng.randbytes(size)
        else:
            changed[place : place + size] = rng.choice(PIECES)
    return bytes(changed)


PIECES: tuple[bytes, ...] = (
    b"",
    b"\0",
    b"\r",
    b"\xff",
    b"null",
    b"-1",
    b"1e999",
    b"NaN",
    b"[]",
    b"{}",
    b'""',
    b"true",
)
PIECES += (b"\xe2\x80\xa8", b"\xed\xa0\x80", b"3.7", b'"x"', b"\n\n", b"&a [*a]", b"\x1b[31m")


def other_json(value: Any, rng: random.Random) -> Any:
    """JSON with one of its values, anywhere, made another one."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(sorted(value))
        if rng.random() < 0.2:
            return {name: each for name, each in value.items() if name != key}
        return value | {key: other_json(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        place = rng.randrange(len(value))
        return [*value[:place], other_json(value[place], rng), *value[place + 1 :]]
    return rng.choice(
        (None, True, -1, 0, 3.7, 10**30, float("nan"), "", "no", [], {}, [1], {"a": 1})
    )


# ------------------------------------------------------------------------------------------ inputs


# Formats of other tools' vectors, and the endings of their files.
EXCHANGED = (
    ("gguf", ".gguf"),
    ("svec", ".svec"),
    ("npz", ".npz"),
    ("pt", ".pt"),
    ("steering-vectors", ".pt"),
    ("lm-eval", ".pt"),
    ("neuronpedia", ".json"),
)


class Bench:
    """The sound files that are damaged, and what reads them.

    A case damages a copy and reads it. What is read without an error has to be the same as before,
    where the file says what it was.
    """

    def __init__(self, folder: Path) -> None:
        import torch
        from safetensors.torch import save_file

        import steerlab as sl
        from steerlab.core.exchange import export

        self.folder = folder
        self.sound = folder / "sound"
        self.sound.mkdir()
        torch.manual_seed(0)
        basis = torch.linalg.qr(torch.randn(2, 2, 8, 1))[0].mT.contiguous()
        means = torch.randn(2, 2, 8)
        fits = sl.Directions(means, basis, means, ("en", "de"), (0, 1), "resid_post")
        fits.save(self.sound / "fits.safetensors")
        (self.sound / "exchanged").mkdir()
        direction = fits.between("en", "de").at(1)
        for name, ending in EXCHANGED:
            export(direction, self.sound / "exchanged" / f"{name}{ending}", format=name)
        weights = torch.randn(8, 16)
        sl.SAE(weights, torch.zeros(16), weights.T, torch.zeros(8), "relu", 0, "resid_post").save(
            self.sound / "sae"
        )
        save_file({"means": means}, self.sound / "means.safetensors", {"langs": "en,de"})
        (self.sound / "texts").mkdir()
        for iso in ("en", "yor", "zho_Hans"):
            lines = "".join(f"{iso} sentence {number}.\n" for number in range(40))
            (self.sound / "texts" / f"{iso}.txt").write_text(lines, "utf-8")
        (self.sound / "grid.yaml").write_text("layers: [5]\nstrengths: [1]\nlangs: [en, no]\n")

    def cases(self) -> dict[str, Callable[[random.Random, Path], None]]:
        """What is tried, by name: each gets a random generator and a folder of its own."""
        return {
            "directions": self.directions,
            "autoencoder": self.autoencoder,
            "configuration": self.configuration,
            "means": self.means,
            "exchanged": self.exchanged,
            "corpus": self.corpus,
            "grid": self.grid,
            "manifest": self.manifest,
            "language": self.language,
            "text": self.text,
            "words": self.words,
            "words on files": self.words_on_files,
        }

    def directions(self, rng: random.Random, folder: Path) -> None:
        from steerlab.core.directions import Directions

        file = folder / "fits.safetensors"
        whole = (self.sound / file.name).read_bytes()
        file.write_bytes(damaged(whole, rng))
        read = Directions.load(file)
        sound = Directions.load(self.sound / file.name)
        assert read.digest == sound.digest, "damaged directions were read as others"

    def autoencoder(self, rng: random.Random, folder: Path) -> None:
        from steerlab.sae import SAE

        copy = Path(shutil.copytree(self.sound / "sae", folder / "sae"))
        file = rng.choice(sorted(copy.iterdir()))
        file.write_bytes(damaged(file.read_bytes(), rng))
        digest = SAE.load(self.sound / "sae").digest
        assert SAE.load(copy).digest == digest, "a damaged autoencoder was read as another"

    def configuration(self, rng: random.Random, folder: Path) -> None:
        from steerlab.sae import SAE

        copy = Path(shutil.copytree(self.sound / "sae", folder / "sae"))
        config = json.loads((copy / "cfg.json").read_text())
        (copy / "cfg.json").write_text(json.dumps(other_json(config, rng)))
        digest = SAE.load(self.sound / "sae").digest
        assert SAE.load(copy).digest == digest, "another configuration was read as another one"

    def means(self, rng: random.Random, folder: Path) -> None:
        from steerlab.estimate.released import language_means

        file = folder / "means.safetensors"
        file.write_bytes(damaged((self.sound / file.name).read_bytes(), rng))
        language_means(file)

    def exchanged(self, rng: random.Random, folder: Path) -> None:
        """These have no checksum, so that other numbers may be read; numbers they are."""
        import torch

        from steerlab.core.exchange import read

        name, ending = rng.choice(EXCHANGED)
        copy = Path(shutil.copytree(self.sound / "exchanged", folder / "exchanged"))
        file = copy / f"{name}{ending}"
        damage = file if rng.random() < 0.8 else rng.choice(sorted(copy.iterdir()))
        damage.write_bytes(damaged(damage.read_bytes(), rng))
        found = read(file, format=name)
        assert torch.isfinite(found.vectors).all(), "vectors that are no numbers were read"

    def corpus(self, rng: random.Random, folder: Path) -> None:
        import steerlab as sl

        copy = Path(shutil.copytree(self.sound / "texts", folder / "texts"))
        file = rng.choice(sorted(copy.iterdir()))
        file.write_bytes(damaged(file.read_bytes(), rng))
        name = rng.choice(
            ("yo", "pt_BR", "xx", "README", "zh-cn", "zho_Hant", "a" * 200, "\x1b[1m")
        )
        if rng.random() < 0.5:
            file.rename(file.with_name(f"{name}{rng.choice(('.txt', '.txt.gz', '.TXT', ''))}"))
        read = sl.corpus(copy)
        lengths = {len(lines) for lines in read.lines.values()}
        assert lengths == {len(read)}, "languages of one corpus have different numbers of lines"

    def grid(self, rng: random.Random, folder: Path) -> None:
        from steerlab.sweeps.grid import Grid

        file = folder / "grid.yaml"
        file.write_bytes(damaged((self.sound / file.name).read_bytes(), rng))
        Grid.read(file)

    def manifest(self, rng: random.Random, folder: Path) -> None:
        from steerlab.core.files import read_json, write_json
        from steerlab.sweeps.folder import claim

        file, settings = folder / "manifest.json", {"seed": 0, "langs": ["en", "de"]}
        write_json(file, {"format": 1, "settings": settings, "plan": {"rows": 64}})
        whole = read_json(file)
        file.write_bytes(damaged(file.read_bytes(), rng))
        claim(folder, settings)
        if file.stat().st_size:
            read = read_json(file)  # a key of nobody's may stand beside what was there
            same = {key: read.get(key) for key in whole} == whole
            assert same, "a damaged manifest was read as another"

    def language(self, rng: random.Random, folder: Path) -> None:
        from steerlab.core.languages import code_of, language

        letters = "abcdefghijklmnopqrstuvwxyzABCL-_ 0123é\0"
        name = "".join(rng.choices(letters, k=rng.randrange(9)))
        if (code := code_of(name)) is not None:
            assert code_of(code) == code, f"{name!r} is {code!r}, which is another one"
        entry = language(name)
        assert entry.iso == code
        assert entry.name
        assert entry.script

    def text(self, rng: random.Random, folder: Path) -> None:
        from steerlab.core.corpus import split_lines
        from steerlab.scores.chrf import ChrfIndex
        from steerlab.scores.langid import identifier
        from steerlab.scores.text import compression, first_line, repetition

        pool = "aA \n\r\u2028\x85\x1c\0é\u0958\u0301漢ا\ud800\U0001f600"
        text = "".join(rng.choices(pool, k=rng.randrange(30)))
        lines = [line for line in split_lines(text) if line]
        assert bool(first_line(text)) == bool(lines)
        identifier().identify(text)
        assert 0 <= repetition(text) < 1
        compression(text)
        score = ChrfIndex([text]).score([text])[0, 0]
        assert abs(score - (100 if text.split() else 0)) < 1e-6, f"chrF with itself is {score}"

    def words(self, rng: random.Random, folder: Path) -> None:
        """Words of settings, which are checked before anything is loaded."""
        from steerlab.sweeps.grid import Grid

        keys = rng.sample(sorted(Grid.model_fields), k=rng.randrange(1, 4))
        odd = (
            "",
            "nan",
            "-1",
            "1e999",
            "en",
            "eng_Latn",
            "no",
            "add=nan",
            "x=",
            ",,",
            "3.7",
            "9" * 40,
        )
        Grid.of({key: rng.choice((*odd, None, -1, [], {}, [None], True)) for key in keys})

    def words_on_files(self, rng: random.Random, folder: Path) -> None:
        """The verbs that are quick, on a copy of the files, with any of them as the output."""
        from steerlab.cli import main

        copy = Path(shutil.copytree(self.sound, folder / "files"))
        os.mkfifo(copy / "pipe.html")
        os.mkfifo(copy / "pipe.safetensors")
        (copy / "theirs.html").write_text("somebody's")
        (copy / "link.safetensors").symlink_to(copy / "means.safetensors")
        (copy / "loop.html").symlink_to(copy / "loop.html")
        before = {path: os.lstat(path) for path in copy.rglob("*")}
        if rng.random() < 0.7:
            file = rng.choice((copy / "fits.safetensors", copy / "means.safetensors"))
            file.write_bytes(damaged(file.read_bytes(), rng))
        outs = [str(path) for path in copy.iterdir()] + [
            str(copy / "new.html"),
            str(copy / "away/x"),
        ]
        out = rng.choice((*outs, str(copy / "new.safetensors"), str(copy / "\udcff.html")))
        figure = rng.choice(("dendrogram", "cosines"))
        words = rng.choice(
            (
                ["show", str(copy / "fits.safetensors"), figure, "--layer", rng.choice("0159")],
                ["import", "means", str(copy / "means.safetensors")],
                ["import", "clas-bench", str(copy), "--kind", rng.choice(("vector", "x"))],
            )
        )
        words = [*words, "-o", out, *rng.choice(((), ("--force",)))]
        need_inside(words, copy)
        with contextlib.suppress(SystemExit):  # what argparse refuses
            main(words)
        for path, status in before.items():
            now = os.lstat(path)
            assert now.st_mode == status.st_mode, f"{path.name} is of another kind than it was"


# -------------------------------------------------------------------------------------------- runs


def attempt(case: Callable[[random.Random, Path], None], rng: random.Random, folder: Path) -> str:
    """What went wrong with one input: "" where it was read, or refused in a sentence."""
    from steerlab.core.errors import SteerlabError

    def stop(*_: object) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(SLOWEST)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            case(rng, folder)
    except SteerlabError as error:
        return "" if str(error).strip() else "an error without a sentence"
    except Hang:
        return f"it hung for {SLOWEST} s"
    except AssertionError as error:
        return f"other numbers: {error}"
    except Exception:
        return traceback.format_exc()
    finally:
        signal.alarm(0)
    return ""


def numbered(count: int, only: int | None) -> Iterator[int]:
    yield from range(count) if only is None else (only,)


def fuzz(folder: Path, *, count: int, seed: int, only: int | None, seconds: float) -> int:
    """Try so many inputs; says what was found, and gives 1 where something was."""
    need_safe(folder)
    os.environ["HOME"] = os.environ["XDG_CACHE_HOME"] = str(folder)
    os.chdir(folder)
    bench = Bench(folder)
    cases = list(bench.cases().items())
    begun, done, found = time.monotonic(), Counter[str](), list[Found]()
    for number in numbered(count, only):
        if time.monotonic() - begun > seconds:
            print(f"fuzz: stopped after {seconds:.0f} s", flush=True)
            break
        name, case = cases[number % len(cases)]
        place = folder / f"input-{number}"
        place.mkdir()
        said = attempt(case, random.Random(f"{seed} {number}"), place)
        shutil.rmtree(place, ignore_errors=True)
        done[name] += 1
        if said:
            found.append(Found(number, name, said.strip().splitlines()[-1], said))
            print(f"--- input {number} of seed {seed}: {name}\n{said}", flush=True)
    spent = time.monotonic() - begun
    kinds = ", ".join(f"{name} {times}" for name, times in done.items())
    print(f"fuzz: {done.total()} inputs in {spent:.0f} s ({kinds}); {len(found)} found", flush=True)
    return 1 if found else 0


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="60 inputs in at most 20 seconds")
    parser.add_argument("--count", type=int, help="how many inputs")
    parser.add_argument("--seconds", type=float, help="at most so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="try the input of this number alone")
    options = parser.parse_args(words)
    size = SHORT if options.short else LONG
    import steerlab.cli
    import steerlab.estimate.released
    import steerlab.sweeps.grid  # noqa: F401 -- before root is given up, whose packages these may be

    # Made by this call alone, and given to whoever does the work.
    with tempfile.TemporaryDirectory(prefix="steerlab-fuzz-") as made:
        folder = Path(made)

        def work() -> int:
            return fuzz(
                folder,
                count=options.count or size,
                seed=options.seed,
                only=options.only,
                seconds=options.seconds or LIMIT[size],
            )

        if os.geteuid():
            return work()
        os.chown(folder, NOBODY, NOBODY)
        return as_nobody(work)


if __name__ == "__main__":
    sys.exit(main())
