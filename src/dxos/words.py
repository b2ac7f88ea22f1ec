"""Full text: what the words of a text are, which texts a search finds, and the part of a text to show for it.

A word is a run of letters and digits, without case and accents.  A search asks for all of its words; `milk*` is the
beginning of a word, and words in quotes stand side by side: `"oat milk" caf*`.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final, final

from msgspec import Struct

from dxos.errors import InvalidValueError
from dxos.limits import SEARCH_CHARS_MAX, SNIPPET_WORDS

_WORD: Final = re.compile(r"[^\W_]{1,128}")  # Longer ones count as several: indexes bound a word's length.
_TERM: Final = re.compile(r'"([^"]*)"?(\*?)|([^\s"]+)')
_REFERENCE_KEY: Final = "/"


@final
class Phrase(Struct, frozen=True):
    """Words that stand side by side."""

    words: tuple[str, ...]  # At least one, each as `split` gives it.
    prefix: bool  # Whether the last is only the beginning of a word.


def split(text: str) -> list[str]:
    """The words of a text."""
    return _WORD.findall(_fold(text))


def _fold(text: str) -> str:
    if text.isascii():
        return text.lower()
    # Twice, because parts of what one character stands for may be capitals.
    decomposed = unicodedata.normalize("NFKD", text.casefold()).casefold()
    return "".join(one for one in decomposed if unicodedata.category(one) != "Mn")


@lru_cache(maxsize=256)
def parse(search: str) -> tuple[Phrase, ...]:
    """The phrases that a search asks for; all must be there.

    Raises:
        InvalidValueError: It has no word, or is too long.
    """
    if len(search) > SEARCH_CHARS_MAX:
        raise InvalidValueError("The search is too long.", chars_max=SEARCH_CHARS_MAX)
    phrases = []
    for match in _TERM.finditer(search):
        quoted, star, bare = match.groups()
        words = split(bare if quoted is None else quoted)
        prefix = star == "*" if quoted is not None else bare.endswith("*")
        if words:
            phrases.append(Phrase(tuple(words), prefix))
    if not phrases:
        raise InvalidValueError(f"There is no word in the search {search!r:.80}.")
    return tuple(phrases)


def texts_in(value: object) -> Iterator[str]:
    """Every text inside a plain value, in order; references and names of properties are none."""
    # A stack and not recursion, because a peer decides how deep a value is.
    rest = [value]
    while rest:
        match rest.pop():
            case str(text):
                yield text
            case list(items):
                rest.extend(reversed(items))
            case dict(items) if not (len(items) == 1 and isinstance(items.get(_REFERENCE_KEY), str)):
                rest.extend(reversed(items.values()))


def found(search: str, value: object) -> bool:
    """Whether the texts inside a value have all that a search asks for."""
    texts = [split(text) for text in texts_in(value)]
    return all(any(_places(phrase, words) for words in texts) for phrase in parse(search))


def snippet(search: str, value: object) -> str:
    """The part of the texts inside a value around the first thing found; what was found is in [brackets]."""
    phrases = parse(search)
    first = ""
    for text in texts_in(value):
        spans = list(_WORD.finditer(unicodedata.normalize("NFC", text)))
        words = ["".join(split(span.group())) for span in spans]
        hits = {
            start + offset
            for phrase in phrases
            for start in _places(phrase, words)
            for offset in range(len(phrase.words))
        }
        if hits:
            return _cut(unicodedata.normalize("NFC", text), spans, hits)
        first = first or text
    # The words were found in pieces of what people see as one.
    return " ".join(first.split()[:SNIPPET_WORDS])


def _places(phrase: Phrase, words: Sequence[str]) -> list[int]:
    """Where the phrase begins among the words."""
    *head, last = phrase.words
    count = len(phrase.words)
    return [
        start
        for start in range(len(words) - count + 1)
        if (words[start + count - 1].startswith(last) if phrase.prefix else words[start + count - 1] == last)
        and words[start : start + count - 1] == head
    ]


def _cut(text: str, spans: Sequence[re.Match[str]], hits: set[int]) -> str:
    begin = max(min(hits) - SNIPPET_WORDS // 2, 0)
    end = min(begin + SNIPPET_WORDS, len(spans))
    pieces, place = ["…" if begin else ""], spans[begin].start() if begin else 0
    for index in range(begin, end):
        span = spans[index]
        word = f"[{span.group()}]" if index in hits else span.group()
        pieces += [text[place : span.start()], word]
        place = span.end()
    pieces.append("…" if end < len(spans) else text[place:])
    return "".join(pieces)
