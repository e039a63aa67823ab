"""What stands above an experiment's tables: when it was measured, of which settings, by which command."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fitdiff.config import config_hash


def origin(results: Iterable[Mapping[str, Any]]) -> str:
    """Date of the newest result, hash of everything that decides the figures, and the commits, where they differ.

    Args:
        results: what `evaluate.py` wrote, read again or measured now: its code may be of several commits.
    """
    found = list(results)
    settings = config_hash(*sorted(result["config_hash"] for result in found))
    commits = sorted({_commit(result) for result in found})
    several = f" Measured by the code of several commits: {', '.join(commits)}." if len(commits) > 1 else ""
    return f"Measured: {max(result['date'] for result in found)[:10]}. Settings: {settings}.{several}"


def _commit(result: Mapping[str, Any]) -> str:
    git = result["provenance"]["git"] or {}
    return (git.get("commit") or "unknown")[:7] + (" with changes" if git.get("changes") else "")
