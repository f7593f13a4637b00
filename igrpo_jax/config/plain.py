"""A config as nested dictionaries, and its values by name; what older versions called otherwise is put right."""

import dataclasses
from typing import Any

FORMER = {"algorithm.scale_rewards": {True: "group", False: "none"}}
"""Values that fields once had, and what they are today."""


def today(name: str, value: Any) -> Any:
    """A field's value, perhaps a former one, as it is today."""
    return FORMER[name][value] if name in FORMER and isinstance(value, bool) else value


def to_dict(config: Any) -> dict:
    """The config as JSON-ready nested dictionaries."""
    return dataclasses.asdict(config)


def fields(config: dict) -> dict[str, Any]:
    """The values of such dictionaries by `section.field`; those that older versions wrote are as they are today.

    >>> fields({"seed": 1, "algorithm": {"scale_rewards": False}})
    {'seed': 1, 'algorithm.scale_rewards': 'none'}
    """
    sections = {name: value if isinstance(value, dict) else {"": value} for name, value in config.items()}
    flat = {
        f"{section}.{name}".rstrip("."): value for section, part in sections.items() for name, value in part.items()
    }
    return {name: today(name, value) for name, value in flat.items()}
