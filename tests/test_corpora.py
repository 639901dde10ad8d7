"""The embedded corpus is what it says, and a folder that is not a corpus is refused with a
reason."""

import gzip
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from steerlab.core.corpus import PACKAGED, SPLITS, Corpus, corpus, split_of, texts
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import language
from steerlab.scores.chrf import ChrfIndex
from steerlab.scores.langid import identifier

EMBEDDED = corpus()
LANGS = "bg de en es fr hi hu it ja nl pl pt ru sv tr uk".split()
WRITING = {
    "Latn": {"LATIN"},
    "Cyrl": {"CYRILLIC"},
    "Deva": {"DEVANAGARI"},
    "Jpan": {"CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"},
}
FOREIGN = {"ru": "іїєґў", "uk": "ыэёъў", "bg": "ыэёіїєґ"}  # letters that only a neighbour has


def write(folder: Path, **files: str | bytes) -> Path:
    for iso, text in files.items():
        (folder / f"{iso}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def scripts(text: str) -> set[str]:
    return {unicodedata.name(letter).split()[0] for letter in text if letter.isalpha()}


def most_alike(lines: list[str]) -> float:
    """The highest chrF of any two lines, each as the output and as the reference of the other."""
    scores = np.array(ChrfIndex(lines).score(lines))
    np.fill_diagonal(scores, 0)
    return float(scores.max())


# The embedded corpus


def test_sixteen_languages_of_240_aligned_lines() -> None:
    assert sorted(EMBEDDED.langs) == LANGS
    assert {iso: len(EMBEDDED[iso]) for iso in LANGS} == dict.fromkeys(LANGS, 240)
    assert (len(EMBEDDED), EMBEDDED.numbers, EMBEDDED.aligned) == (240, tuple(range(240)), True)


@pytest.mark.parametrize("iso", LANGS)
def test_lines_are_clean_different_and_of_sentence_length(iso: str) -> None:
    raw = (PACKAGED / f"{iso}.txt").read_text("utf-8").split("\n")
    assert raw == [*EMBEDDED[iso], ""], (
        "the file holds exactly what is read: stripped, NFC, one line break at the end"
    )
    assert all(unicodedata.is_normalized("NFC", line) for line in raw)
    assert len({line.casefold().rstrip(".!?。") for line in EMBEDDED[iso]}) == 240
    lengths = [len(line) if iso == "ja" else len(line.split()) for line in EMBEDDED[iso]]
    least, most = {"en": (4, 16), "ja": (6, 40)}.get(iso, (3, 16))
    assert least <= min(lengths) <= max(lengths) <= most


@pytest.mark.parametrize("iso", LANGS)
def test_letters_are_of_the_language(iso: str) -> None:
    text = " ".join(EMBEDDED[iso])
    assert scripts(text) <= WRITING[language(iso).script]
    assert not set(FOREIGN.get(iso, "")) & set(text.lower())


def test_other_letters_would_be_seen() -> None:
    assert scripts("Cветло") == {"LATIN", "CYRILLIC"}
    assert set(FOREIGN["bg"]) & set(" ".join(EMBEDDED["uk"]))


def test_no_two_english_lines_are_alike() -> None:
    english = list(EMBEDDED["en"])
    assert most_alike(english) < 50
    assert most_alike([*english, english[0].replace("morning", "evening")]) > 50


@pytest.mark.parametrize("iso", LANGS)
def test_the_identifier_agrees(iso: str) -> None:
    assert identifier().identify(EMBEDDED[iso]).count(iso) / 240 >= (0.9 if iso == "bg" else 0.94)


# Splits, limits, selections


def test_splits_are_120_50_70_and_share_no_line() -> None:
    parts = {name: EMBEDDED.split(name) for name in SPLITS}
    assert {name: len(part) for name, part in parts.items()} == {
        "estimate": 120,
        "dev": 50,
        "test": 70,
    }
    assert sorted(number for part in parts.values() for number in part.numbers) == list(range(240))
    for name, part in parts.items():
        assert part.name == f"parallel/{name}"
        assert {split_of(number) for number in part.numbers} == {name}
        assert all(
            part[iso][i] == EMBEDDED[iso][number]
            for iso in LANGS
            for i, number in enumerate(part.numbers)
        )
        blocks = {number // 24 for number in part.numbers}
        assert blocks == set(range(10)), (
            "every block of 24 lines, and so every topic, is in every split"
        )


def test_take_spreads_and_keeps_lines_aligned() -> None:
    part = EMBEDDED.split("test").take(7)
    assert len(part) == 7
    assert max(part.numbers) > 200 > 40 > min(part.numbers)
    assert all(part["ja"][i] == EMBEDDED["ja"][number] for i, number in enumerate(part.numbers))
    assert EMBEDDED.take(None) is EMBEDDED
    assert EMBEDDED.take(240) is EMBEDDED
    with pytest.raises(SteerlabError, match="a limit of 0 lines leaves nothing; give 1 or more"):
        EMBEDDED.take(0)


def test_select_orders_and_the_hash_tells_contents_apart() -> None:
    part = EMBEDDED.select(["ja", "en"])
    assert part.langs == ("ja", "en")
    assert part.hash == EMBEDDED.select(["ja", "en"]).hash
    assert (
        len({EMBEDDED.hash, part.hash, part.take(9).hash, EMBEDDED.select(["ja", "de"]).hash}) == 4
    )


def test_an_unknown_split_lists_the_splits() -> None:
    with pytest.raises(SteerlabError, match="no split 'train'; its splits are estimate, dev, test"):
        EMBEDDED.split("train")
    with pytest.raises(SteerlabError, match="'small/dev' is empty: 'small' has only 1 lines"):
        Corpus("small", {"en": ("One.",)}, (0,)).split("dev")


# Folders


def test_a_folder_reads_like_the_package(tmp_path: Path) -> None:
    files = {iso: "\n".join(EMBEDDED[iso]) for iso in LANGS}
    read = corpus(write(tmp_path, **files))
    assert read.hash == EMBEDDED.hash
    assert read.name == tmp_path.name


def test_line_ends_byte_order_marks_and_decomposed_letters_do_not_matter(tmp_path: Path) -> None:
    write(
        tmp_path,
        en=b"\xef\xbb\xbfOne cafe\xcc\x81.\r\nTwo.\r\n",
        de=" Eins.  \nZwei.",
        README="not a language\n",
    )
    read = corpus(tmp_path)
    assert read.lines == {"de": ("Eins.", "Zwei."), "en": ("One café.", "Two.")}
    assert corpus(tmp_path, ["en"]).langs == ("en",)


def test_an_unknown_code_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(SteerlabError, match="unknown language code 'xx'; known codes: en de"):
        corpus(write(tmp_path, en="One.", xx="Nic."))
    for ask in (
        lambda: corpus(None, ["en", "qq"]),
        lambda: EMBEDDED["qq"],
        lambda: EMBEDDED.select(["qq"]),
    ):
        with pytest.raises(SteerlabError, match="unknown language code 'qq'; known codes: en de"):
            ask()


def test_a_known_language_that_is_not_there_lists_those_that_are() -> None:
    with pytest.raises(SteerlabError, match=r"parallel has no ka\.txt; it has bg de en"):
        corpus(None, ["en", "ka"])
    with pytest.raises(SteerlabError, match="corpus 'parallel' has no 'ka'; it has bg de en"):
        EMBEDDED["ka"]
    with pytest.raises(SteerlabError, match="no language was asked for; .* has bg de en"):
        corpus(None, [])


def test_unequal_lengths_are_told(tmp_path: Path) -> None:
    write(tmp_path, en="One.\nTwo.\n", de="Eins.\nZwei.\nDrei.\n", es="Uno.\nDos.\n")
    with pytest.raises(
        SteerlabError, match=r"not aligned, .*: de 3, en 2, es 2; mend them, or .* texts\(folder\)"
    ):
        corpus(tmp_path)
    assert len(corpus(tmp_path, ["en", "es"])) == 2


@pytest.mark.parametrize("text", ["One.\n\nThree.\n", "One.\n \t\nThree.\n", "One.\nTwo.\n\n"])
def test_empty_lines_are_named(tmp_path: Path, text: str) -> None:
    line = 3 if text.startswith("One.\nT") else 2
    with pytest.raises(
        SteerlabError,
        match=rf"en\.txt line {line} is empty; an aligned corpus has a sentence on each",
    ):
        corpus(write(tmp_path, en=text, de="Eins.\nZwei.\nDrei.\n"))


def test_nothing_to_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        SteerlabError, match=r"there is no folder .*nowhere; give a folder of <iso>\.txt files"
    ):
        corpus(tmp_path / "nowhere")
    with pytest.raises(SteerlabError, match=r"holds no <iso>\.txt files, such as en\.txt"):
        corpus(tmp_path)
    write(tmp_path, en="", de="")
    with pytest.raises(SteerlabError, match="are empty; give at least one line"):
        corpus(tmp_path)
    with pytest.raises(SteerlabError, match=r"de\.txt has no text; give at least one line"):
        texts(tmp_path)


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SteerlabError, match=r"es\.txt is not UTF-8 \(.* at byte 3\); convert it"):
        corpus(write(tmp_path, en="Year.\n", es="El año.\n".encode("latin-1")[1:]))


# Names of files, and where their lines end


NAMES = {
    "yo": ("yo", "yor", "yor_Latn", "YO", "yo-NG"),
    "zh": ("zh", "zho", "zh-cn", "zho_Hans", "zh_Hant", "cmn_Hani"),
    "pt": ("pt", "por", "pt_BR", "pt-PT", "por_Latn"),
    "tl": ("tl", "fil", "tgl_Latn"),
    "ta": ("ta", "tam", "tam_Taml"),
    "srp_Latn": ("srp_Latn", "sr-Latn"),
}


@pytest.mark.parametrize(
    ("code", "name"), [(code, name) for code, names in NAMES.items() for name in names]
)
@pytest.mark.parametrize(
    "ending", [".txt", ".txt.gz", ".TXT", ".Txt.GZ", ".utf8.txt", ".UTF-8.txt"]
)
def test_a_file_is_named_by_any_code_of_its_language(
    code: str, name: str, ending: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write(tmp_path, en="One.\nTwo.\n")
    data = b"Uno.\r\nDos.\r\n"
    (tmp_path / f"{name}{ending}").write_bytes(
        gzip.compress(data) if "gz" in ending.lower() else data
    )
    for read in (corpus, texts):
        found = read(tmp_path)
        assert found.lines == {"en": ("One.", "Two."), code: ("Uno.", "Dos.")}
        assert found[name] == found[code]
        assert read(tmp_path, [name]).langs == read(tmp_path, name).langs == (code,)
        assert found.select([name, "eng"]).langs == (code, "en")
    assert capsys.readouterr().err == ""


def test_what_is_left_out_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write(tmp_path, en="One.", de="Eins.", README="Read me.", sentences="One.")
    (tmp_path / "fr.tsv").write_text("Un.")
    (tmp_path / "es.rst").write_text("Uno.")
    (tmp_path / ".hidden.txt").write_text("Uno.")
    (tmp_path / "it.txt").mkdir()
    (tmp_path / "bad\x1b[31m.txt").write_text("")
    assert corpus(tmp_path).langs == ("de", "en")
    message = capsys.readouterr().err
    assert message.startswith(
        f"steerlab: {tmp_path}: left out README.txt, bad\\x1b[31m.txt, es.rst"
    )
    assert message.endswith(
        "fr.tsv, it.txt/, sentences.txt, not named after a language as en.txt is\n"
    )
    assert corpus(tmp_path, ["en"]).langs == ("en",)
    assert capsys.readouterr().err == "", "who names the languages knows which"
    for file in tmp_path.glob("*.txt"):
        if file.name[:2] in ("en", "de"):
            file.unlink()
    with pytest.raises(SteerlabError, match=r"holds no <iso>\.txt files.*\(there are README\.txt"):
        corpus(tmp_path)


def test_two_files_of_one_language_are_told(tmp_path: Path) -> None:
    write(tmp_path, en="One.", zho_Hans="Yi.", zho_Hant="Yi.", de="Eins.")
    with pytest.raises(
        SteerlabError, match=r"zho_Hans\.txt and zho_Hant\.txt, and each is Chinese \(zh\); leave"
    ):
        corpus(tmp_path)
    assert corpus(tmp_path, ["en", "de"]).langs == ("en", "de"), "the others can be read"
    with pytest.raises(
        SteerlabError, match=r"de\.txt is a file; give a folder of <iso>\.txt files"
    ):
        corpus(tmp_path / "de.txt")
    (tmp_path / "de.txt.gz").write_bytes(gzip.compress(b"Eins."))
    with pytest.raises(SteerlabError, match=r"de\.txt and de\.txt\.gz, and each is German"):
        texts(tmp_path, ["de"])


@pytest.mark.parametrize("end", ["\r", "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_lines_end_at_line_feeds_alone(end: str, newline: str, tmp_path: Path) -> None:
    """A stray character in each file, at different lines, must not shift one against the other."""
    write(
        tmp_path,
        en=newline.join(["One.", f"T{end}wo.", "Three.", "Four.", ""]),
        de=newline.join(["Eins.", "Zwei.", f"D{end}rei.{end}", "Vier.", ""]),
    )
    read = corpus(tmp_path)
    assert read["en"] == ("One.", f"T{end}wo.", "Three.", "Four.")
    assert read["de"] == ("Eins.", "Zwei.", f"D{end}rei.", "Vier.")
    assert texts(tmp_path).lines == read.lines


def test_an_old_macintosh_is_told(tmp_path: Path) -> None:
    write(tmp_path, en="One.\rTwo.\r", de="Eins.\rZwei.\r")
    with pytest.raises(SteerlabError, match=r"de\.txt end with CR alone.*; convert them to LF"):
        corpus(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "another"])
def test_a_damaged_archive_is_told(damage: str, tmp_path: Path) -> None:
    whole = gzip.compress("\n".join(EMBEDDED["en"]).encode())
    noise = whole[:20] + bytes(byte ^ 255 for byte in whole[20:60]) + whole[60:]
    data = {"cut": whole[:99], "noise": noise, "empty": b"\x1f\x8b", "another": b"One."}[damage]
    (tmp_path / "en.txt.gz").write_bytes(data)
    with pytest.raises(
        SteerlabError, match=r"en\.txt\.gz cannot be read \(.*\); give a whole file"
    ):
        corpus(tmp_path)


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    write(tmp_path, en="One.")
    os.mkfifo(tmp_path / "de.txt")
    with pytest.raises(SteerlabError, match=r"de\.txt is a pipe or a device; give the name of a f"):
        corpus(tmp_path)
    (tmp_path / "de.txt").unlink()
    (tmp_path / "de.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SteerlabError, match=r"de\.txt cannot be read \(.*No such file"):
        corpus(tmp_path)


# Unaligned text


def test_unaligned_text_is_read_and_refused_where_pairs_are_needed(tmp_path: Path) -> None:
    read = texts(write(tmp_path, en="One.\n\nTwo.\n", de="Eins.\nZwei.\nDrei.\n"))
    assert read.lines == {"de": ("Eins.", "Zwei.", "Drei."), "en": ("One.", "Two.")}
    assert len(read) == 3
    for refuse in (lambda: read.split("dev"), lambda: read.need_aligned("the split 'dev'")):
        with pytest.raises(
            SteerlabError, match=r"the split 'dev' needs sentences aligned .* corpus\(folder\)"
        ):
            refuse()
    EMBEDDED.need_aligned("what needs pairs")


def test_a_limit_takes_as_much_of_each_unaligned_language(tmp_path: Path) -> None:
    read = texts(
        write(tmp_path, en="\n".join(map(str, range(100))), de="\n".join("abcdefgh"), fr="x\n")
    )
    part = read.take(4)
    assert part.lines == {"de": ("a", "c", "e", "g"), "en": ("0", "25", "50", "75"), "fr": ("x",)}
