"""The only reader of `params.yaml`."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.dataclasses import dataclass
from ruamel.yaml import YAML, YAMLError

from ddpm.config import STRICT, ConfigError, parse

T = TypeVar("T")

FILE = Path("params.yaml")
SCALARS = ("data", "model", "epochs", "seed")
PARTS = ("network", "recipe", "sampling", "autoencoder")
"""Of an entry of `models`; what else it has is a `ModelEntry`."""
MAPS = (
    "sources",
    "models",
    "extract",
    "diffusion",
    "train",
    "tune",
    "sample",
    "interpolate",
    "rank",
    "evaluate",
    "likelihood",
    "runtime",
)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Top:
    """The parameters that are no sections."""

    data: str
    model: str
    epochs: int
    seed: int

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.seed < 0:
            raise ValueError(f"epochs must be at least 1 and seed at least 0, not {self.epochs} and {self.seed}")


def _as_name(value: Any) -> Any:
    """A category that YAML reads as a whole number, as text; of other values it isn't known how they were written."""
    if isinstance(value, bool | float | None):
        raise ValueError("a category is text: write it in quotes")
    return str(value) if isinstance(value, int) else value


def _is_name(value: str) -> str:
    """Names become parts of paths and of URLs: nothing leads out of a folder, is hidden, or cannot be seen."""
    if value.startswith(".") or value != value.strip() or not value.isprintable() or re.search(r"[/\\{}]|^$", value):
        raise ValueError("a category is a folder's name: not empty, no /, \\, { or }, no dot or space in front")
    return value


Category = Annotated[str, BeforeValidator(_as_name), AfterValidator(_is_name)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Source:
    """What every entry of `sources` has. The label of a category is its place in the list."""

    kind: str
    categories: Annotated[tuple[Category, ...], Field(min_length=1)]

    def __post_init__(self) -> None:
        name, times = Counter(self.categories).most_common(1)[0]
        if times > 1:
            raise ValueError(f"categories has {name} twice")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelEntry:
    """What every entry of `models` has beside its parts: stage `train` trains a diffusion model, stage `gan` a GAN.

    A model learns pixels, or the `latents` of an autoencoder, whose part is `autoencoder`. `image_size` is the only
    `extract.size` that it is made for; `log_snr_shift` is added to the logarithm of the signal-to-noise ratio.
    """

    kind: Literal["diffusion", "gan"]
    space: Literal["pixels", "latents"]
    image_size: Annotated[int, Field(ge=1)] | None
    log_snr_shift: Annotated[float, Field(allow_inf_nan=False)]

    def __post_init__(self) -> None:
        if self.kind == "gan" and (self.space, self.log_snr_shift) != ("pixels", 0):
            raise ValueError("kind = gan: makes pixels and has no noise, so space is pixels and log_snr_shift 0")


class Params:
    """`params.yaml` of the working directory, by section."""

    def __init__(self, values: Mapping[str, Any]):
        unknown = [key for key in values if key not in SCALARS + MAPS]
        if unknown:
            raise ConfigError(f"{FILE}: {unknown[0]}: no such parameter; there are {', '.join(SCALARS + MAPS)}")
        self.values = values
        self.top = parse(Top, {key: values[key] for key in SCALARS if key in values}, str(FILE))

    def section(self, cls: type[T], *path: str) -> T:
        """The mapping at `path` (`"models", "tiny", "network"`) as a validated `cls`."""
        return parse(cls, self.mapping(*path), f"{FILE}: {'.'.join(path)}")

    def source(self) -> Source:
        """The kind and the categories of `sources.<data>`."""
        values = self.mapping("sources", self.top.data)
        common = {key: values[key] for key in ("kind", "categories") if key in values}
        return parse(Source, common, f"{FILE}: sources.{self.top.data}")

    def model(self) -> ModelEntry:
        """What the chosen model is beside its parts.

        Raises:
            ConfigError: also where it is made for images of another size, or lacks its autoencoder.
        """
        name = f"{FILE}: models.{self.top.model}"
        values = self.mapping("models", self.top.model)
        own = {key: value for key, value in values.items() if key not in PARTS}
        entry = parse(ModelEntry, own, name)
        size = self.mapping("extract").get("size")
        if entry.image_size not in (None, size):
            raise ConfigError(f"{name} is for images of {entry.image_size} px: add -S extract.size={entry.image_size}")
        if (entry.space == "latents") != (values.get("autoencoder") is not None):
            raise ConfigError(f"{name}.space = {entry.space}: latents, and they alone, have an autoencoder")
        return entry

    def mapping(self, *path: str) -> Mapping[str, Any]:
        """The mapping at `path` as it stands in the file.

        Raises:
            ConfigError: naming what there is instead.
        """
        found: Any = self.values
        for depth, key in enumerate(path):
            if not isinstance(found, Mapping) or key not in found:
                parent = ".".join(path[:depth]) or "top level"
                names = ", ".join(map(str, found)) if isinstance(found, Mapping) else "nothing"
                raise ConfigError(f"{FILE}: {'.'.join(path[: depth + 1])}: not there; {parent} has {names}")
            found = found[key]
        if not isinstance(found, Mapping):
            raise ConfigError(f"{FILE}: {'.'.join(path)} = {found!r}: must be a mapping")
        return found


def read_params(changes: Mapping[str, Mapping[str, Any]] = MappingProxyType({})) -> Params:
    """Read `params.yaml` as YAML 1.2: `1e-05`, as `dvc exp run -S` writes it, is a number there.

    `changes` are put over sections of it, by section.
    """
    try:
        values = YAML(typ="safe").load(FILE)
    except YAMLError as error:
        raise ConfigError(f"{FILE}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, Mapping):
        raise ConfigError(f"{FILE}: must hold a mapping")
    params = Params(values)
    return Params({**values, **{name: {**params.mapping(name), **changed} for name, changed in changes.items()}})


def read_value(text: str, where: str, *, listed: bool) -> Any:
    """A value as it may stand in `params.yaml`: 3, true, ddim, [lerp, slerp] or nothing; if `listed`, one is a list.

    Raises:
        ConfigError: what stands at `where` is no such thing.
    """
    try:
        value = YAML(typ="safe").load(text)
    except YAMLError:
        raise ConfigError(f"{where} = {text!r}: not YAML") from None
    return [value] if listed and not isinstance(value, list) else value


@contextmanager
def naming(section: str) -> Iterator[None]:
    """Say to which section of `params.yaml` a value belongs that is impossible."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{FILE}: {section}: {error}") from None
