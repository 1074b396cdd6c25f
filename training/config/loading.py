"""Frozen dataclasses from YAML, strictly: unknown keys and wrong types are errors that say what to write instead.

A file may name another one it builds on (`base: tiny.yaml`, relative to itself) and then holds only what differs.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from sam2lite_core.errors import ConfigurationError

BASE = "base"
"""The key that names the file to build on."""

T = TypeVar("T")


def load(kind: type[T], path: Path, overrides: Sequence[str] = ()) -> T:
    """Read a configuration file.

    Args:
        kind: the frozen dataclass that the file describes.
        path: the YAML file.
        overrides: `a.b=value`, applied in order; values are YAML.

    Raises:
        ConfigurationError: naming the file, the key and what is allowed.
    """
    document = read_document(path, overrides)
    try:
        return build(kind, document)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None


def read_document(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The file's mapping, laid over that of its base, and overrides as `load` takes them over both.

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
    """What the file itself says, its base as a name.

    Raises:
        ConfigurationError: the file is missing or no YAML mapping.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: not YAML: {error}") from None
    if document is None:
        document = {}
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise ConfigurationError(f"{path}: must hold keys and values, as in `variant: tiny`")
    return document


def parse_override(text: str) -> dict[str, Any]:
    """`a.b=value` as a nested mapping; the value is read as YAML.

    Raises:
        ConfigurationError: no key, no `=`, or a value that is no YAML.
    """
    name, found, value = text.partition("=")
    keys = name.strip().split(".")
    if not found or not all(keys):
        raise ConfigurationError(f"--set {text!r}: write it as key.key=value")
    try:
        document: Any = yaml.safe_load(value)
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


def build(kind: type[T], value: Any, key: str = "") -> T:
    """Make a dataclass from a mapping, nested ones included.

    Args:
        kind: a dataclass.
        value: what YAML gave.
        key: where that stands, dotted; for messages.

    Raises:
        ConfigurationError: an unknown or missing key, or a value of another type; also what `kind` itself refuses.
    """
    if not isinstance(value, dict):
        raise ConfigurationError(f"{key} is {value!r}, expected keys and values")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, kind)) if field.init}
    for name in value:
        if name not in fields:
            raise ConfigurationError(unknown_key(_join(key, str(name)), str(name), list(fields)))
    for name, field in fields.items():
        missing = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if missing and name not in value:
            raise ConfigurationError(f"{_join(key, name)} is missing")
    made = {name: convert(hints[name], entry, _join(key, name)) for name, entry in value.items()}
    try:
        return kind(**made)
    except ConfigurationError as error:
        raise ConfigurationError(f"{key}: {error}" if key else str(error)) from None


def unknown_key(key: str, name: str, allowed: Sequence[str]) -> str:
    """The message for a key that does not exist; suggests the nearest one that does."""
    near = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(sorted(allowed))}"
    return f"unknown key {key!r}; {hint}"


def convert(hint: Any, value: Any, key: str) -> Any:
    """A YAML value as the type that a field declares.

    Raises:
        ConfigurationError: it is of another type; the message names key, value and type.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return build(typing.cast("type[Any]", hint), value, key)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return convert(inner, value, key)
    if origin is typing.Literal:
        if value not in arguments:
            raise ConfigurationError(f"{key} is {value!r}; choose one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        return _convert_tuple(arguments, value, key)
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigurationError(f"{key} is {value!r}, expected keys and values")
        return {name: convert(arguments[1], entry, _join(key, str(name))) for name, entry in value.items()}
    return _convert_scalar(hint, value, key)


def _convert_tuple(arguments: tuple[Any, ...], value: Any, key: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ConfigurationError(f"{key} is {value!r}, expected a list")
    kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
    if len(kinds) != len(value):
        raise ConfigurationError(f"{key} is {value!r}, expected {len(kinds)} values")
    return tuple(
        convert(kind, entry, f"{key}[{index}]")
        for index, (kind, entry) in enumerate(zip(kinds, value, strict=True))
    )


def _convert_scalar(kind: Any, value: Any, key: str) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and isinstance(value, str):
        # YAML 1.1 takes 1e-4 for a string: it wants 1.0e-4.
        try:
            return float(value)
        except ValueError:
            value = str(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise ConfigurationError(f"{key} is {value!r}, expected {_NAMES.get(kind, kind.__name__)}")


_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}


def to_document(value: Any) -> Any:
    """A configuration as YAML takes it; `build` reads it back unchanged."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_document(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [to_document(entry) for entry in value]
    if isinstance(value, dict):
        return {str(name): to_document(entry) for name, entry in value.items()}
    return str(value) if isinstance(value, Path) else value


def dump(value: Any) -> str:
    """A configuration as YAML text."""
    return yaml.safe_dump(to_document(value), sort_keys=False, width=110)


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
