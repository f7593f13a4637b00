"""`kind:name?option=value&option=value`: its parts, and the typed values of its options."""

import collections.abc
import datetime
import difflib
import enum
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import unquote

_LISTED = 24
_LISTS = (list, tuple, collections.abc.Sequence)
_UNWRITABLE = "values of this option cannot be written in a source; leave it at its default"
_YES, _NO = ("1", "true", "yes"), ("0", "false", "no")


def parse_spec(spec: str) -> tuple[str, str, dict[str, str]]:
    """Splits a source into kind, name and options; values may be percent-encoded, a plus sign stays a plus sign.

    Raises:
      ValueError: if a part is missing or an option is given twice.
    """
    kind, colon, rest = spec.partition(":")
    name, _, query = rest.partition("?")
    if not (kind and colon and name):
        raise ValueError(f"data source {spec!r} must look like kind:name?option=value, for example arithmetic:mix")
    options: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        key, equals, value = part.partition("=")
        if not (key and equals):
            raise ValueError(f"data source {spec!r}: {part!r} must look like option=value (write & as %26 in a value)")
        if key in options:
            raise ValueError(f"data source {spec!r}: option {key!r} is given twice; keep one")
        options[key] = unquote(value)
    return kind, unquote(name), options


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, else all of them, as the end of an error message."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(known[:_LISTED])}{', ...' if len(known) > _LISTED else ''}"


def option_types(function: Callable[..., Any]) -> dict[str, Any]:
    """Names and annotations of a function's keyword-only parameters, which are the options it understands."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.annotation for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def typed(options: Mapping[str, str], annotations: Mapping[str, Any]) -> dict[str, Any]:
    """Converts options to the types of the parameters they name.

    Raises:
      ValueError: for an option that is not in `annotations`, naming the nearest, or whose text does not fit its type.
    """
    values = {}
    for key, text in options.items():
        if key not in annotations:
            raise ValueError(f"unknown option {key!r}; {nearest(key, annotations)}")
        try:
            values[key] = convert(text, annotations[key])
        except ValueError as error:
            raise ValueError(f"option {key}={text!r}: {error}") from error
    return values


def convert(text: str, annotation: Any) -> Any:
    """Reads a value of an annotated type: scalars, Optional, Literal, enums, ISO dates, comma-separated lists of those.

    >>> convert("+,-", tuple[str, ...])
    ('+', '-')
    """
    origin, args = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        if text.lower() == "none" and types.NoneType in args:
            return None
        return convert(text, next(arg for arg in args if arg is not types.NoneType))
    if origin is typing.Literal:
        if text not in args:
            raise ValueError(f"it must be one of {', '.join(map(str, args))}")
        return text
    if origin in _LISTS:
        element = args[0] if args else str
        if typing.get_origin(element) in _LISTS:
            raise ValueError(_UNWRITABLE)
        values = [convert(part.strip(), element) for part in text.split(",")]
        return values if origin is list else tuple(values)
    if origin is bool:
        if text.lower() not in _YES + _NO:
            raise ValueError("it must be true or false")
        return text.lower() in _YES
    return _scalar(text, origin)


def _scalar(text: str, kind: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, datetime.date | datetime.time):
        return kind.fromisoformat(text)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        if text not in [member.value for member in kind]:
            raise ValueError(f"it must be one of {', '.join(str(member.value) for member in kind)}")
        return kind(text)
    if kind not in (int, float, str):
        raise ValueError(_UNWRITABLE)
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"it must be {'a whole number' if kind is int else 'a number'}") from None
