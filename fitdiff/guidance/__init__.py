"""Guidance terms, (rendering, photo) -> loss per photo, and the perceptual networks they use."""

from fitdiff.guidance import perceptual, terms

__all__ = ["perceptual", "terms"]
