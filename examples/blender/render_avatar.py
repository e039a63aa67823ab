"""Render an avatar in Blender, smiling: `blender --background --python render_avatar.py -- avatar.glb picture.png`.

Runs as well under a Python with Blender as a module (package bpy). Written for Blender 4.2 and later.
"""

import sys
from pathlib import Path

import bpy
from mathutils import Vector

EXPRESSION = {"mouthSmileLeft": 0.7, "mouthSmileRight": 0.7, "jawOpen": 0.15, "browInnerUp": 0.4}
"""Blendshape -> weight in [0, 1]: names of ARKit, as face capture sends them."""


def look_at(thing: bpy.types.Object, target: Vector) -> None:
    """Turn a camera or lamp (which look along -z) towards a point."""
    thing.rotation_euler = (target - thing.location).to_track_quat("-Z", "Y").to_euler()


def main(avatar: str, picture: str) -> None:
    """Import the GLB, set its shape keys, light it from the side, and write a PNG of 512 x 512."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.import_scene.gltf(filepath=str(Path(avatar).resolve()))
    face = next(thing for thing in bpy.context.scene.objects if thing.type == "MESH")
    for name, weight in EXPRESSION.items():
        face.data.shape_keys.key_blocks[name].value = weight
    corners = [face.matrix_world @ Vector(corner) for corner in face.bound_box]
    centre = sum(corners, Vector()) / 8  # metres; glTF's +z (out of the face) is Blender's -y
    scene = bpy.context.scene
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.data.lens = 85
    camera.location = centre + Vector((0.2, -0.62, 0.03))
    lamp = bpy.data.objects.new("lamp", bpy.data.lights.new("lamp", "AREA"))
    lamp.data.energy, lamp.data.size = 18, 0.4
    lamp.location = centre + Vector((-0.5, -0.5, 0.8))
    for thing in (camera, lamp):
        scene.collection.objects.link(thing)
        look_at(thing, centre)
    scene.camera = camera
    scene.world = bpy.data.worlds.new("world")
    scene.world.color = (0.12, 0.12, 0.12)
    scene.render.engine = "CYCLES"
    scene.cycles.samples = 32
    scene.view_settings.view_transform = "Standard"
    scene.render.resolution_x = scene.render.resolution_y = 512
    scene.render.filepath = str(Path(picture).resolve())
    bpy.ops.render.render(write_still=True)


if __name__ == "__main__":
    words = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else sys.argv[1:]
    main(*words)
