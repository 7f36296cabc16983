"""Text for people; that of others (names of files, words of servers) as it may be shown on a line, terminal or page."""

import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches

_ORDERS = {"Cc", "Cs", "Zl", "Zp"}  # control characters, halves of pairs (bytes of names), separators of lines
_TURNS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # of writing direction


def plain(text: str) -> str:
    r"""The text on one line: what would command a terminal or turn the writing direction becomes ``\x1b``, ``\u202e``.

    A tab stays. Whatever the text holds, it can be encoded.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character in _TURNS or (unicodedata.category(character) in _ORDERS and character != "\t"):
        return character.encode("unicode_escape").decode()
    return character


def counted(count: int, one: str, more: str) -> str:
    """How many of what: ``1 picture``, ``2,000 pictures``."""
    return f"{count:,} {one if count == 1 else more}"


def expected_one_of(word: str, known: Iterable[str]) -> str:
    """What to say of a word that is none of those known: the likeliest, or all of them."""
    names = list(known)
    near = get_close_matches(word, names, 1)
    return f"is {near[0]} meant?" if near else f"expected one of {', '.join(names)}"


def plain_lines(text: str) -> str:
    """The same of text whose lines are meant, as a log's."""
    return "\n".join(map(plain, text.split("\n")))
