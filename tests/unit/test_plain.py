"""Text of others commands no terminal and makes no line of its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isc_jobs.spec.plain import plain, plain_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("photo 1.jpg", "photo 1.jpg"),
        ("Größe 写真 🙂\tx", "Größe 写真 🙂\tx"),
        ("a\x1b[31mred\x1b]0;title\x07", r"a\x1b[31mred\x1b]0;title\x07"),
        ("a\r\nv83  finished in 1.0 s", r"a\r\nv83  finished in 1.0 s"),
        ("a\x85b\u2028c\u2029d\x0be", r"a\x85b\u2028c\u2029d\x0be"),
        ("gpj.\u202eexe\u2066", r"gpj.\u202eexe\u2066"),
        ("\x9b31m\x7f\x00", r"\x9b31m\x7f\x00"),
        ("no utf-8: \udcff", r"no utf-8: \udcff"),
    ],
)
def test_what_would_command_a_terminal_is_shown(text: str, shown: str) -> None:
    assert plain(text) == shown


@given(st.text(st.characters(), max_size=50))
def test_any_text_becomes_one_line_that_can_be_encoded(text: str) -> None:
    shown = plain(text)
    shown.encode("utf-8")
    assert len(shown.splitlines()) <= 1
    assert plain(shown) == shown


def test_lines_that_are_meant_stay() -> None:
    assert plain_lines("a\x1bb\n\nc\r\n") == "a\\x1bb\n\nc\\r\n"
