"""Texts by language: parallel sentences, aligned by line and split by line, or plain unaligned
text."""

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from steerlab.core.errors import SteerlabError
from steerlab.core.languages import language

PACKAGED = Path(__file__).parents[1] / "data" / "parallel"
# Of every 24 lines 12 serve to estimate, 5 to choose and 7 to report, spread so that each topic is
# in all three.
_DEV = {1, 5, 11, 15, 21}
SPLITS = ("estimate", "dev", "test")
SENTENCES: Mapping[str, tuple[str, ...]] = {name: (name,) for name in SPLITS}


def split_of(line: int) -> str:
    """The split of a line by its number in the file."""
    place = line % 24
    return "estimate" if place % 2 == 0 else "dev" if place in _DEV else "test"


@dataclass(frozen=True)
class Corpus:
    """Lines by language. `numbers[i]` is the line of the file that each language's i-th line
    stands on.

    `splits`: its splits by name, each with what `split_of` says of the numbers in it. Sentences
    have three; texts of which nothing is estimated may have others.
    """

    name: str
    lines: Mapping[str, tuple[str, ...]]
    numbers: tuple[int, ...] = field(default=())
    aligned: bool = True
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: SENTENCES)

    @property
    def langs(self) -> tuple[str, ...]:
        return tuple(self.lines)

    def __len__(self) -> int:
        return (
            len(self.numbers) if self.aligned else max(len(lines) for lines in self.lines.values())
        )

    def __getitem__(self, iso: str) -> tuple[str, ...]:
        if iso not in self.lines:
            language(iso)
            raise SteerlabError(
                f"corpus {self.name!r} has no {iso!r}; it has {' '.join(self.langs)}"
            )
        return self.lines[iso]

    @property
    def hash(self) -> str:
        """SHA-256 of every language's lines, 16 hex digits."""
        digest = hashlib.sha256()
        for iso, lines in self.lines.items():
            digest.update("\n".join([iso, *lines, ""]).encode())
        return digest.hexdigest()[:16]

    def split(self, name: str) -> "Corpus":
        """The lines of one split: `estimate`, `dev` or `test`, where there are no other
        `splits`."""
        if name not in self.splits:
            raise SteerlabError(
                f"{self.name!r} has no split {name!r}; its splits are {', '.join(self.splits)}"
            )
        self.need_aligned(f"the split {name!r}")
        inside = self.splits[name]
        if set(inside) == set(SPLITS):
            return self
        chosen = [i for i, number in enumerate(self.numbers) if split_of(number) in inside]
        return self._keep(chosen, f"{self.name}/{name}")

    def take(self, limit: int | None) -> "Corpus":
        """At most `limit` lines of each language, evenly spread over the corpus."""
        if limit is None or limit >= len(self):
            return self
        if limit < 1:
            raise SteerlabError(f"a limit of {limit} lines leaves nothing; give 1 or more")
        if not self.aligned:
            kept = {
                iso: tuple(lines[i] for i in _spread(len(lines), limit))
                for iso, lines in self.lines.items()
            }
            return replace(self, lines=kept)
        return self._keep(_spread(len(self), limit), self.name)

    def drop(self, limit: int) -> "Corpus":
        """The aligned lines that `take(limit)` leaves."""
        self.need_aligned("leaving lines out")
        taken = set(_spread(len(self), limit))
        return self._keep([place for place in range(len(self)) if place not in taken], self.name)

    def select(self, isos: Iterable[str]) -> "Corpus":
        """Only these languages, in this order."""
        return replace(self, lines={iso: self[iso] for iso in isos})

    def need_aligned(self, what: str) -> None:
        if not self.aligned:
            raise SteerlabError(
                f"{what} needs sentences aligned by line, but {self.name!r} was read as unaligned "
                "text; "
                "read a folder of parallel <iso>.txt files with corpus(folder)"
            )

    def _keep(self, places: list[int], name: str) -> "Corpus":
        if not places:
            raise SteerlabError(f"{name!r} is empty: {self.name!r} has only {len(self)} lines")
        kept = {iso: tuple(lines[i] for i in places) for iso, lines in self.lines.items()}
        return replace(self, name=name, lines=kept, numbers=tuple(self.numbers[i] for i in places))


def corpus(folder: str | Path | None = None, langs: Iterable[str] | None = None) -> Corpus:
    """Read aligned `<iso>.txt` files, one sentence a line; without a folder, the sentences in the
    package.

    Files of unequal length and empty lines raise, with the file and the line.
    """
    files = _files(PACKAGED if folder is None else Path(folder), langs)
    lines = {iso: _read(file) for iso, file in files.items()}
    for iso, found in lines.items():
        for number, line in enumerate(found):
            if not line:
                raise SteerlabError(
                    f"{files[iso]} line {number + 1} is empty; an aligned corpus has a sentence on "
                    "each line"
                )
    lengths = {iso: len(found) for iso, found in lines.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{iso} {n}" for iso, n in lengths.items())
        raise SteerlabError(
            f"the files in {files[next(iter(files))].parent} are not aligned, their lines differ "
            f"in number: {told}; "
            "mend them, or read them with texts(folder) for methods that need no pairs"
        )
    count = next(iter(lengths.values()))
    if not count:
        raise SteerlabError(
            f"the files in {files[next(iter(files))].parent} are empty; give at least one line"
        )
    name = "parallel" if folder is None else Path(folder).resolve().name
    return Corpus(name, {iso: tuple(found) for iso, found in lines.items()}, tuple(range(count)))


def texts(folder: str | Path, langs: Iterable[str] | None = None) -> Corpus:
    """Read unaligned `<iso>.txt` files for methods that need no pairs; empty lines are skipped."""
    files = _files(Path(folder), langs)
    lines = {iso: tuple(line for line in _read(file) if line) for iso, file in files.items()}
    for iso, found in lines.items():
        if not found:
            raise SteerlabError(f"{files[iso]} has no text; give at least one line")
    return Corpus(Path(folder).resolve().name, lines, aligned=False)


def _spread(count: int, limit: int) -> list[int]:
    return list(range(count)) if limit >= count else [i * count // limit for i in range(limit)]


def _files(folder: Path, langs: Iterable[str] | None) -> dict[str, Path]:
    if not folder.is_dir():
        raise SteerlabError(
            f"there is no folder {folder}; give a folder of <iso>.txt files, such as en.txt and "
            "de.txt"
        )
    found = {file.stem: file for file in sorted(folder.glob("*.txt")) if len(file.stem) == 2}
    if not found:
        raise SteerlabError(f"{folder} holds no <iso>.txt files, such as en.txt and de.txt")
    for iso in found if langs is None else (langs := list(langs)):
        language(iso)
        if iso not in found:
            raise SteerlabError(f"{folder} has no {iso}.txt; it has {' '.join(found)}")
    if langs is not None and not langs:
        raise SteerlabError(f"no language was asked for; {folder} has {' '.join(found)}")
    return found if langs is None else {iso: found[iso] for iso in langs}


def _read(file: Path) -> list[str]:
    try:
        text = file.read_text("utf-8-sig")  # some editors begin a file with a byte order mark
    except UnicodeDecodeError as error:
        raise SteerlabError(
            f"{file} is not UTF-8 ({error.reason} at byte {error.start}); convert it"
        ) from error
    lines = [unicodedata.normalize("NFC", line.strip()) for line in text.split("\n")]
    return lines[:-1] if lines and not lines[-1] else lines
