"""Data sets: synthetic people (`people`), read back as shards."""

from fitdiff.data import people

__all__ = ["people"]
