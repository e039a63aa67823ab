"""FitDiff: relightable 3D faces from photos by guided latent diffusion (WACV 2025), as an open framework."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fitdiff.model import FitDiff

__all__ = ["FitDiff"]


def __getattr__(name: str) -> Any:
    """Import `FitDiff` on first use: plug-ins and tools that need the registry alone should not wait for it."""
    if name == "FitDiff":
        from fitdiff.model import FitDiff

        return FitDiff
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
