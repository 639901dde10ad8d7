"""The engine behind the explorer: a frozen setting goes in, tokens come out.

The page, the notebook and the tests all use it; it knows of no browser.
"""

import time
from collections import OrderedDict
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from steerlab.core.corpus import Corpus, as_corpus
from steerlab.core.directions import Direction, Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.generated import Token
from steerlab.core.languages import language
from steerlab.edits import OPERATORS, Edit, EditStats, steer
from steerlab.engine.cross_entropy import bits_per_byte
from steerlab.engine.prompts import INSTRUCTED, SUFFIXES, prompt
from steerlab.engine.shots import SHOT_FORMS, read_shots, shots, with_number
from steerlab.engine.token_stream import stream
from steerlab.estimate import VARIANTS
from steerlab.models.loading import load
from steerlab.scores.langid import NONE, identifier
from steerlab.scores.text import first_line
from steerlab.studies.explore.setting import Setting, Steering
from steerlab.sweeps.fits import fit
from steerlab.sweeps.methods import suits
from steerlab.sweeps.own import Own

Side = Literal["unsteered", "steered"]
REMEMBERED = 64  # unsteered outputs, which no slider changes


@dataclass(frozen=True)
class Said:
    """One token as it comes.

    Args:
        side: whether it is of the steered output.
        text: what it adds to the output.
        probability: that the model gave it, from 0 to 1.
        lang: the language that its position votes for; None where it votes for none.
        projection: what lies along the direction there; None where it has none.
    """

    side: Side
    text: str
    probability: float
    lang: str | None
    projection: float | None


@dataclass(frozen=True)
class Told:
    """What is being done that takes longer than a token, in words."""

    message: str


@dataclass(frozen=True)
class Done:
    """A finished output.

    Args:
        side: whether it is the steered one.
        text: its first line.
        lang: the language that it is in, by the language identifier; "none" where it has none.
        name: that language's name, in words.
        probability: the identifier's, that it is.
        asked: whether it is the target language.
        dose: how far the edit moved the residual stream, over its length (see `EditStats`).
        bits: bits per byte of the output, by the model as it is; NaN for an empty one.
        seconds: from the first token's beginning to the last's end.
    """

    side: Side
    text: str
    lang: str
    name: str
    probability: float
    asked: bool
    dose: float
    bits: float
    seconds: float


Event = Said | Told | Done


@dataclass
class Session:
    """A model, directions, and what is remembered of both; one thread uses it at a time.

    Args:
        model: what `load` takes.
        directions: `Directions`, several by name, or a file of them; None fits them from the
            corpus, each when it is first asked for.
        corpus: the sentences that directions are fitted from and examples of prompts are taken
            from: what `as_corpus` takes, by default those in the package.
        files: where the directions lie on disk, by name, so that a command can name them.
        estimators: the names that may be fitted; by default all that need nothing but the texts.
        options: keywords of `load` for a model that is given by its name.
    """

    model: Any
    directions: Directions | Mapping[str, Directions] | Path | None = None
    corpus: Corpus | str | Path | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    estimators: tuple[str, ...] = tuple(VARIANTS)
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # By their names a line of Python and a command can load them again.
        by_name = self.model is None or isinstance(self.model, (str, Path))
        self.named = str(self.model or "polyglot") if by_name else None
        self.folder = str(self.corpus) if isinstance(self.corpus, (str, Path)) else None
        self.model = load(self.model, **self.options)
        self.texts = as_corpus(self.corpus)
        given = self.directions
        if isinstance(given, Path):
            read = Directions.load(given)
            self.files = {read.estimator: given}
            given = {read.estimator: read}
        if isinstance(given, Directions):
            given = {given.estimator: given}
        self.own = Own(directions=dict(given or {}))
        self.identifier = identifier()
        self._fits: dict[tuple[str, str], Directions] = {
            (name, ""): directions for name, directions in self.own.directions.items()
        }
        self._unsteered: OrderedDict[Setting, list[Event]] = OrderedDict()

    # --------------------------------------------------------------------------- what can be set

    @property
    def names(self) -> tuple[str, ...]:
        """The directions that may be asked for: those that were given, else what can be fitted."""
        return tuple(self.own.directions) or self.estimators

    def operators(self, estimator: str) -> tuple[str, ...]:
        """The operators that can act along an estimator's directions."""
        return tuple(name for name in OPERATORS if suits(name, estimator, self.own))

    @property
    def langs(self) -> tuple[str, ...]:
        """The languages that can be source or target."""
        given = next(iter(self.own.directions.values()), None)
        return self.texts.langs if given is None else given.langs

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers at which there are directions."""
        given = next(iter(self.own.directions.values()), None)
        return tuple(range(self.model.n_layers)) if given is None else given.layers

    @property
    def forms(self) -> list[str]:
        """Forms of prompts that this model can take; any other that `prompt` knows may be given."""
        plain = ["line"]
        if getattr(self.model.tokenizer, "chat_template", None):
            plain.append("chat")
        asking = [f"{form}+{suffix}" for form in plain for suffix in SUFFIXES if form in INSTRUCTED]
        return [*plain, *map(with_number, SHOT_FORMS), "instructed", *asking]

    def need(self, setting: Steering) -> None:
        """Raise where the setting asks for what is not here, before any work."""
        if setting.estimator not in self.names:
            raise SteerlabError(
                f"there are no directions {setting.estimator!r}; there are {', '.join(self.names)}"
            )
        if setting.operator not in OPERATORS:
            raise SteerlabError(
                f"there is no operator {setting.operator!r}; there are {', '.join(OPERATORS)}"
            )
        possible = self.operators(setting.estimator)
        if setting.operator not in possible:
            raise SteerlabError(
                f"{setting.operator} cannot act along {setting.estimator}; these can: "
                f"{', '.join(possible)}"
            )
        for lang in (setting.source, setting.target):
            if lang not in self.langs:
                raise SteerlabError(
                    f"there is no direction for {language(lang).name} ({lang}); there are "
                    f"{' '.join(self.langs)}"
                )
        if setting.source == setting.target:
            raise SteerlabError(
                f"source and target are both {setting.source!r}; a direction needs two languages"
            )

    # ------------------------------------------------------------------------------ what comes out

    def run(self, setting: Setting) -> Generator[Event, None, None]:
        """Say what is said under a setting, token by token: first steered, then unsteered.

        The unsteered output is remembered, so that moving a slider runs the steered one alone.
        Raises `SteerlabError` for a setting that cannot be, before any token.
        """
        self.need(setting)
        if not self.is_fitted(setting):
            yield Told(f"fitting {setting.estimator} from {self.texts.name}, once")
        edit = self.edit(setting)
        direction = self.direction(setting)
        text = self.prompt(setting)
        yield from self._say("steered", text, setting, edit, direction)
        # The operator and its strength are all that an unsteered output does not hang on.
        key = setting.model_copy(update={"operator": "", "strength": 0.0})
        if key in self._unsteered:
            yield from self._unsteered[key]
            return
        said: list[Event] = []
        for event in self._say("unsteered", text, setting, None, direction):
            said.append(event)
            yield event
        self._unsteered[key] = said
        if len(self._unsteered) > REMEMBERED:
            self._unsteered.popitem(last=False)

    def is_fitted(self, setting: Steering) -> bool:
        """Whether a setting's directions are at hand."""
        return bool(
            {(setting.estimator, ""), (setting.estimator, setting.source)} & set(self._fits)
        )

    def fitted(self, setting: Steering) -> Directions:
        """The directions of a setting, fitted at their first use and kept."""
        own = self._fits.get((setting.estimator, ""))
        if own is not None:
            return own
        key = (setting.estimator, setting.source)
        if key not in self._fits:
            layers = range(self.model.n_layers)
            fits = fit(
                self.model, self.texts, [setting.estimator], layers=layers, source=setting.source
            )
            self._fits[key] = fits[setting.estimator]
        return self._fits[key]

    def edit(self, setting: Steering) -> Edit:
        """The edit of a setting."""
        directions = self.fitted(setting)
        if not OPERATORS[setting.operator].whole:  # which acts on all layers, whatever is asked
            directions = directions.at(*setting.layers)
        return steer(
            setting.operator,
            directions,
            setting.strength,
            source=setting.source,
            target=setting.target,
        )

    def direction(self, setting: Steering) -> Direction | None:
        """The direction that tokens are projected on: that of the last layer that is edited; None
        where there is none."""
        try:
            last = self.fitted(setting).at(setting.layers[-1])
            return last.between(setting.source, setting.target)
        except SteerlabError:  # an operator may act on other languages or layers than these
            return None

    def prompt(self, setting: Setting) -> str:
        """What the model reads."""
        form, pair = setting.prompt, (setting.source, setting.target)
        return prompt(
            self.model.tokenizer,
            form,
            setting.text,
            source=setting.source,
            target=setting.target,
            shots=shots(self.texts, form, *pair) if read_shots(form) else (),
        )

    def _say(
        self,
        side: Side,
        text: str,
        setting: Setting,
        edit: Edit | None,
        direction: Direction | None,
    ) -> Iterator[Event]:
        """The tokens of one output, and what is to be said of it in the end."""
        begun = time.perf_counter()
        with self.model.turns.taken():
            tokens: list[Token] = []
            stats = EditStats()
            options: dict[str, Any] = {
                "max_new_tokens": setting.new_tokens,
                "temperature": setting.temperature,
                "seed": setting.seed,
                "direction": direction,
            }
            if edit is None:
                for token in stream(self.model, text, **options):
                    tokens.append(token)
                    yield _said(side, token)
            else:
                # Around the stream, so that what the edit did can be read off when it ends.
                with edit.on(self.model) as stats:
                    for token in stream(self.model, text, **options):
                        tokens.append(token)
                        yield _said(side, token)
            seconds = time.perf_counter() - begun
            output = first_line("".join(token.text for token in tokens))
            [lang], [probability] = self.identifier.weigh([output])
            yield Done(
                side,
                output,
                lang,
                "no language" if lang == NONE else language(lang).name,
                float(probability),
                lang == setting.target,
                float(stats.doses(1)[0]) if edit is not None else 0.0,
                bits_per_byte(self.model, output),
                seconds,
            )


def _said(side: Side, token: Token) -> Said:
    return Said(side, token.text, token.probability, token.lang, token.projection)
