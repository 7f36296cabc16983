"""Reading settings: a named profile or a YAML file, what it extends, and ``key=value`` overrides."""

from collections.abc import Iterable
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from isc_jobs.spec.documents import LONGEST, parse_yaml
from isc_jobs.spec.errors import UsageError
from isc_jobs.spec.plain import expected_one_of
from isc_jobs.spec.problems import in_words
from isc_jobs.spec.settings import Settings

PROFILES = ("demo", "isc21")
_MISSING_SHOWN, _UNKNOWN_SHOWN = 5, 10
_FEW = 6  # keys that are all named instead of the likeliest
_MOST_FILES = 20
_MOST_PARTS = 20  # of a key's path


def load_settings(profile: str, overrides: Iterable[str] = (), *, deployed: Iterable[dict[str, Any]] = ()) -> Settings:
    """Settings of a profile name or YAML file, then those of a cluster, then overrides.

    Raises UsageError that names the key's path.
    """
    values = _read_profile(profile, seen=())
    for part in deployed:
        values = _merge(values, part)
    for override in overrides:
        values = _merge(values, _parse_override(override))
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise UsageError(_explain(error, profile)) from error


def _read_profile(profile: str, seen: tuple[str, ...]) -> dict[str, Any]:
    if profile in seen:
        raise UsageError(f"profile {profile} extends itself: {' -> '.join((*seen, profile))}")
    if len(seen) >= _MOST_FILES:
        raise UsageError(f"profile {seen[0]} extends more than {_MOST_FILES} files, one another: {profile} is the next")
    values = parse_yaml(_profile_text(profile, seen[-1] if seen else None), profile)
    if not isinstance(values, dict):
        raise UsageError(f"{profile} holds {type(values).__name__}, expected a mapping of settings")
    base = values.pop("extends", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise UsageError(f"{profile}: extends: found {base!r}, expected a profile name or file")
    if base not in PROFILES and profile not in PROFILES:
        base = str(Path(profile).parent / base)
    return _merge(_read_profile(base, (*seen, profile)), values)


def _profile_text(profile: str, by: str | None) -> str:
    """The text of a profile or file, which the file ``by`` extends."""
    where = f"{by}: extends: " if by else ""
    if profile in PROFILES:
        return resources.files("isc_jobs.spec.profiles").joinpath(f"{profile}.yaml").read_text("utf-8")
    if not profile.endswith((".yaml", ".yml")):
        raise UsageError(f"{where}unknown profile {profile!r}: {expected_one_of(profile, PROFILES)}, or a .yaml file")
    try:
        with Path(profile).open(encoding="utf-8") as file:
            return file.read(LONGEST + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else f"it is no UTF-8 text ({error})"
        raise UsageError(f"{where}cannot read the settings file {profile}: {why}") from error


def _parse_override(override: str) -> dict[str, Any]:
    path, equals, text = override.partition("=")
    if not equals or not all(path.split(".")) or path.count(".") >= _MOST_PARTS:
        raise UsageError(f"--set {override[:100]!r}: expected key=value, as trainings.v83.lr=0.01")
    value: Any = parse_yaml(text, f"--set {path}")
    for part in reversed(path.split(".")):
        value = {part: value}
    assert isinstance(value, dict)
    return value


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Changes over base, mapping by mapping; anything but two mappings is replaced."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _explain(error: ValidationError, profile: str) -> str:
    unknown = [problem["loc"] for problem in error.errors() if problem["type"] == "extra_forbidden"]
    known = load_settings("isc21").model_dump() if unknown else {}
    problems = [f"{'.'.join(map(str, loc))}: unknown key{_likely(loc, known)}" for loc in unknown[:_UNKNOWN_SHOWN]]
    if len(unknown) > _UNKNOWN_SHOWN:
        problems.append(f"{len(unknown) - _UNKNOWN_SHOWN} more unknown keys")
    missing: list[str] = []
    for problem in error.errors():
        path = ".".join(str(part) for part in problem["loc"]) or "settings"
        if problem["type"] == "extra_forbidden":
            continue
        if problem["type"] == "missing":
            missing.append(path)
        else:
            problems.append(f"{path}: {in_words(problem)}")
    if len(missing) > _MISSING_SHOWN:
        problems.append(f"{len(missing)} keys are missing: a file that changes some has a line 'extends: isc21'")
    else:
        problems += [f"{path}: missing" for path in missing]
    return f"settings of {profile}: {'; '.join(problems)}"


def _likely(loc: tuple[int | str, ...], known: Any) -> str:
    """The key among ``known`` settings that an unknown one is most like, as a question; all keys if they are few."""
    for part in loc[:-1]:
        known = known.get(part) if isinstance(known, dict) else None
    names = [*known] if isinstance(known, dict) else []
    if 0 < len(names) <= _FEW:
        return f", expected {', '.join(names)}"
    found = get_close_matches(str(loc[-1]), [*names, "extends"] if len(loc) == 1 else names, 1)
    return f", is {found[0]} meant?" if found else ""
