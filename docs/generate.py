"""Writes what pages have of the code and of benchmarks, `python -m docs.generate`: parameters.md, and parts of others.

Run it from the root of the repository.
"""

import ast
import inspect
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from ruamel.yaml import YAML

from benchmarks import classes, comparison
from benchmarks import sizes as larger
from stages.fetch.stage import KINDS
from stages.kit.params import ModelEntry, Top, read_params
from tools.check import AUTOENCODER, MODEL, SECTIONS

ROOT = Path(__file__).parents[1]
BOUNDS = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}"}
HEAD = """\
# Parameters

Made by `python -m docs.generate` from the dataclasses that read `params.yaml` and the comments in it; a test compares.
`dvc exp run -S KEY=VALUE` changes one. "Empty" is nothing behind the colon, `-S KEY=null`. Whether parameters fit
together, such as `attention` and `extract.size`, is checked by the stage that reads them; `dvc repro` asks
`python -m tools.check` before it downloads, resizes images from elsewhere or trains whether later stages will accept
theirs.
"""


def parameters() -> str:
    """`parameters.md`."""
    params, said = read_params(), comments((ROOT / "params.yaml").read_text(encoding="utf-8"))
    pages = [HEAD, table("Top level", Top, {"default": {key: params.values[key] for key in Top.__annotations__}}, said)]
    for kind, (config, _) in KINDS.items():
        entries = {name: entry for name, entry in params.mapping("sources").items() if entry["kind"] == kind}
        pages.append(table(f"`sources.<name>` of kind `{kind}`", config, entries, said, "sources.{}."))
    models = params.mapping("models")
    pages.append(table("`models.<name>`", ModelEntry, models, said, "models.{}."))
    for kind, parts in MODEL.items():
        for part, config in parts.items():
            entries = {name: model[part] for name, model in models.items() if model["kind"] == kind}
            title = f"`models.<name>.{part}` of kind `{kind}`"
            pages.append(table(title, config, entries, said, f"models.{{}}.{part}."))
    for part, config in AUTOENCODER.items():
        entries = {name: model["autoencoder"][part] for name, model in models.items() if model["autoencoder"]}
        name = f"autoencoder.{part}"
        pages.append(table(f"`models.<name>.{name}`", config, entries, said, f"models.{{}}.{name}."))
    for name, config in SECTIONS.items():
        pages.append(table(f"`{name}`", config, {"default": params.mapping(name)}, said, f"{name}."))
    return "\n".join(pages)


def comments(text: str) -> dict[str, str]:
    """What stands behind a `#` on the line of each key of a YAML file in block style, by dotted key."""
    found: dict[str, str] = {}
    path: list[str] = []
    for line in text.splitlines():
        if match := re.match(r"( *)(\w+):([^#]*)(?:# *(.*))?$", line):
            path[len(match[1]) // 2 :] = [match[2]]
            if match[4]:
                found[".".join(path)] = match[4]
    return found


def table(
    title: str, config: type, entries: Mapping[str, Mapping[str, Any]], said: Mapping[str, str], place: str = ""
) -> str:
    """A section: the docstring of `config`, and a line for each field, with its value in each of `entries`.

    Its meaning is the first comment that one of them has at `place`, which names the entry as {}.
    """
    names = list(entries)
    lines = [f"## {title}", "", *(inspect.getdoc(config) or "").splitlines(), ""]
    lines += [f"| key | allowed | {' | '.join(names)} | meaning |", f"|---|---|{'---|' * len(names)}---|"]
    for field, schema in TypeAdapter(config).json_schema()["properties"].items():
        values = [shown(entries[name].get(field)) for name in names]
        meaning = next(filter(None, (said.get(f"{place.format(name)}{field}") for name in names)), "")
        lines.append(f"| `{field}` | {allowed(schema)} | {' | '.join(values)} | {meaning} |")
    return "\n".join([*lines, ""])


def allowed(schema: Mapping[str, Any]) -> str:
    """The values of a field, from its JSON schema."""
    if "anyOf" in schema:  # or null
        return f"{allowed(schema['anyOf'][0])}, or empty"
    if "items" in schema:
        return f"list of {allowed(schema['items'])}"
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    return ", ".join([schema["type"], *(text.format(schema[key]) for key, text in BOUNDS.items() if key in schema)])


def shown(value: Any) -> str:
    """A value as `-S` takes it."""
    if value is None:
        return ""
    if isinstance(value, list):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def file_of(module: str) -> Path:
    """Where `module` or package lies, relative to the repository."""
    path = Path(module.replace(".", "/"))
    return path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py")


def imports_of(module: str) -> set[str]:
    """Names of our modules that `module` imports itself."""
    tree = ast.parse((ROOT / file_of(module)).read_text(encoding="utf-8"))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    ours = {name for name in names if name.startswith(("ddpm.", "stages.", "tools."))}
    return {name for name in ours if (ROOT / f"{name.replace('.', '/')}.py").exists()}


def modules(package: str) -> list[str]:
    """The modules of `package` and of the packages in it, sorted."""
    paths = [
        path.relative_to(ROOT) for path in (ROOT / package.replace(".", "/")).rglob("*.py") if path.stem != "__init__"
    ]
    return sorted(".".join(path.with_suffix("").parts) for path in paths)


def room(module: str) -> str:
    """The package in `ddpm`, `stages` or `tools` that `module` lies in, or its own name where it lies in none."""
    return module.split(".")[1]


def graph(package: str) -> str:
    """Mermaid of the imports between the rooms of `package`, without those that a longer way shows as well."""
    edges: dict[str, set[str]] = {}
    for module in modules(package):
        targets = {room(target) for target in imports_of(module) if target.startswith(f"{package}.")}
        edges.setdefault(room(module), set()).update(targets - {room(module)})
    lines = ["```mermaid", "flowchart LR"]
    for name, targets in sorted(edges.items()):
        beyond = set().union(*(reached(edges, target) for target in targets))
        lines += [f"\t{name} --> {target}" for target in sorted(targets - beyond)]
    return "\n".join([*lines, "```"])


def reached(edges: Mapping[str, set[str]], name: str) -> set[str]:
    """What `name` imports, directly or not, but for itself."""
    return edges[name].union(*(reached(edges, target) for target in edges[name]))


def uses() -> str:
    """A table of the packages of `ddpm` and of `stages/shared` that each stage imports."""
    lines = ["| stage | packages of `ddpm` | packages of `stages/shared` |", "|---|---|---|"]
    for name in YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]:
        names = set().union(*map(imports_of, modules(f"stages.{name}")))
        rooms = {room(target) for target in names if target.startswith("ddpm.")}
        shared = {target.split(".")[2] for target in names if target.startswith("stages.shared.")}
        lines.append(f"| `{name}` | {listed(rooms)} | {listed(shared)} |")
    return "\n".join(lines)


def stages() -> str:
    """A table of what each stage reads, code aside, and writes, and of the parameters that it depends on."""
    lines = ["| stage | reads | writes | parameters |", "|---|---|---|---|"]
    for name, stage in YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"].items():
        outs = [out for kind in ("outs", "metrics", "plots") for out in stage.get(kind, [])]
        cells = (
            [dep for dep in stage["deps"] if not dep.startswith(("ddpm", "stages"))],
            [next(iter(out)) if isinstance(out, dict) else out for out in outs],
            stage.get("params", []),
        )
        lines.append(f"| [`{name}`](../stages/{name}/stage.py) | {' | '.join(map(listed, cells))} |")
    return "\n".join(lines)


def listed(names: Iterable[str]) -> str:
    """As code, sorted."""
    return ", ".join(f"`{name}`" for name in sorted(names)) or "nothing"


def systems() -> str:
    """A table of all systems that benchmarks have compared, as far as they draw churches."""
    heads = ["system", "seed", "images seen", "evaluations", "seconds for 64", "KID", "precision", "recall"]
    lines = [f"| {' | '.join(heads)} | command |", f"|---|{'---:|' * (len(heads) - 1)}---|"]
    for row in rows_of("comparison"):
        seconds = f"{row['seconds']['median']:.2f}" if row["seconds"] else ""
        quality = f"{estimated(row['kid'])} | {row['precision_alexnet']:.2f} | {row['recall_alexnet']:.2f}"
        images = f"{row['images']:,} | {row['evaluations']:,} | {seconds}"
        lines.append(f"| {row['says']} | {row['seed']} | {images} | {quality} | `{command_of(row)}` |")
    for row in rows_of("classes"):
        if "church" in row["classes"] and "images" in row:
            church = row["classes"]["church"]
            quality = " | ".join(f"{church[number]['value']:.2f}" for number in ("precision", "recall"))
            command = f"python -m benchmarks.classes {row['system']} --seeds {row['seed']}"
            numbers = f"{row['images']:,} | | | {estimated(church['kid'])} | {quality}"
            lines.append(f"| {row['says']} | {row['seed']} | {numbers} | `{command}` |")
    return "\n".join(lines)


def sizes() -> str:
    """A table of what was trained at several sizes, by pixels and by latents."""
    heads = ["seed", "minutes", "images seen", "images a second", "KID", "precision", "recall", "KID at its own size"]
    lines = [f"| system | {' | '.join(heads)} | floor | command |", f"|---|{'---:|' * (len(heads) + 1)}---|"]
    for row in rows_of("sizes"):
        small, seconds, floor = row["small"], row["seconds"], row["autoencoder"]
        cells = [row["says"], str(row["seed"]), f"{row['minutes']:.0f}", f"{row['images']:,}"]
        cells += [f"{64 / seconds['median']:.1f}" if seconds else "", estimated(small["kid"])]
        cells += [f"{small[number]['value']:.2f}" for number in ("precision", "recall")]
        cells += [estimated(row["own"]["kid"]), f"{floor['kid']['decoded']['value']:.3f}" if floor else ""]
        cells += [f"`python -m benchmarks.sizes {row['system']} --seeds {row['seed']}`"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def rows_of(benchmark: str) -> list[dict[str, Any]]:
    """What a benchmark has found."""
    rows: list[dict[str, Any]] = json.loads((ROOT / f"benchmarks/results/{benchmark}.json").read_text())["rows"]
    return rows


def command_of(row: Mapping[str, Any]) -> str:
    """What runs a system again."""
    return " -S ".join(["dvc exp run", *row["options"], f"seed={row['seed']}"])


def estimated(estimate: Mapping[str, float]) -> str:
    """The value and its interval."""
    return f"{estimate['value']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"


def filled(page: Path, parts: Mapping[str, str]) -> str:
    """PAGE as it is, with what stands between each pair of its markers made anew."""
    text = page.read_text(encoding="utf-8")
    for name, made in parts.items():
        start, end = f"<!-- generated: {name} -->\n", f"<!-- end: {name} -->"
        before, rest = text.split(start)
        text = f"{before}{start}{made}\n{end}{rest.split(end)[1]}"
    return text


def generated() -> dict[Path, str]:
    """The content of each page that is made of the code or of benchmarks, wholly or in part."""
    tables = {
        "classes": classes.table,
        "classes_photos": classes.table,
        "comparison": comparison.table,
        "sizes": larger.table,
    }
    parts = {
        "docs/architecture.md": {"stages": stages(), "ddpm": graph("ddpm"), "uses": uses()},
        "docs/systems.md": {"systems": systems(), "sizes": sizes()},
        "benchmarks/README.md": {name: table(rows_of(name)) for name, table in tables.items()},
    }
    made = {ROOT / name: filled(ROOT / name, each) for name, each in parts.items()}
    return {ROOT / "docs" / "parameters.md": parameters(), **made}


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")
