"""What pydantic finds wrong with a value, in the words of those who wrote it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_LONGEST = 100  # characters of what was found
_MAPPING, _LIST = "a mapping of keys to values", "a list"
_KINDS = {
    "int_type": "a whole number", "int_from_float": "a whole number", "float_type": "a number",
    "finite_number": "a finite number", "bool_type": "true or false", "string_type": "text, in quotes",
    "dict_type": _MAPPING, "model_type": _MAPPING, "model_attributes_type": _MAPPING,
    "list_type": _LIST, "tuple_type": _LIST,
}  # fmt: skip
_BOUNDS = {
    "greater_than": ("more than", "gt"), "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"), "less_than_equal": ("at most", "le"),
}  # fmt: skip
_MISSING, _UNKNOWN, _WORDS, _FEW, _MANY = "missing", "extra_forbidden", "value_error", "too_short", "too_long"


def in_words(problem: "ErrorDetails") -> str:
    """What was found and what is expected, in one sentence without the path."""
    kind, context, found = problem["type"], problem.get("ctx", {}), _shown(problem["input"])
    if kind == _MISSING:
        return "missing"
    if kind == _UNKNOWN:
        return "unknown key"
    if kind == _WORDS:  # a validator's own sentence
        said = problem["msg"].removeprefix("Value error, ")
        return said if isinstance(problem["input"], dict) else f"found {found}: {said}"
    if kind in _KINDS:
        expected = _KINDS[kind]
    elif kind in _BOUNDS:
        word, name = _BOUNDS[kind]
        expected = f"{word} {context[name]}"
    elif kind == "literal_error":
        expected = context["expected"]
    elif kind == _FEW:
        expected = f"at least {context['min_length']} of them"
    elif kind == _MANY:
        expected = f"at most {context['max_length']} of them"
    else:  # as of JSON that is none
        return f"{problem['msg'][0].lower()}{problem['msg'][1:]}"
    return f"found {found}, expected {expected}"


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
