"""A second recognition network, which did not guide the fits that it judges."""

from __future__ import annotations

from typing import Any

from fitdiff.evaluation.benchmark import BenchmarkError
from fitdiff.registry import build, config_of, name_of


def build_judge(model: Any, name: str) -> Any:
    """The identity network of a registered name, on the model's device.

    Raises:
        BenchmarkError: it is the network that guides the model's fits. ComponentError: there is none of this name.
        FileNotFoundError: it has no weights here; says where they are to be had.
    """
    if name == name_of("identity", model.config["identity"]):
        raise BenchmarkError(f"benchmark.judge={name}: fits were guided by it; give another network, or null")
    return build(config_of("identity", name), "identity").to(model.device).eval()
