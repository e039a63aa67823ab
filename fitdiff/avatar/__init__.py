"""Avatars as files and pictures: GLB, OBJ, maps, relighting, contact sheets."""

from fitdiff.avatar.avatar import Avatar, expression_offsets
from fitdiff.avatar.export import load_maps, save_glb, save_maps, save_obj
from fitdiff.avatar.load import AvatarError, load_avatar

__all__ = [
    "Avatar",
    "AvatarError",
    "expression_offsets",
    "load_avatar",
    "load_maps",
    "save_glb",
    "save_maps",
    "save_obj",
]
