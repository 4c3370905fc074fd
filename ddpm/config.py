"""Strict parameters: frozen keyword-only dataclasses that reject unknown keys, wrong types and impossible values."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

STRICT = ConfigDict(extra="forbid", strict=True)
"""Use as `@dataclass(frozen=True, kw_only=True, config=STRICT)` with pydantic's `dataclass`."""

T = TypeVar("T")


class ConfigError(ValueError):
    """A parameter is unknown, missing, of the wrong type or impossible; the message is one line."""


def parse(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build `cls` from `values`; `where` names their place (`models.tiny.network`) in the error.

    Raises:
        ConfigError: the key, the value and what is allowed.
    """
    try:
        # As JSON, because strict validation takes a JSON array for a tuple and nothing else for anything else.
        # YAML has dates too: as text they are refused, or taken for the name that was meant.
        return TypeAdapter(cls).validate_json(json.dumps(values, allow_nan=True, default=str))
    except ValidationError as error:
        raise ConfigError(_one_line(error, where)) from None


def _one_line(error: ValidationError, where: str) -> str:
    first = error.errors()[0]
    key = ".".join([where, *(str(part) for part in first["loc"])])
    match first["type"]:
        case "unexpected_keyword_argument":
            return f"{key}: no such parameter"
        case "missing" | "missing_argument" | "missing_keyword_only_argument":
            return f"{key}: missing"
    message = first["msg"].removeprefix("Value error, ")
    return f"{key} = {json.dumps(first['input'])}: {message[0].lower()}{message[1:]}"
