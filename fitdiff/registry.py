"""The registry names components: Hydra composes and types their configs, `build` makes them.

`@register(kind, name)` turns a constructor into a config: parameters with defaults become typed fields of
``<kind>=<name>``; a default of `MISSING` marks one that must be given, and the component says what is wanted where it
is not; parameters without a default are run-time objects that the caller passes to `build`. Installed packages add
components through the entry-point group `fitdiff.plugins`.
"""

from __future__ import annotations

import copy
import importlib
import importlib.metadata
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import field, make_dataclass
from typing import Any, TypeVar

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from typing_extensions import get_protocol_members

from fitdiff import types

__all__ = ["MISSING", "ComponentError", "build", "load_plugins", "names", "register"]

PROTOCOLS: dict[str, type] = {
    "shape_model": types.ShapeModel,
    "autoencoder": types.Autoencoder,
    "denoiser": types.Denoiser,
    "identity": types.IdentityNetwork,
    "detector": types.Detector,
    "landmarks": types.LandmarkDetector,
    "renderer": types.Renderer,
    "guidance": types.GuidanceTerm,
    "benchmark": types.Benchmark,
}
"""What a built component must look like, for the kinds that others call through a protocol."""

MULTI_SELECT = ("guidance", "stage", "tracker")
"""Kinds of which a run uses several at once: each sits under its own name, as in `guidance.mse.weight`."""

BUILT_INS = (
    "fitdiff.data",
    "fitdiff.shape_model",
    "fitdiff.autoencoder",
    "fitdiff.diffusion",
    "fitdiff.identity",
    "fitdiff.alignment",
    "fitdiff.renderer",
    "fitdiff.guidance",
    "fitdiff.fitting",
    "fitdiff.training",
    "fitdiff.tracker",
    "fitdiff.evaluation.benchmarks",
)

_components: dict[tuple[str, str], Callable[..., Any]] = {}
_plugins_loaded = False
C = TypeVar("C", bound=Callable[..., Any])


class ComponentError(ValueError):
    """A component is unknown, registered twice, or not what its kind asks for."""


def register(kind: str, name: str) -> Callable[[C], C]:
    """Class decorator: make a component selectable as `<kind>=<name>`.

    Raises:
        ComponentError: the name is taken (both modules are named), or a constructor parameter has a default but no
            annotation.
    """

    def decorate(component: C) -> C:
        taken = _components.get((kind, name))
        if taken is not None and _target(taken) != _target(component):
            raise ComponentError(
                f"{kind}={name} is registered twice, by {taken.__module__} and {component.__module__}: rename one"
            )
        _components[kind, name] = component
        package = f"{kind}.{name}" if kind in MULTI_SELECT else kind
        ConfigStore.instance().store(
            group=kind, name=name, node=_config_class(component), package=package, provider="fitdiff"
        )
        return component

    return decorate


def names(kind: str) -> list[str]:
    """Registered names of a kind, sorted."""
    return sorted(name for k, name in _components if k == kind)


def name_of(kind: str, node: Mapping[str, Any]) -> str:
    """The name under which the component of a config node is registered; its target where it is not."""
    target = str(node.get("_target_"))
    return next((n for (k, n), component in _components.items() if k == kind and _target(component) == target), target)


def kinds() -> list[str]:
    """All kinds that have a component, sorted."""
    return sorted({kind for kind, _ in _components})


def load_plugins() -> None:
    """Import the built-in components, then every installed entry point of the group `fitdiff.plugins`. Idempotent.

    Raises:
        ComponentError: a plug-in cannot be imported, or registers a name that is taken; its package is named.
    """
    global _plugins_loaded
    if _plugins_loaded:
        return
    for module in BUILT_INS:
        importlib.import_module(module)
    for entry_point in importlib.metadata.entry_points(group="fitdiff.plugins"):
        _load(entry_point)
    _plugins_loaded = True


def _load(entry_point: importlib.metadata.EntryPoint) -> None:
    try:
        entry_point.load()
    except Exception as error:  # whatever a third party's module raises
        package = entry_point.dist.name if entry_point.dist else entry_point.name
        raise ComponentError(
            f"the plug-in package {package} cannot be loaded ({type(error).__name__}: {error}). "
            f'python -c "import {entry_point.module}" shows where; pip uninstall {package} goes on without it'
        ) from error


def build(node: Mapping[str, Any] | DictConfig, kind: str, **runtime: Any) -> Any:
    """Build a registered component from its config node; nothing else is ever called.

    A plain mapping is taken as it stands: a `${...}` in it stays text. So a config that came with a checkpoint, which
    is a stranger's, reads no environment variable and runs no resolver. (`hydra.utils.instantiate` would resolve it.)

    Args:
        node: config with `_target_` naming a registered component of `kind`, and its parameters.
        runtime: objects for the constructor parameters that have no default.

    Raises:
        ComponentError: the node is no mapping, the target is not registered under `kind`, a mandatory option or a
            run-time object is missing, an option is unknown, the constructor refuses a value by a ValueError, or the
            result lacks an attribute of the kind's protocol.
    """
    config = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else node
    if not isinstance(config, Mapping):
        raise ComponentError(f"{kind}: got {config!r}, expected a mapping with _target_ and options")
    target = config.get("_target_")
    registered = {_target(component): component for (k, _), component in _components.items() if k == kind}
    if target not in registered:
        raise ComponentError(
            f"{kind}: {target!r} is not a registered {kind}. Registered: {', '.join(names(kind)) or 'none'}"
        )
    # Components hold plain values: a nested _target_ would be built by a component that passes its options on.
    _refuse_nested_targets(config, kind)
    component = registered[target]
    options = {name: copy.deepcopy(value) for name, value in config.items() if name != "_target_"}
    _refuse_options(f"{kind} {target}", component, options, runtime)
    try:
        component = component(**{**options, **runtime})
    except ValueError as error:
        if type(error) is not ValueError:  # damaged weights and the like have names of their own
            raise
        raise ComponentError(f"{kind}: {error}") from error
    protocol = PROTOCOLS.get(kind)
    if protocol is not None and not isinstance(component, protocol):
        lacking = sorted(a for a in get_protocol_members(protocol) if not hasattr(component, a))
        raise ComponentError(f"{kind} {target} does not satisfy {protocol.__name__}: it lacks {', '.join(lacking)}")
    return component


def config_of(kind: str, name: str, **overrides: Any) -> dict[str, Any]:
    """The config node of a component with its defaults, as a plain dict: for library use without Hydra's CLI."""
    load_plugins()
    if (kind, name) not in _components:
        raise ComponentError(f"{kind}={name} is unknown. Available: {', '.join(names(kind)) or 'none'}")
    node = OmegaConf.structured(_config_class(_components[kind, name]))
    return OmegaConf.to_container(OmegaConf.merge(node, overrides), resolve=False)  # type: ignore[return-value]


def _target(component: Callable[..., Any]) -> str:
    return f"{component.__module__}.{component.__qualname__}"


def _refuse_nested_targets(value: Any, kind: str, top: bool = True) -> None:
    if isinstance(value, dict):
        if not top and any(str(key).startswith("_") and str(key).endswith("_") for key in value):
            raise ComponentError(f"{kind}: a nested {sorted(value)} is refused: components hold plain values only")
        if top and (extra := {k for k in value if k.startswith("_") and k.endswith("_")} - {"_target_"}):
            raise ComponentError(f"{kind}: {sorted(extra)} is refused: only _target_ is understood")
        for item in value.values():
            _refuse_nested_targets(item, kind, False)
    elif isinstance(value, list):
        for item in value:
            _refuse_nested_targets(item, kind, False)


def _refuse_options(what: str, component: Callable[..., Any], options: Mapping[str, Any], runtime: Any) -> None:
    if missing := [name for name in _runtime_parameters(component) if name not in runtime]:
        raise ComponentError(f"{what}: needs run-time objects {missing} that the caller did not pass")
    known = [name for name in _parameters(component) if name not in _runtime_parameters(component)]
    if unknown := [name for name in options if name not in known]:
        raise ComponentError(f"{what} has no option {unknown}; it has {known}")


def _parameters(component: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    constructor = component.__init__ if inspect.isclass(component) else component
    return {
        name: p
        for name, p in inspect.signature(constructor).parameters.items()
        if name != "self" and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }


def _runtime_parameters(component: Callable[..., Any]) -> list[str]:
    return [name for name, p in _parameters(component).items() if p.default is p.empty]


def _config_class(component: Callable[..., Any]) -> type:
    """Dataclass of the parameters that have defaults, plus `_target_`."""
    constructor = component.__init__ if inspect.isclass(component) else component
    module_globals = vars(importlib.import_module(component.__module__))
    columns: list[Any] = [("_target_", str, field(default=_target(component)))]
    for name, parameter in _parameters(component).items():
        if parameter.default is parameter.empty:
            continue
        annotation = constructor.__annotations__.get(name)
        if annotation is None:
            raise ComponentError(f"{_target(component)}: parameter {name!r} has a default but no annotation")
        if isinstance(annotation, str):
            annotation = eval(annotation, module_globals)
        columns.append((name, _config_type(annotation), _config_field(parameter.default)))
    return make_dataclass(f"{component.__name__}Config", columns)


def _config_type(annotation: Any) -> Any:
    """`tuple[int, ...]` is a list in YAML; everything that OmegaConf cannot type is left to the constructor."""
    if typing.get_origin(annotation) is tuple:
        return list[typing.get_args(annotation)[0]]  # type: ignore[misc]
    return annotation


def _config_field(default: Any) -> Any:
    if isinstance(default, (list, tuple)):
        return field(default_factory=lambda: list(default))
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default))
    return field(default=default)
