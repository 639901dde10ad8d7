"""An output as judges and scores are given it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """An output and what it came from: the prompt as the model read it, and the question or
    sentence in it."""

    output: str
    prompt: str
    question: str
    sentence: int  # its number in the corpus' files
    source: str
    target: str
    language: str = ""  # that the output is in, once it is identified
