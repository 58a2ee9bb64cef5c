"""Turns texts into token numbers by a vocabulary, which training texts make and a bundle keeps.

A word is a run of letters, digits and underscores, or any other single sign; a character is one. Texts are in the NFC
form of Unicode, with white space as one space. Token numbers are those of ``learners/networks/tokens.py``: 0 fills up,
1 stands for every token outside of the vocabulary.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from metaloom.learners.episode import TaskShape
from metaloom.learners.networks.tokens import FIRST, TEXT, UNKNOWN
from metaloom.workers.data.base import DataError, some

WORDS, CHARACTERS = "words", "characters"
LENGTHS = {WORDS: 24, CHARACTERS: 96}  # of an example, where no other is asked for
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class FittedText:
    """How a text becomes token numbers.

    Attributes:
        column: The column of a table that holds it.
        length: How many token numbers an example has; of a longer text the first are taken.
        vocabulary: The tokens, of which the first has the number ``FIRST``.
        tokens: ``words`` or ``characters``.
        lower: Whether letters become small ones.
        kind: ``text``.
    """

    column: str
    length: int
    vocabulary: tuple[str, ...]
    tokens: str = WORDS
    lower: bool = True
    kind: str = TEXT

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Read it from JSON; raises DataError for anything else."""
        try:
            text = cls(**{**document, "vocabulary": tuple(map(str, document["vocabulary"]))})
        except (KeyError, TypeError) as error:
            raise DataError(f"the task's text is not what this metaloom can read ({error})") from error
        if text.tokens not in LENGTHS or not isinstance(text.length, int) or text.length < 1:
            raise DataError(f"the task's text is not what this metaloom can read (tokens: {text.tokens!r})")
        return text

    @classmethod
    def of_task(cls, task: TaskShape) -> Self | None:
        """Return how a task's texts become token numbers; None where its examples are no text."""
        document = next((one for one in task.columns if one.get("kind") == TEXT), None)
        return None if document is None else cls.of(document)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**asdict(self), "vocabulary": list(self.vocabulary)}

    def numbers(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """Return the token numbers of texts, [texts, length]; 0 behind a text's end."""
        places = {token: FIRST + place for place, token in enumerate(self.vocabulary)}
        found = np.zeros((len(texts), self.length), dtype=np.int32)
        for row, text in enumerate(texts):
            taken = tokens_of(text, self.tokens, lower=self.lower)[: self.length]
            found[row, : len(taken)] = [places.get(token, UNKNOWN) for token in taken]
        return found


def tokens_of(text: str, kind: str, *, lower: bool) -> list[str]:
    """Divide a text into its words or characters."""
    plain = " ".join(unicodedata.normalize("NFC", text.lower() if lower else text).split())
    return _WORD.findall(plain) if kind == WORDS else list(plain)


def fit_vocabulary(texts: Iterable[str], kind: str, *, lower: bool, least: int, most: int) -> tuple[str, ...]:
    """Return the tokens of training texts, the most frequent first.

    Args:
        texts: The training texts.
        kind: ``words`` or ``characters``.
        lower: Whether letters become small ones.
        least: How often a token has to stand in them.
        most: How many are kept.

    Raises:
        DataError: No token stands there so often.
    """
    counts = Counter(token for text in texts for token in tokens_of(text, kind, lower=lower))
    frequent = sorted((-count, token) for token, count in counts.items() if count >= least)[:most]
    if not frequent:
        raise DataError(
            f"tasks.least_count: none of the {len(counts)} {kind} of the training texts stands there {least} times or "
            f"more (the most frequent: {some([token for token, _ in counts.most_common(5)])}); lower it"
        )
    return tuple(token for _, token in frequent)


def told(fitted: FittedText, texts: Sequence[str], numbers: NDArray[np.int32], *, unseen: str) -> str:
    """Say what became of texts: their vocabulary, how many are cut off, and how many tokens are outside of it.

    ``unseen`` names those of other classes or parts than training's.
    """
    cut = sum(len(tokens_of(text, fitted.tokens, lower=fitted.lower)) > fitted.length for text in texts)
    there = int((numbers > 0).sum())
    share = int((numbers == UNKNOWN).sum()) / max(there, 1)
    return (
        f"{len(texts)} texts, {len(fitted.vocabulary)} different {fitted.tokens} of the training texts; {share:.1%} of "
        f"all {fitted.tokens} ({unseen} included) are none of these, and taken as one unknown token; {cut} texts are "
        f"longer than {fitted.length}, and cut off there"
    )
