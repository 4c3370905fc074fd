"""Templates to text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).with_name("templates")


def render(name: str, facts: Mapping[str, Any], *, escape: bool) -> str:
    """The template `name` filled with `facts`; `escape` what has a meaning in HTML."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"count": lambda number: f"{number:,}", "decimal": decimal}
    return environment.get_template(name).render(facts)


def decimal(number: float, digits: int = 3, *, sign: bool = False) -> str:
    """`number` with `digits` decimal places and a real minus; with a plus where a `sign` is asked for."""
    rounded = round(number, digits) + 0.0  # which makes -0.0 plain 0
    return f"{rounded:{'+' if sign else ''}.{digits}f}".replace("-", "\N{MINUS SIGN}")
