"""Data sets: synthetic people (`people`), folders that users bring (`folder`), finished sets by URL (`shards`)."""

from fitdiff.data import ffhq_uv_intrinsics, folder, people, read_only

__all__ = ["ffhq_uv_intrinsics", "folder", "people", "read_only"]
