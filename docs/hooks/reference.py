"""The generated reference: every registry kind with its components, every primary config, every module's docstrings."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from typing import Any

import griffe
import yaml
from omegaconf import MISSING

from fitdiff import registry
from fitdiff.config import register_schemas

ROOT = Path(__file__).parents[2]
TOP = "fitdiff"
REQUIRED = "(must be given)"


@functools.cache
def pages() -> tuple[tuple[str, str], ...]:
    """(path, Markdown) of every generated page."""
    registry.load_plugins()
    register_schemas()
    return (
        *((f"reference/components/{kind}.md", component_page(kind)) for kind in registry.kinds()),
        *((f"reference/configs/{path.stem}.md", config_page(path)) for path in _primary_configs()),
        *((f"reference/api/{name}.md", api_page(name, modules)) for name, modules in _modules().items()),
    )


def navigation() -> list[Any]:
    """The pages as mkdocs wants them."""
    titles = {"configs": "Commands' configs", "components": "Components", "api": "Python"}
    groups: dict[str, list[Any]] = {folder: [] for folder in titles}
    for path, text in pages():
        groups[path.split("/")[1]].append({text.splitlines()[0].removeprefix("# ").strip("`"): path})
    return [{titles[folder]: items} for folder, items in groups.items()]


def component_page(kind: str) -> str:
    """Every component of a kind: what it is, its options with types, defaults and docstring lines, its presets."""
    several = (
        f"{kind}=[a,b]`, `{kind}.a.key=value" if kind in registry.MULTI_SELECT else f"{kind}=name`, `{kind}.key=value"
    )
    protocol = registry.PROTOCOLS.get(kind)
    promise = f"\n{_first_paragraph(protocol)}\n" if protocol else ""
    parts = [f"# `{kind}`\n\nChosen by `{several}`.\n{promise}"]
    parts += [_component(kind, name) for name in registry.names(kind)]
    presets = sorted((ROOT / "conf" / kind).glob("*.yaml"))
    parts += [f"## Preset `{path.stem}`\n\n```yaml\n{path.read_text().strip()}\n```\n" for path in presets]
    return "\n".join(parts)


def _component(kind: str, name: str) -> str:
    component = registry._components[kind, name]
    node = {key: value for key, value in registry.config_of(kind, name).items() if key != "_target_"}
    described = _described(component)
    annotations = _annotations(component)
    rows = [(key, annotations.get(key, ""), _value(value), described.get(key, "")) for key, value in node.items()]
    where = f"`{component.__module__}.{component.__qualname__}`"
    prefix = f"{kind}.{name}" if kind in registry.MULTI_SELECT else kind
    heading = f"## `{name}`\n\n{where}\n\n{_prose(component)}\n"
    return heading + (f"\n{_table((f'{prefix}.…', 'type', 'default', ''), rows)}\n" if rows else "\nNo options.\n")


def config_page(path: Path) -> str:
    """The keys of a primary config: from its schema's dataclass; then its defaults list."""
    schema = _schema(path)
    groups = [item for item in yaml.safe_load(path.read_text())["defaults"] if isinstance(item, dict)]
    chosen = dict(next(iter(item.items())) for item in groups if not next(iter(item)).startswith("override"))
    own = [(field, comment) for field, comment in _commented(schema) if field.name not in chosen]
    text = _table(("key", "type", "default", ""), [(f.name, _type(f), _value(_default(f)), c) for f, c in own])
    table = _table(("group", "chosen by default"), [(_linked(kind), _value(name)) for kind, name in chosen.items()])
    return f"# `{path.stem}.py`\n\n{_first_paragraph(schema)}\n\n## Keys\n\n{text}\n\n## Groups\n\n{table}\n"


def api_page(name: str, modules: list[str]) -> str:
    """Docstrings of a package's modules, by mkdocstrings; what a package only hands on is shown where it is defined."""
    return "\n".join([f"# `{name}`", *(f"\n## `{module}`\n\n::: {module}\n{_members(module)}" for module in modules)])


def _members(module: str) -> str:
    package = ROOT / module.replace(".", "/") / "__init__.py"
    hands_on = package.exists() and not re.search(r"^(class|def) ", package.read_text(), re.M)
    return "    options: {members: false}\n" if hands_on else ""


def _primary_configs() -> list[Path]:
    """YAMLs of conf/ with a root schema, which are those that an entry point composes."""
    return [path for path in sorted((ROOT / "conf").glob("*.yaml")) if (ROOT / f"{path.stem}.py").exists()]


def _schema(path: Path) -> type:
    """`conf/fit.yaml` -> `fitdiff.config.FitConfig`."""
    return getattr(importlib.import_module("fitdiff.config"), f"{path.stem.capitalize()}Config")


def _modules() -> dict[str, list[str]]:
    """Modules by the package (or top-level module) that a page is made for; entry points of commands are left out."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / TOP).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if parts[-1] == "__main__":
            continue
        found.setdefault(".".join(parts[:2]), []).append(".".join(parts))
    return {name: sorted(modules) for name, modules in sorted(found.items())}


def _linked(kind: str) -> str:
    return f"[{kind}](../components/{kind}.md)" if kind in registry.kinds() else kind


def _docstrings(component: Any) -> Iterator[str]:
    """Docstrings that say what a component's options are: its own, its constructor's, and those it inherits."""
    for one in inspect.getmro(component) if inspect.isclass(component) else (component,):
        if one.__module__.split(".")[0] in ("torch", "builtins", "typing"):
            continue
        yield from (text for text in (one.__doc__, vars(one).get("__init__", one).__doc__) if text)


def _described(component: Any) -> dict[str, str]:
    """Option -> what the docstrings' `Args:` say of it; the nearest class that does not point elsewhere decides."""
    options = "|".join(sorted(_annotations(component), key=len, reverse=True))
    several = re.compile(rf"(?:^|(?<=[.;]) )((?:{options})(?:, (?:{options}))*): ")
    found: dict[str, str] = {}
    elsewhere: dict[str, str] = {}
    for text in _docstrings(component):
        sections = [s for s in _sections(text) if s.kind is griffe.DocstringSectionKind.parameters]
        for parameter in (parameter for section in sections for parameter in section.value):
            # Options that share a line: `steps: of Adam. prior: its weight.`
            words = several.split(f"{parameter.name}: " + " ".join(parameter.description.split()))[1:]
            for names, said in zip(words[::2], words[1::2], strict=True):
                for name in names.split(", "):
                    (elsewhere if said.startswith("see `") else found).setdefault(name, said)
    return elsewhere | found


def _sections(text: str) -> list[Any]:
    return griffe.Docstring(inspect.cleandoc(text)).parse("google", warnings=False)


def _prose(component: Any) -> str:
    """What a docstring says outside of its sections."""
    own = component.__doc__ or ""
    if inspect.isclass(component) and own.startswith(f"{component.__name__}("):  # a dataclass's automatic one
        own = ""
    prose = [s.value for s in _sections(own) if s.kind is griffe.DocstringSectionKind.text]
    return "\n\n".join(prose)


def _first_paragraph(thing: Any) -> str:
    return inspect.cleandoc(thing.__doc__ or "").split("\n\n")[0]


def _annotations(component: Any) -> dict[str, str]:
    constructor = component.__init__ if inspect.isclass(component) else component
    parameters = inspect.signature(constructor).parameters
    return {name: _named(p.annotation) for name, p in parameters.items() if p.annotation is not p.empty}


def _named(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))


def _commented(schema: type) -> Iterator[tuple[Field[Any], str]]:
    """Fields of a dataclass, base classes first, with the comments at the ends of their lines."""
    comments: dict[str, str] = {}
    for one in reversed(inspect.getmro(schema)[:-1]):
        comments |= dict(re.findall(r"^    (\w+):.*?  # (.*)$", inspect.getsource(one), re.M))
    for field in fields(schema):
        yield field, comments.get(field.name, "")


def _type(field: Field[Any]) -> str:
    return "group" if field.type == "Any" else _named(field.type)


def _default(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not NO_DEFAULT else field.default


def _value(value: Any) -> str:
    """A default as it is written on the command line."""
    if value is NO_DEFAULT or (isinstance(value, str) and value == MISSING):
        return REQUIRED
    if is_dataclass(value):
        return "see the group"
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000).strip().removesuffix("...").strip()
    return f"`{text}`"


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Markdown; the first column is code. Angle brackets of docstrings stay what they are."""
    names = [row[0] if "](" in row[0] else f"`{row[0]}`" for row in rows]
    lines = [header, ("---",) * len(header), *((name, *row[1:]) for name, row in zip(names, rows, strict=True))]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    """On one line; outside of code, `<name>` is no tag."""
    parts = re.split(r"(`[^`]*`)", text.replace("|", "\\|").replace("\n", " "))
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;") for part in parts)
