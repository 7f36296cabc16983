"""YAML and JSON from outside: read within bounds, and refused in a sentence."""

import json
from typing import Any

import yaml

from isc_jobs.spec.errors import DataError, UsageError

LONGEST = 1 << 20  # characters of a YAML document
_MOST_VALUES = 100_000  # of it, each counted as often as aliases repeat it
_DEEPEST = 50
_MOST_BITS = 128  # of a whole number


class _Loader(yaml.SafeLoader):
    """Makes plain values alone, and looks no deeper than it has to: each level makes the scanner slower."""

    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        """A bracket or brace; raises RecursionError for too many."""
        if self.flow_level >= _DEEPEST:
            raise RecursionError
        super().fetch_flow_collection_start(token)

    def add_indent(self, column: int) -> bool:
        """A deeper line; raises RecursionError for too many."""
        if len(self.indents) > _DEEPEST:
            raise RecursionError
        return bool(super().add_indent(column))

    def number(self, node: yaml.ScalarNode) -> int:
        """A whole number, of which Python would take any, but not show any."""
        value: int = self.construct_yaml_int(node)
        if value.bit_length() > _MOST_BITS:
            raise ValueError(f"a number of {value.bit_length()} bits")
        return value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.number)


def parse_yaml(text: str, name: str) -> Any:
    """The one document of a text called ``name``; nothing in it is run. Raises UsageError."""
    if len(text) > LONGEST:
        raise UsageError(f"{name} has {len(text)} characters, at most {LONGEST} are read: it is no settings file")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {}, name, 0)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise UsageError(f"{name} is not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise UsageError(f"{name} is nested too deeply: at most {_DEEPEST} levels are read") from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:  # of values that their tag or form belie
        raise UsageError(f"{name} holds a value that cannot be read: {' '.join(str(error).split())}") from error


def _count(node: yaml.Node, known: dict[int, int], name: str, depth: int) -> int:
    """Values beneath a node, itself included; raises UsageError for too many or too deep ones."""
    if depth > _DEEPEST:  # as a value within itself is
        raise UsageError(f"{name} is nested too deeply: at most {_DEEPEST} levels are read")
    if id(node) not in known:
        children: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            children = [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_count(child, known, name, depth + 1) for child in children)
    if known[id(node)] > _MOST_VALUES:
        raise UsageError(f"{name} holds more than {_MOST_VALUES} values, as often as its aliases repeat them")
    return known[id(node)]


def parse_json(data: bytes | str, name: str) -> dict[str, Any]:
    """The JSON object of an object or file called ``name``; raises DataError for anything else."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} is damaged: it is no JSON ({' '.join(str(error).split())})") from error
    if not isinstance(value, dict):
        raise DataError(f"{name} is damaged: it holds {type(value).__name__}, expected a JSON object")
    return value
