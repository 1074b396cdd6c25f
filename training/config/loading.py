"""Read configurations from YAML; a file may build on another (`base: tiny.yaml`, relative to itself)."""

import difflib
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pydantic_core
import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from sam2lite_core.errors import ConfigurationError

BASE = "base"
"""The key that names the file to build on."""

RENAMED = {
    "optimizer": {"average": "ema_decay", "clip": "max_grad_norm", "decay": "weight_decay"},
    "stages": {"final": "min_lr_ratio", "rate": "learning_rate"},
}
"""New names of keys of older checkpoints and configurations, by part."""

T = TypeVar("T")

# Reads 1e-4 as a number, as YAML 1.2 does; 1.1 wants 1.0e-4.
_Loader = type("_Loader", (yaml.SafeLoader,), {})
_SCIENTIFIC = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
yaml.add_implicit_resolver("tag:yaml.org,2002:float", _SCIENTIFIC, list("-+0123456789"), Loader=_Loader)


def load(kind: type[T], path: Path, overrides: Sequence[str] = ()) -> T:
    """Read a configuration of a pydantic dataclass, with overrides `a.b=value`, whose values are YAML.

    Raises:
        ConfigurationError: naming the file, the key and the allowed values.
    """
    document = read_document(path, overrides)
    try:
        return build(kind, document)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None


def read_document(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a file's mapping over that of its base, and overrides over both.

    Raises:
        ConfigurationError: a file is missing, no YAML mapping, or builds on itself; or an override is no `a.b=value`.
    """
    document = _over_base(path, ())
    for override in overrides:
        document = merge(document, parse_override(override))
    return document


def _over_base(path: Path, below: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in below:
        raise ConfigurationError(f"{path}: builds on itself")
    document = read_mapping(path)
    base = document.pop(BASE, None)
    if base is None:
        return document
    if not isinstance(base, str):
        raise ConfigurationError(f"{path}: {BASE} is {base!r}, expected the name of a file beside this one")
    return merge(_over_base(path.parent / base, (*below, path.resolve())), document)


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a file's own mapping, without its base.

    Raises:
        ConfigurationError: the file is missing or no YAML mapping.
    """
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: not YAML: {error}") from None
    document = {} if document is None else document
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise ConfigurationError(f"{path}: must hold keys and values, as in `variant: tiny`")
    return document


def parse_override(text: str) -> dict[str, Any]:
    """Turn `a.b=value` into a nested mapping; the value is read as YAML.

    Raises:
        ConfigurationError: no key, no `=`, or a value that is no YAML.
    """
    name, found, value = text.partition("=")
    keys = name.strip().split(".")
    if not found or not all(keys):
        raise ConfigurationError(f"--set {text!r}: write it as key.key=value")
    try:
        document: Any = yaml.load(value, _Loader)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"--set {text!r}: the value is not YAML: {error}") from None
    for key in reversed(keys):
        document = {key: document}
    return typing.cast("dict[str, Any]", document)


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another; nested mappings are merged, anything else is replaced."""
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        out[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return out


def build(kind: type[T], document: Mapping[str, Any]) -> T:
    """Make a configuration from a mapping of YAML values, paths and tuples.

    Raises:
        ConfigurationError: one line that names every wrong key, its value and the expected one.
    """
    try:
        # Strict JSON turns lists into tuples and text into paths, but 1 is not true.
        return TypeAdapter(kind).validate_json(pydantic_core.to_json(document), strict=True)
    except ValidationError as error:
        raise ConfigurationError("; ".join(_explain(kind, entry) for entry in _deepest(error))) from None


def _deepest(error: ValidationError) -> list[ErrorDetails]:
    """Leave out errors that follow from another: a list whose only entry is wrong is not too short."""
    found = error.errors()
    inner = {entry["loc"][:depth] for entry in found for depth in range(len(entry["loc"]))}
    return [entry for entry in found if entry["loc"] not in inner]


def _explain(kind: Any, error: ErrorDetails) -> str:
    where = error["loc"]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).removeprefix(".")
    if error["type"] == "unexpected_keyword_argument":
        return _unknown_key(key, str(where[-1]), _keys(kind, where[:-1]))
    if error["type"] in ("missing", "missing_argument"):
        return f"{key} is missing"
    if error["type"] == "value_error":
        return f"{key}: {error['ctx']['error']}" if key else str(error["ctx"]["error"])
    expected = re.sub(r"^(Input should be|Tuple should have) ", "", error["msg"])
    expected = expected.replace("greater than or equal to", "at least").replace("less than or equal to", "at most")
    return f"{key} is {error['input']!r}, expected {expected}"


def _unknown_key(key: str, name: str, allowed: Sequence[str]) -> str:
    """Word the error of an unknown key, with its new name, the nearest one, or all that are allowed."""
    near = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(sorted(allowed))}"
    if new := RENAMED.get(key.split(".")[0], {}).get(name):
        hint = f"its name is {new!r} now"
    return f"unknown key {key!r}; {hint}"


def _keys(kind: Any, where: tuple[int | str, ...]) -> list[str]:
    """List the keys of the nested configuration at a place."""
    for part in where:
        kind = typing.get_type_hints(kind)[part] if isinstance(part, str) else typing.get_args(kind)[0]
        if type(None) in typing.get_args(kind):
            (kind,) = (inner for inner in typing.get_args(kind) if inner is not type(None))
    return list(typing.get_type_hints(kind))


def with_new_names(document: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the keys of an older configuration, as `RENAMED` says."""

    def renamed(part: str, keys: Mapping[str, Any] | None) -> dict[str, Any] | None:
        return None if keys is None else {RENAMED[part].get(name, name): value for name, value in keys.items()}

    stages = {name: renamed("stages", stage) for name, stage in document.get("stages", {}).items()}
    return {**document, "stages": stages, "optimizer": renamed("optimizer", document.get("optimizer"))}


def to_document(value: Any) -> Any:
    """Turn a configuration into plain values that `build` reads back unchanged."""
    return TypeAdapter(type(value)).dump_python(value, mode="json")


def dump(value: Any) -> str:
    """Write a configuration as YAML text."""
    return str(yaml.safe_dump(to_document(value), sort_keys=False, width=110))
