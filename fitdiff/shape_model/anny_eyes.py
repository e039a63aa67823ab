"""Eyeballs of the embedded face model: gaze is a rotation, so eyeballs keep their shape under the lids.

MakeHuman's gaze targets move vertices along straight lines, which leaves the eyeball's sphere by up to 10 %. A person's
eyeball is an affine image `p J + c` of one sphere of points p; looking somewhere replaces p by `p R`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fitdiff.geometry import rotation_matrix

GAZE = {
    "eyeLookDownLeft": (16, 0, 0), "eyeLookUpLeft": (-11, 0, 0),
    "eyeLookInLeft": (0, -22, 0), "eyeLookOutLeft": (0, 22, 0),
    "eyeLookDownRight": (16, 0, 0), "eyeLookUpRight": (-11, 0, 0),
    "eyeLookInRight": (0, 22, 0), "eyeLookOutRight": (0, -22, 0),
}  # fmt: skip
"""Rotation about x, y, z in degrees at weight 1: shifts the pupil as far as MakeHuman's targets, which the lids fit."""

BLINK_OVERLAP = 0.8
"""mm by which closed lids pass one another in the middle, so that they meet towards the corners too."""

LID_HEIGHT, LID_ANGLE = 6.0, 65.0
"""What may slide over an eyeball: skin less than this many mm above it, within this angle (degrees) of its axis."""
LID_CLEARANCE = 0.4
"""mm that sliding skin keeps from the eyeball, unless it lies nearer on the neutral face, as the lids' edges do."""

LIDS = (((43, 44), (46, 47)), ((37, 38), (40, 41)))
"""Landmarks on the margins of the upper and lower lids, left and right."""

BUFFERS = ("eye_vertices", "eye_rest", "eye_frame", "sliding_vertices", "lid_vertices", "blink_closing")


class EyeRig(nn.Module):
    """Turns the eyeballs, closes the lids of narrow and wide eyes alike, and keeps them outside of the eyeballs.

    Sides are in the order left, right.

    Args:
        tensors: `eye_vertices` (2, n) int64 ids; `eye_rest` (2, n, 3) mm, p; `eye_frame` (2, 4, n), which makes
            (J, c) from the vertices; `sliding_vertices` (2, m) int64, skin near the eyeballs; `lid_vertices`
            (2, 2, n) int64 on the upper and lower margins; `blink_closing` () mm by which `eyeBlink*` brings these
            together at weight 1.
        expression_names: the (E,) actions.
    """

    eye_vertices: Tensor
    eye_rest: Tensor
    eye_frame: Tensor
    sliding_vertices: Tensor
    lid_vertices: Tensor
    blink_closing: Tensor
    gaze: Tensor
    blink: Tensor

    def __init__(self, tensors: dict[str, Tensor], expression_names: Sequence[str]) -> None:
        super().__init__()
        gaze = torch.zeros(len(expression_names), 2, 3, dtype=torch.float64)
        for row, name in zip(gaze, expression_names, strict=True):
            row[int(name.endswith("Right"))] = torch.tensor(GAZE.get(name, (0, 0, 0))) * (math.pi / 180)
        blink = torch.tensor([[name == f"eyeBlink{side}" for name in expression_names] for side in ("Left", "Right")])
        stored = {name: tensors[name] for name in BUFFERS}
        for name, tensor in {**stored, "gaze": gaze.float(), "blink": blink.float()}.items():
            self.register_buffer(name, tensor, persistent=False)

    def frames(self, vertices_BV3: Tensor) -> Tensor:
        """Affine map (B, 2, 4, 3) of each eyeball's sphere of points p: three rows of J, and the centre c in mm."""
        return self.eye_frame.to(vertices_BV3) @ vertices_BV3[:, self.eye_vertices]

    def fit_blinks(self, neutral_BV3: Tensor, expression_BE: Tensor) -> Tensor:
        """Weights (B, E) of the linear actions with which a blink of 1 just closes this person's lids."""
        upper, lower = neutral_BV3[:, self.lid_vertices, 1].mean(-1).unbind(-1)
        excess = (upper - lower + BLINK_OVERLAP) / self.blink_closing.to(neutral_BV3) - 1
        return expression_BE * (1 + excess @ self.blink.to(neutral_BV3))

    def forward(self, neutral_BV3: Tensor, moved_BV3: Tensor, expression_BE: Tensor) -> Tensor:
        """Turn the eyeballs, and let skin that the linear actions moved into them slide over them instead.

        Args:
            neutral_BV3, moved_BV3: mm, before and after the linear actions, which leave the eyeballs alone.
            expression_BE: weights of all actions.

        Returns:
            (B, V, 3) mm. Differentiable almost everywhere.
        """
        frames = self.frames(neutral_BV3)
        rotation = rotation_matrix(torch.einsum("be,esx->bsx", expression_BE, self.gaze.to(expression_BE)))
        rest = self.eye_rest.to(neutral_BV3)
        turn = (rest @ rotation.transpose(-1, -2) - rest) @ frames[:, :, :3]
        ids = torch.cat([self.eye_vertices, self.sliding_vertices], 1).flatten()
        slide = self._slide(neutral_BV3[:, self.sliding_vertices], moved_BV3[:, self.sliding_vertices], frames)
        return moved_BV3.index_add(1, ids, torch.cat([turn, slide], 2).flatten(1, 2))

    def _slide(self, neutral_BSM3: Tensor, moved_BSM3: Tensor, frames_BS43: Tensor) -> Tensor:
        """Offsets outwards that keep points from coming nearer than `LID_CLEARANCE`, or than they were."""
        linear, centre = frames_BS43.split([3, 1], 2)
        to_sphere = torch.linalg.inv(linear)
        before, after = (((points - centre) @ to_sphere).norm(dim=-1) for points in (neutral_BSM3, moved_BSM3))
        floor = before.clamp_max(self.eye_rest[0, 0].to(before).norm() + LID_CLEARANCE)
        return (moved_BSM3 - centre) * ((floor / after).clamp_min(1) - 1)[..., None]


def eyeball_tensors(
    points: np.ndarray, eyeballs: np.ndarray, centres: np.ndarray, skin: np.ndarray, mirror: np.ndarray
) -> dict[str, np.ndarray]:
    """What `EyeRig` needs to know of the eyeballs and of what slides over them.

    Args:
        points: (V, 3) mm, vertices of the undeformed face, whose eyeballs are spheres.
        eyeballs: (2, n) ids of the left and of the right eyeball's vertices.
        centres: (2, 3) mm of the spheres.
        skin: (V,) bool. mirror: (V,) each vertex's mirror image.
    """
    rest = points[eyeballs] - centres[:, None]
    frame = np.linalg.pinv(np.concatenate([rest, np.ones_like(rest[..., :1])], -1))
    offset = points - centres[0]
    distance = np.linalg.norm(offset, axis=1)
    axis = rest[0].mean(0) / np.linalg.norm(rest[0].mean(0))
    near = (distance < np.linalg.norm(rest[0, 0]) + LID_HEIGHT) & (
        offset @ axis > np.cos(np.radians(LID_ANGLE)) * distance
    )
    left = np.flatnonzero(skin & near)
    return {
        "eye_vertices": eyeballs,
        "eye_rest": rest,
        "eye_frame": frame,
        "sliding_vertices": np.stack([left, mirror[left]]),
    }


def lid_tensors(landmarks: np.ndarray, blink: np.ndarray) -> dict[str, np.ndarray]:
    """What `EyeRig` needs to know of the lids, from the landmarks' vertices (68, n) and `eyeBlinkLeft` (V, 3) in mm."""
    lids = landmarks[np.array(LIDS)].reshape(2, 2, -1)
    upper, lower = blink[lids[0], 1].mean(-1)
    return {"lid_vertices": lids, "blink_closing": lower - upper}
