"""`renderer=torch`: the differentiable renderer, on CPU and CUDA with nothing but torch (and numba on the CPU).

Visibility -> interpolation -> texture -> shading (method: FitMe, AvatarMe++), each a module of this folder. Gradients
reach vertices, maps, camera and lighting through the inside of the face; the outline has none (visibility is discrete)
unless `silhouette` is set, which landmarks make up for in a fit.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from fitdiff import geometry
from fitdiff.colour import linear_to_srgb
from fitdiff.registry import register
from fitdiff.renderer import shading
from fitdiff.renderer.interpolation import Fragments, interpolate_visible
from fitdiff.renderer.silhouette import opposite_faces, soften
from fitdiff.renderer.subsurface import scatter
from fitdiff.renderer.texture import footprints, halve, look_up, look_up_mipmapped
from fitdiff.renderer.visibility import visible_triangles
from fitdiff.types import Camera, FaceMaps, Lighting, Rendering, TensorRecord, Topology

TEXTURE_FILTERS = ("none", "map", "mipmap")


@dataclass(frozen=True)
class SurfaceImages(TensorRecord):
    """What the camera sees before light falls on it (a G-buffer): enough to estimate lighting from a photo.

    Attributes:
        normals: (B, 3, S, S) unit shading normals in camera space. diffuse_albedo: (B, 3, S, S) linear in [0, 1].
        specular_albedo: (B, 3, S, S) F0 / 0.08. mask: (B, 1, S, S). All are zero where there is no face.
    """

    normals: Tensor
    diffuse_albedo: Tensor
    specular_albedo: Tensor
    mask: Tensor


@dataclass(frozen=True)
class _Surface:
    """The same as (3, P) lists of covered pixels (channels first), and what else shading needs.

    Attributes:
        vertices: (B, V, 3) and points: (3, P) in camera space, mm. occlusion: (P,) or None.
    """

    fragments: Fragments
    camera: Camera
    vertices: Tensor
    points: Tensor
    normals: Tensor
    diffuse_albedo: Tensor
    specular_albedo: Tensor
    occlusion: Tensor | None


@register("renderer", "torch")
class TorchRenderer(nn.Module):
    """Rasterise a textured face and shade it with Blinn-Phong and a normal map.

    Args:
        topology: of the shape model; triangles counter-clockwise seen from outside.
        shininess: Blinn-Phong exponent k. 30 is a Beckmann roughness m = sqrt(2 / (k + 2)) = 0.25, the middle of what
            Weyrich et al. (2006) measured on faces (0.2 to 0.35).
        antialias: samples per pixel along each axis. Colours are averaged in linear light over the covered samples;
            the mask is 1 where at least half of them are covered.
        texture_filter: what keeps maps from aliasing where they have more texels than the image has pixels (see
            `texture`). `map`: halve the whole map while it is at least twice as large as the image. `mipmap`: filter
            each pixel by its own footprint; half of the error or less for half as much time again (measured in
            `experiments/rendering`). `none`: for close-ups, where the face is larger than the image.
        anisotropy: look-ups along the longer side of a footprint, with `mipmap` only.
        cull_back_faces: on by default, since a face is an open mask: a photo never shows its inside, whose normals
            would point away from the camera.
        subsurface: mean free path of red light in the skin in mm, which blurs the diffuse light (see `subsurface`);
            0 does not. Skin has about 1 to 4.
        silhouette: anti-aliased outlines that have a gradient (see `silhouette`). The mask is then the share of each
            pixel that the face covers, differentiable in vertices and camera, and the image the colour of that share:
            `types.composite` puts it over a background, in linear light `mask * image + (1 - mask) * background`.
            Identity terms, which see that composite, and direct users feel the outline; terms that compare with the
            photo inside of the face take the mask as given.
    """

    def __init__(
        self,
        topology: Topology,
        *,
        shininess: float = 30.0,
        antialias: int = 1,
        texture_filter: str = "map",
        anisotropy: int = 2,
        cull_back_faces: bool = True,
        subsurface: float = 0.0,
        silhouette: bool = False,
    ) -> None:
        super().__init__()
        if antialias < 1:
            raise ValueError(f"renderer: antialias is {antialias}; give the samples per pixel and axis, 1 or more")
        if shininess <= 0:
            raise ValueError(f"renderer: shininess is {shininess}; give a positive Blinn-Phong exponent")
        if texture_filter not in TEXTURE_FILTERS:
            raise ValueError(f"renderer: texture_filter is {texture_filter!r}; give one of {TEXTURE_FILTERS}")
        if anisotropy < 1:
            raise ValueError(f"renderer: anisotropy is {anisotropy}; give the look-ups a pixel, 1 or more")
        if subsurface < 0:
            raise ValueError(f"renderer: subsurface is {subsurface}; give a mean free path in mm, 0 for none")
        self.topology = topology
        self.shininess = shininess
        self.antialias = antialias
        self.texture_filter = texture_filter
        self.anisotropy = anisotropy
        self.cull_back_faces = cull_back_faces
        self.subsurface = subsurface
        self.silhouette = silhouette
        self.register_buffer("faces", topology.faces.long(), persistent=False)
        self.register_buffer("uv", topology.uv.clone(), persistent=False)
        if silhouette:
            self.register_buffer("opposite", opposite_faces(self.faces), persistent=False)
        self.register_buffer("handedness", shading.uv_handedness(self.faces, self.uv), persistent=False)

    def forward(self, vertices_BV3: Tensor, maps: FaceMaps, camera: Camera, lighting: Lighting, size: int) -> Rendering:
        """Render a batch of faces.

        Half-precision inputs are taken as float32, and autocast is off: at 600 mm, bfloat16 moves in steps of 4 mm.

        Args:
            vertices_BV3: (B, V, 3) mm, head space. maps: of batch B, or 1 for all. camera, lighting: of batch B.
            size: side S of the square images in pixels.

        Returns:
            sRGB image in [0, 1], mask and NDC landmarks. The image is differentiable in vertices, maps, camera and
            lighting; landmarks in vertices and camera.

        Raises:
            ValueError: a batch size or the number of vertices does not fit.
        """
        with torch.autocast(vertices_BV3.device.type, enabled=False):
            surface, landmarks = self._surface(vertices_BV3, maps, camera, size)
            colour = self._shade(surface, lighting)
            # Clamp each sample before averaging: a highlight is as bright as the display allows, whatever surrounds it.
            colour = colour.clamp(0, 1)
            if self.antialias == 1 and not self.silhouette:
                # Where samples are pixels, only those of the face are encoded: black stays black.
                return Rendering(*self._resolve(surface.fragments, linear_to_srgb(colour)), landmarks)
            soft = self.silhouette
            image, mask = self._resolve_softly(surface, colour) if soft else self._resolve(surface.fragments, colour)
            return Rendering(linear_to_srgb(image), mask, landmarks)

    def surface(self, vertices_BV3: Tensor, maps: FaceMaps, camera: Camera, size: int) -> SurfaceImages:
        """Unlit images of the surface: arguments as for rendering. Differentiable in vertices, maps and camera."""
        with torch.autocast(vertices_BV3.device.type, enabled=False):
            surface, _ = self._surface(vertices_BV3, maps, camera, size)
            values = torch.cat([surface.normals, surface.diffuse_albedo, surface.specular_albedo])
            images, mask = self._resolve(surface.fragments, values)
            normals, diffuse, specular = images.split(3, 1)
            return SurfaceImages(shading.unit(normals, 1), diffuse, specular, mask)

    def visibility(self, vertices_BV3: Tensor, camera: Camera, size: int) -> Tensor:
        """(B, S, S) int64 triangle id per pixel, -1 for none; `vertices_BV3` in camera space. No gradient."""
        return visible_triangles(vertices_BV3, camera, self.faces, size, cull_back_faces=self.cull_back_faces)

    def _surface(self, vertices_BV3: Tensor, maps: FaceMaps, camera: Camera, size: int) -> tuple[_Surface, Tensor]:
        """Everything up to the light, and the projected landmarks."""
        self._check(vertices_BV3, maps, camera)
        dtype = torch.promote_types(vertices_BV3.dtype, torch.float32)
        maps, camera = (record.map(lambda x: x.to(dtype)) for record in (maps, camera))
        vertices = geometry.to_camera_space(vertices_BV3.to(dtype), camera)
        landmarks = geometry.project(self.topology.landmarks(vertices), camera)
        fragments = Fragments.from_visibility(self.visibility(vertices, camera, size * self.antialias))
        uv = self.uv.to(vertices)
        frames = shading.vertex_frames(vertices, self.faces, uv)
        attributes = torch.cat([vertices, frames, uv.expand(len(vertices), -1, -1)], -1)
        values = interpolate_visible(attributes, self.faces, camera, fragments)
        points, frames, places = values.split([3, 6, 2])
        channels = (maps.diffuse_albedo, maps.specular_albedo, maps.normals, maps.occlusion)
        channels = [x.expand(len(maps.normals), -1, -1, -1).contiguous() for x in channels if x is not None]
        if self.texture_filter == "mipmap":
            footprint = footprints(vertices, uv, self.faces, camera, fragments, places, -points[2])
            texels = look_up_mipmapped(torch.cat(channels, 1), places, footprint, fragments.counts, self.anisotropy)
        else:
            texture = halve(channels, fragments.size) if self.texture_filter == "map" else torch.cat(channels, 1)
            texels = look_up(texture, places, fragments.counts)
        diffuse, specular, tangent_normals, *occlusion = texels.split(3)
        handedness = self.handedness.to(vertices)[fragments.triangle]
        normals = shading.map_normals(frames, handedness, tangent_normals)
        occlusion = occlusion[0][0] if occlusion else None
        return _Surface(fragments, camera, vertices, points, normals, diffuse, specular, occlusion), landmarks

    def _shade(self, surface: _Surface, lighting: Lighting) -> Tensor:
        """Linear colours (3, P) of the covered samples, each under the light of its image."""
        batch = len(surface.fragments.counts)
        if len(lighting.ambient) != batch:
            raise ValueError(f"renderer: got {len(lighting.ambient)} lightings for {batch} faces: give one each")
        lighting = lighting.map(lambda x: x.to(surface.points))
        diffuse, specular = shading.receive(
            surface.normals,
            surface.points,
            surface.occlusion,
            lighting,
            surface.camera.translation,
            surface.fragments,
            self.shininess,
        )
        if self.subsurface > 0:
            diffuse = self._scatter(surface, diffuse)
        return shading.colour(diffuse, specular, surface.diffuse_albedo, surface.specular_albedo)

    def _scatter(self, surface: _Surface, light_3P: Tensor) -> Tensor:
        """Light through the skin, between the samples of each image."""
        fragments, camera = surface.fragments, surface.camera
        scale = camera.focal * fragments.size / 2 / -camera.translation[:, 2]
        images = scatter(fragments.to_images(light_3P), fragments.mask(light_3P), scale, self.subsurface)
        return images.transpose(0, 1).flatten(1)[:, fragments.pixel]

    def _resolve_softly(self, surface: _Surface, colour_3P: Tensor) -> tuple[Tensor, Tensor]:
        """Samples to images (B, 3, S, S) and the share (B, 1, S, S) of each pixel that the face covers."""
        fragments = surface.fragments
        samples = torch.cat([colour_3P, torch.ones_like(colour_3P[:1]), -1 / surface.points[2:].detach()])
        images = fragments.to_images(samples)
        seen, depth = images[:, :4], images[:, 4]
        mesh = surface.vertices, surface.camera, self.faces, self.opposite
        softened = nnf.avg_pool2d(soften(seen, depth, *mesh, self.cull_back_faces), self.antialias)
        # Where less than a thousandth is covered, the colour fades instead of being divided by almost nothing.
        mask = softened[:, 3:].clamp(0, 1)
        return softened[:, :3].clamp_min(0) / mask.clamp_min(1e-3), mask

    def _resolve(self, fragments: Fragments, values_CP: Tensor) -> tuple[Tensor, Tensor]:
        """Samples to images (B, C, S, S) and mask (B, 1, S, S), averaging the covered samples of each pixel."""
        images, mask = fragments.to_images(values_CP), fragments.mask(values_CP)
        if self.antialias == 1:
            return images, mask
        coverage = nnf.avg_pool2d(mask, self.antialias)
        mask = (coverage >= 0.5).to(coverage.dtype)
        return nnf.avg_pool2d(images, self.antialias) / coverage.clamp_min(0.5) * mask, mask

    def _check(self, vertices_BV3: Tensor, maps: FaceMaps, camera: Camera) -> None:
        """Catch what would otherwise broadcast silently or fail far from its cause."""
        batch, n_vertices = vertices_BV3.shape[:2]
        if n_vertices != len(self.uv):
            raise ValueError(f"renderer: got {n_vertices} vertices, the topology has {len(self.uv)}")
        if len(maps.normals) not in (1, batch):
            raise ValueError(f"renderer: got {len(maps.normals)} sets of maps for {batch} faces: give one, or one each")
        shapes = {f.name: tuple(x.shape) for f in fields(maps) if (x := getattr(maps, f.name)) is not None}
        sides = {shape[2:] for shape in shapes.values()}
        batches = {shape[0] for name, shape in shapes.items() if name != "occlusion"}
        baked = shapes.get("occlusion", (1,))[0]
        if len(sides) > 1 or len(batches) > 1 or baked not in (1, *batches):
            raise ValueError(
                f"renderer: got maps of {shapes}: give all of one size and batch (or one occlusion for all)"
            )
        if len(camera.rotation) != batch:
            raise ValueError(f"renderer: got {len(camera.rotation)} cameras for {batch} faces: give one each")
