"""Templates to text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).with_name("templates")
SAMPLERS = {
    "ancestral": "ancestral",
    "ancestral_shared": "ancestral, shared noise",
    "ddim": "DDIM",
    "native": "the model’s own",  # noqa: RUF001
}
"""Of `interpolate.methods`, in words."""


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
    environment.filters |= {"count": lambda number: f"{number:,}", "decimal": decimal, "way": way}
    return environment.get_template(name).render(facts)


def way(name: str) -> str:
    """An entry of `interpolate.methods`, such as `slerp_ddim`, in words; a GAN's has no sampler."""
    for sampler, words in SAMPLERS.items():
        if name.endswith(f"_{sampler}"):
            return f"{name.removesuffix(f'_{sampler}')}, {words}"
    return name


def decimal(number: float, digits: int = 3, *, sign: bool = False) -> str:
    """`number` with `digits` decimal places and a real minus; with a plus where a `sign` is asked for."""
    rounded = round(number, digits) + 0.0  # which makes -0.0 plain 0
    return f"{rounded:{'+' if sign else ''}.{digits}f}".replace("-", "\N{MINUS SIGN}")
