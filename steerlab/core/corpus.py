"""Texts by language: parallel sentences, aligned by line and split by line, or plain unaligned
text."""

import gzip
import hashlib
import os
import re
import unicodedata
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from steerlab.core.display import Shown, View, bars, counted, listed
from steerlab.core.errors import SteerlabError, note
from steerlab.core.files import read_bytes
from steerlab.core.labels import label, labelled
from steerlab.core.languages import code_of, language

PACKAGED = Path(__file__).parents[1] / "data" / "parallel"
# Of every 24 lines 12 serve to estimate, 5 to choose and 7 to report: the even ones, these five of
# the odd ones, and the rest. They are spread so that each topic of the file is in all three.
_PERIOD = 24
_DEV = {1, 5, 11, 15, 21}
SPLITS = ("estimate", "dev", "test")
# In any case, and with the encoding that a locale's name ends in, as nb_NO.utf8.txt.
_TEXT_FILE = re.compile(r"(?P<stem>.*?)(\.utf-?8)?\.txt(\.gz)?", re.IGNORECASE | re.DOTALL)
SENTENCES: Mapping[str, tuple[str, ...]] = {name: (name,) for name in SPLITS}


def split_of(line: int) -> str:
    """The split of a line, by its number in the file: "estimate", "dev" or "test".

    It depends on the number alone, so a corpus keeps its splits when lines are left out.
    """
    index = line % _PERIOD
    if index % 2 == 0:
        return "estimate"
    return "dev" if index in _DEV else "test"


@dataclass(frozen=True, repr=False)
class Corpus(Shown):
    """Lines of text by language, aligned by line or not.

    Args:
        name: what the corpus is called in results.
        lines: each language's lines, by the code that it goes by (`core.languages`), or by another
            label (`core.labels`).
        numbers: for aligned lines, `numbers[i]` is the line of the file, from 0, that each
            language's i-th line stands on.
        aligned: whether the i-th lines of all languages are translations of one another.
        splits: its splits by name, each with what `split_of` says of the numbers in it. Sentences
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
        # Unaligned languages have different numbers of lines: the largest counts.
        if not self.aligned:
            return max(len(lines) for lines in self.lines.values())
        return len(self.numbers)

    def __getitem__(self, iso: str) -> tuple[str, ...]:
        """The lines of a language, by any of its codes."""
        return self.lines[self._own_code(iso)]

    def _view(self) -> View:
        count = f"{counted(len(self), 'line')} {'each' if self.aligned else 'or fewer each'}"
        letters = {
            lang: sum(map(len, lines)) / max(1, len(lines)) for lang, lines in self.lines.items()
        }
        return View(
            f"Corpus {self.name!r}",
            f"{counted(len(self.langs), 'language')} ({listed(self.langs)}), {count}, "
            f"{'aligned' if self.aligned else 'not aligned'}",
            head=("language", "lines", "the first"),
            rows=[
                (labelled(lang).name, len(lines), (lines[0] if lines else "")[:80])
                for lang, lines in self.lines.items()
            ],
            picture=lambda: bars(letters),
            caption="letters of a line, on average",
        )

    def _own_code(self, iso: str) -> str:
        """The code under which the lines of a language are here."""
        if iso in self.lines:
            return iso
        # A typing error deserves the list of all codes, a missing file that of the corpus.
        code = label(iso)  # raises first where there is no such language at all
        if code not in self.lines:
            raise SteerlabError(
                f"corpus {self.name!r} has no {iso!r}; it has {' '.join(self.langs)}"
            )
        return code

    @property
    def hash(self) -> str:
        """SHA-256 of every language's code and lines, its first 16 hex digits."""
        digest = hashlib.sha256()
        for lang, lines in self.lines.items():
            # The empty string ends each language with a newline, so that no two run together.
            digest.update("\n".join([lang, *lines, ""]).encode())
        return digest.hexdigest()[:16]

    def split(self, name: str) -> "Corpus":
        """The lines of one split: `estimate`, `dev` or `test`, where there are no other `splits`.

        Raises `SteerlabError` for another name, for unaligned text and where no line is left.
        """
        if name not in self.splits:
            raise SteerlabError(
                f"{self.name!r} has no split {name!r}; its splits are {', '.join(self.splits)}"
            )
        self.need_aligned(f"the split {name!r}")
        inside = self.splits[name]
        if set(inside) == set(SPLITS):
            return self
        chosen = [index for index, line in enumerate(self.numbers) if split_of(line) in inside]
        return self._keep(chosen, f"{self.name}/{name}")

    def take(self, limit: int | None) -> "Corpus":
        """At most `limit` lines of each language, evenly spread over the corpus; all for None.

        Raises `SteerlabError` for a limit below 1.
        """
        if limit is None or limit >= len(self):
            return self
        if limit < 1:
            raise SteerlabError(f"a limit of {limit} lines leaves nothing; give 1 or more")
        if self.aligned:
            return self._keep(_spread(len(self), limit), self.name)
        # Unaligned languages differ in length, so each is thinned by itself.
        kept = {}
        for lang, lines in self.lines.items():
            kept[lang] = tuple(lines[index] for index in _spread(len(lines), limit))
        return replace(self, lines=kept)

    def drop(self, limit: int) -> "Corpus":
        """The aligned lines that `take(limit)` leaves out."""
        self.need_aligned("leaving lines out")
        taken = set(_spread(len(self), limit))
        return self._keep([index for index in range(len(self)) if index not in taken], self.name)

    def select(self, isos: Iterable[str]) -> "Corpus":
        """Only these languages, in this order; raises `SteerlabError` for one that is not there."""
        codes = map(self._own_code, codes_in(isos))
        return replace(self, lines={code: self.lines[code] for code in codes})

    def need_aligned(self, what: str) -> None:
        """Raise `SteerlabError` if the text is unaligned; `what` says for what that is needed."""
        if not self.aligned:
            raise SteerlabError(
                f"{what} needs sentences aligned by line, but {self.name!r} was read as unaligned "
                "text; read a folder of parallel <iso>.txt files with corpus(folder), or give "
                "contrast as many texts under each label"
            )

    def _keep(self, indices: list[int], name: str) -> "Corpus":
        """The aligned lines with these indices, under a name of their own."""
        if not indices:
            raise SteerlabError(f"{name!r} is empty: {self.name!r} has only {len(self)} lines")
        kept = {}
        for lang, lines in self.lines.items():
            kept[lang] = tuple(lines[index] for index in indices)
        numbers = tuple(self.numbers[index] for index in indices)
        return replace(self, name=name, lines=kept, numbers=numbers)


def split_lines(text: str) -> list[str]:
    """The lines of a text, stripped.

    A line ends at LF or CRLF, in a corpus and in an output alike, and at nothing else: text may
    hold the other characters at which `str.splitlines` cuts, such as U+2028.
    """
    return [line.strip() for line in text.split("\n")]


def need_texts(texts: Any, what: str) -> list[str]:
    """The texts of a list; raises `SteerlabError` for one string, which would be read letter by
    letter, and for what is no text. `what` says whose argument it is."""
    if isinstance(texts, str):
        raise SteerlabError(
            f"{what} takes a list of texts, and was given the one string {texts[:40]!r}: wrap it"
        )
    # A pandas table would give the names of its columns, and an array without an axis nothing.
    table = getattr(texts, "ndim", 1) != 1
    if table or not isinstance(texts, Iterable) or isinstance(texts, (bytes, bytearray, Mapping)):
        raise SteerlabError(
            f"{what} takes a list of texts, and was given a {type(texts).__name__}; give strings"
            + (", such as one column of it" if table and getattr(texts, "ndim", 1) else "")
        )
    if isinstance(texts, (set, frozenset)):
        raise SteerlabError(
            f"{what} takes a list of texts, and was given a {type(texts).__name__}, which has no "
            "order, so that nothing could be told apart in what comes back; give sorted(texts)"
        )
    listed = list(texts)
    for number, text in enumerate(listed):
        if not isinstance(text, str):
            raise SteerlabError(
                f"{what} takes texts, and number {number} is a {type(text).__name__}: "
                f"{repr(text)[:40]}; give strings"
            )
    return listed


def as_texts(texts: Any, what: str) -> list[str]:
    """The texts of a list, or the one text that was given alone; raises as `need_texts` does."""
    return [texts] if isinstance(texts, str) else need_texts(texts, what)


def as_corpus(texts: "Corpus | str | os.PathLike[str] | None") -> Corpus:
    """A corpus, or the one in a folder; None for the sentences in the package."""
    if isinstance(texts, Corpus):
        return texts
    if texts is None or isinstance(texts, (str, os.PathLike)):
        return corpus(texts)
    raise SteerlabError(
        f"a corpus is needed, not a {type(texts).__name__}; give corpus(folder), texts(folder) or "
        "the folder"
    )


def codes_in(langs: Iterable[str]) -> list[str]:
    """Codes of languages in a list, or in one string with commas or spaces between them."""
    return langs.replace(",", " ").split() if isinstance(langs, str) else list(langs)


def corpus(
    folder: str | os.PathLike[str] | None = None, langs: Iterable[str] | None = None
) -> Corpus:
    """Read parallel text from files such as `en.txt`, one sentence a line.

    A file is named after its language, by any code of it: `de.txt`, `deu.txt`, `deu_Latn.txt` and
    `de-AT.txt` are German; `.txt.gz` is read too. What else lies there is left out, hidden files in
    silence, and named on stderr where no languages were asked for. Raises `SteerlabError`, with the
    file and the line, for files of unequal length, empty lines, text that is not UTF-8, languages
    without a file and with two.

    Args:
        folder: holds the files; None for the sentences in the package.
        langs: the languages to read, in this order; None for all that are there.
    """
    files = _files(PACKAGED if folder is None else Path(folder), langs)
    lines = {lang: _read(file) for lang, file in files.items()}
    for lang, of_lang in lines.items():
        for number, line in enumerate(of_lang, start=1):
            if not line:
                raise SteerlabError(
                    f"{files[lang]} line {number} is empty; an aligned corpus has a sentence on "
                    "each line"
                )
    lengths = {lang: len(of_lang) for lang, of_lang in lines.items()}
    parent = next(iter(files.values())).parent
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{lang} {length}" for lang, length in lengths.items())
        raise SteerlabError(
            f"the files in {parent} are not aligned, their lines differ in number: {listed}; mend "
            "them, or read them with texts(folder) for methods that need no pairs"
        )
    count = next(iter(lengths.values()))
    if not count:
        raise SteerlabError(f"the files in {parent} are empty; give at least one line")
    # The folder's own name, also where it was given as "." or a link.
    name = "parallel" if folder is None else Path(folder).resolve().name
    frozen = {lang: tuple(of_lang) for lang, of_lang in lines.items()}
    return Corpus(name, frozen, tuple(range(count)))


def texts(folder: str | Path, langs: Iterable[str] | None = None) -> Corpus:
    """Read unaligned text from files such as `en.txt`, for methods that need no pairs.

    Files are named as for `corpus`, and empty lines are skipped. Raises `SteerlabError` for a file
    without text, text that is not UTF-8 and languages without a file.

    Args:
        folder: holds the files.
        langs: the languages to read, in this order; None for all that are there.
    """
    files = _files(Path(folder), langs)
    lines = {}
    for lang, file in files.items():
        lines[lang] = tuple(line for line in _read(file) if line)
    for lang, of_lang in lines.items():
        if not of_lang:
            raise SteerlabError(f"{files[lang]} has no text; give at least one line")
    return Corpus(Path(folder).resolve().name, lines, aligned=False)


def _spread(count: int, limit: int) -> list[int]:
    """At most `limit` indices below `count`, evenly spread."""
    if limit >= count:
        return list(range(count))
    # In whole numbers: a step in floating point could name an index twice.
    return [index * count // limit for index in range(limit)]


def _files(folder: Path, langs: Iterable[str] | None) -> dict[str, Path]:
    """The files of a folder by language, of the languages asked for; all are checked before any is
    read."""
    if not folder.is_dir():
        missing = f"{folder} is a file" if folder.is_file() else f"there is no folder {folder}"
        raise SteerlabError(
            f"{missing}; give a folder of <iso>.txt files, such as en.txt and de.txt"
        )
    files, left_out = _by_language(folder)
    if not files:
        there = f" (there are {_listed(left_out)})" if left_out else ""
        raise SteerlabError(f"{folder} holds no <iso>.txt files, such as en.txt and de.txt{there}")
    if langs is None:
        wanted = list(files)
        if left_out:
            note(f"{folder}: left out {_listed(left_out)}, not named after a language as en.txt is")
    else:
        wanted = list(dict.fromkeys(language(lang).iso for lang in codes_in(langs)))
    for lang in wanted:
        language(lang)
        if lang not in files:
            raise SteerlabError(f"{folder} has no {lang}.txt; it has {' '.join(files)}")
        if len(files[lang]) > 1:
            both = " and ".join(file.name for file in files[lang])
            raise SteerlabError(
                f"{folder} has {both}, and each is {language(lang).name} ({lang}); leave one there"
                ", or name the languages to read without it"
            )
    if not wanted:
        raise SteerlabError(f"no language was asked for; {folder} has {' '.join(files)}")
    return {lang: files[lang][0] for lang in wanted}


def _by_language(folder: Path) -> tuple[dict[str, list[Path]], list[str]]:
    """The files of a folder by the code of the language that each is named after, and the names of
    those that are named after none."""
    files: dict[str, list[Path]] = {}
    left_out = []
    for file in sorted(folder.iterdir()):
        if file.name.startswith("."):
            continue
        if file.is_dir():
            left_out.append(f"{file.name}/")
            continue
        named = _TEXT_FILE.fullmatch(file.name)
        stem = named["stem"] if named else ""
        # Two letters are meant as a code, so a wrong one is told; a README.txt is no language.
        lang = code_of(stem) or (stem if len(stem) == 2 else None)
        if lang is None:
            left_out.append(file.name)
        else:
            files.setdefault(lang, []).append(file)
    return dict(sorted(files.items())), left_out


def _listed(names: list[str], most: int = 8) -> str:
    """Names with commas between them, and how many there are beside the first ones."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _read(file: Path) -> list[str]:
    """The lines of a file in the composed Unicode form (NFC), so that equal texts are equal
    strings."""
    try:
        data = read_bytes(file)
        if file.suffix.lower() == ".gz":
            data = gzip.decompress(data)
        text = data.decode("utf-8-sig")  # some editors begin a file with a byte order mark
    except UnicodeDecodeError as error:
        raise SteerlabError(
            f"{file} is not UTF-8 ({error.reason} at byte {error.start}); convert it"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise SteerlabError(f"{file} cannot be read ({error}); give a whole file") from error
    if "\r" in text and "\n" not in text.rstrip():
        raise SteerlabError(
            f"the lines of {file} end with CR alone, as on an old Macintosh; convert them to LF"
        )
    lines = [unicodedata.normalize("NFC", line) for line in split_lines(text)]
    # The newline at the end of the last line begins no line of its own.
    if lines and not lines[-1]:
        lines.pop()
    return lines
