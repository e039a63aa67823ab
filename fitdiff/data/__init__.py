"""Data sets: synthetic people (`people`), folders that users bring (`folder`); read back as shards."""

from fitdiff.data import ffhq_uv_intrinsics, folder, people

__all__ = ["ffhq_uv_intrinsics", "folder", "people"]
