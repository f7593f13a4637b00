"""Keys of services stay out of configs, which are printed, recorded and passed on: they come from the environment."""

import dataclasses
import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

FIX = "keys come from the environment (JUDGE_API_KEY for the judge, HF_TOKEN for the hub); take it out of the config"

_NAMES = re.compile(
    r"(^|[_\W]|api|auth|access|secret)(key|token|secret|passw(or)?d|authorization|bearer|credentials?)$", re.IGNORECASE
)
_TOKENS = re.compile(r"(^|_)(bos|eos|pad|unk|sep|cls|mask|image|stop|special)_token$", re.IGNORECASE)
"""Tokens of a tokenizer, which are no secrets."""

_KEYS = re.compile(
    r"\b[sr]k-(?=[\w-]*[A-Z])(?=[\w-]*[a-z])(?=[\w-]*\d)[\w-]{16,}|\bhf_[A-Za-z\d]{30,}|\bgsk_[A-Za-z\d]{30,}"
    r"|\bxai-[A-Za-z\d]{30,}|\bAIza[\w-]{30,}|\bgh[ops]_[A-Za-z\d]{30,}|\b(?i:bearer)\s+(?=\S*\d)[\w.~+/-]{16,}"
)


def names_key(name: str) -> bool:
    """Whether a field of this name would hold a key.

    >>> names_key("api_key"), names_key("token"), names_key("X-Secret"), names_key("max_tokens")
    (True, True, True, False)
    """
    return bool(_NAMES.search(name)) and not _TOKENS.search(name)


def refuse_keys(config: Any, section: str = "") -> None:
    """Refuses a config that holds a key: text that looks like one, an address with one, or a field named like one.

    Raises:
      ValueError: names the field, and never what it holds.
    """
    for field in dataclasses.fields(config):
        name, value = f"{section}{field.name}", getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            refuse_keys(value, f"{name}.")
        elif isinstance(value, dict):
            for key, item in value.items():
                if names_key(str(key)) or _holds_key(item):
                    raise ValueError(f"{name} has {str(key)!r}, which looks like a key; {FIX}")
        elif any(map(_holds_key, value if isinstance(value, tuple) else (value,))):
            raise ValueError(f"{name} holds what looks like a key; {FIX}")


def _holds_key(value: Any) -> bool:
    """Whether a text holds a key, or is an address, or a source of data, with a password or a key in it."""
    if not isinstance(value, str):
        return False
    if _KEYS.search(value):
        return True
    if any(character.isspace() for character in value):
        return False
    try:
        address = urlsplit(value)
    except ValueError:
        return False
    return bool(address.password) or any(names_key(name) for name, _ in parse_qsl(address.query))
