"""300 photos that nobody should bring, made anew from a seed: name -> how to write the file."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import skimage.data
import tifffile
from PIL import ExifTags, Image, ImageDraw, ImageFilter, PngImagePlugin

Writer = Callable[[Path], object]

FORMATS = {"JPEG": "jpg", "PNG": "png", "TIFF": "tif", "WEBP": "webp", "GIF": "gif", "BMP": "bmp"}


def bad_photos() -> dict[str, Writer]:
    """Every file of the collection, in a fixed order; names are file names."""
    sources = (_damaged, _giants, _no_faces, _odd_faces, _odd_files, _odd_metadata, _no_files)
    return {name: writer for source in sources for name, writer in source()}


def astronaut() -> Image.Image:
    """A face of 90 pixels in a photo of 512."""
    return Image.fromarray(skimage.data.astronaut())


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _bytes(data: bytes) -> Writer:
    return lambda path: path.write_bytes(data)


def _image(image: Image.Image, **options: object) -> Writer:
    return lambda path: image.save(path, **options)


def _damaged() -> Iterator[tuple[str, Writer]]:
    """Cut off at ten points, and with bytes overwritten ten times, in six formats."""
    rng = np.random.default_rng(0)
    for kind, suffix in FORMATS.items():
        whole = encoded(astronaut(), kind)
        for tenth in range(10):
            cut = max(1, len(whole) * tenth // 10 + int(rng.integers(50)))
            yield f"cut-{tenth}.{suffix}", _bytes(whole[:cut])
        for number in range(10):
            data = bytearray(whole)
            # Half of them in the header, where sizes and offsets are.
            for place in rng.integers(0, 200 if number % 2 else len(data), 1 + 3 * number):
                data[place] = int(rng.integers(256))
            yield f"overwritten-{number}.{suffix}", _bytes(bytes(data))


def _png_header(width: int, height: int, body: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def _giants() -> Iterator[tuple[str, Writer]]:
    """Small files that say they are large, and truly long ones."""
    for side in (12000, 30000, 65535, 2**31 - 1):
        yield f"says-{side}.png", _bytes(_png_header(side, side))
        yield (
            f"says-{side}.bmp",
            _bytes(
                b"BM"
                + struct.pack("<IHHI", 54, 0, 0, 54)
                + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
            ),
        )
        yield f"says-{side}.gif", _bytes(b"GIF89a" + struct.pack("<HHBBB", side % 65536, side % 65536, 0, 0, 0) + b";")
    yield "bomb.png", _bytes(_png_header(9000, 9000, b"\0" * (9001 * 9000)))
    yield "long.png", _image(Image.new("L", (20000, 40)))
    yield "tall.jpg", _image(Image.new("L", (40, 20000)))
    yield "large-grey.jpg", _image(Image.new("L", (6000, 4000), 128))
    yield "large-face.jpg", _image(astronaut().resize((5000, 5000)))
    yield "bomb.tif", lambda path: tifffile.imwrite(path, np.zeros((5000, 5000), np.float32), compression="zlib")

    def sparse_tiff(path: Path) -> None:
        path.write_bytes(encoded(Image.new("L", (64, 64)), "TIFF"))
        data = bytearray(path.read_bytes())
        entries = struct.unpack_from("<I", data, 4)[0]
        for entry in range(struct.unpack_from("<H", data, entries)[0]):
            place = entries + 2 + 12 * entry
            if struct.unpack_from("<H", data, place)[0] in (256, 257):  # width and height
                struct.pack_into("<HHII", data, place, struct.unpack_from("<H", data, place)[0], 4, 1, 100_000)
        path.write_bytes(data)

    yield "says-100000.tif", sparse_tiff


def _no_faces() -> Iterator[tuple[str, Writer]]:
    """Animals, things, drawings, noise, blanks, the back of a head."""
    for name in ("cat", "coffee", "coins", "rocket", "moon", "page", "text", "brick", "grass", "clock", "hubble_deep_field", "retina", "immunohistochemistry", "colorwheel", "checkerboard", "horse"):  # fmt: skip # noqa: E501
        picture = getattr(skimage.data, name)()
        picture = picture if picture.dtype == np.uint8 else (picture * 255).astype(np.uint8)
        yield f"{name}.png", _image(Image.fromarray(picture))
    rng = np.random.default_rng(1)
    for side in (32, 64, 300, 1000):
        yield f"noise-{side}.png", _image(Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)))
        for level in (0, 128, 255):
            yield f"blank-{side}-{level}.png", _image(Image.new("RGB", (side, side), (level,) * 3))
    for size in ((1, 1), (31, 31), (1, 500), (500, 1), (33, 31)):
        yield f"tiny-{size[0]}x{size[1]}.png", _image(Image.new("RGB", size))
    for number in range(12):
        yield f"drawing-{number}.png", _image(drawing(np.random.default_rng(number)))
    hair = rng.normal(90, 40, (400, 400)).clip(0, 255).astype(np.uint8)
    hair = Image.fromarray(hair).filter(ImageFilter.GaussianBlur(2))
    back = Image.new("RGB", (400, 400), (200, 190, 180))
    mask = Image.new("L", (400, 400))
    ImageDraw.Draw(mask).ellipse((90, 60, 310, 350), fill=255)
    back.paste(hair.convert("RGB"), mask=mask)
    yield "back-of-the-head.png", _image(back)
    yield "hair.png", _image(astronaut().crop((170, 10, 280, 70)).resize((440, 240)))


def drawing(rng: np.random.Generator) -> Image.Image:
    """A face as children draw it."""
    picture = Image.new("RGB", (300, 300), tuple(int(v) for v in rng.integers(180, 256, 3)))
    draw = ImageDraw.Draw(picture)
    skin, ink = (tuple(int(v) for v in rng.integers(low, low + 90, 3)) for low in (150, 0))
    draw.ellipse((60, 40, 240, 270), fill=skin, outline=ink, width=4)
    for x in (115, 185):
        draw.ellipse((x - 18, 110, x + 18, 140), fill="white", outline=ink, width=3)
        draw.ellipse((x - 7, 118, x + 7, 132), fill=ink)
    draw.line((150, 140, 140, 185, 155, 188), fill=ink, width=4)
    draw.arc((110, 190, 190, 230), 10, 170, fill=ink, width=5)
    return picture


def _odd_faces() -> Iterator[tuple[str, Writer]]:
    """A real face, but too much or too little of it, turned, dark, blurred, or many."""
    face = astronaut()
    crops = {
        "eye": (195, 90, 225, 115), "eyes": (190, 90, 260, 115), "left-half": (150, 30, 222, 190),
        "right-half": (224, 30, 300, 190), "mouth": (200, 130, 250, 165), "chin": (190, 110, 260, 190),
        "forehead": (170, 40, 280, 100), "tight": (185, 75, 262, 165), "tighter": (195, 90, 252, 150),
        "border": (0, 60, 230, 250), "lower-border": (100, 0, 350, 150),
    }  # fmt: skip
    for name, box in crops.items():
        yield (
            f"crop-{name}.png",
            _image(face.crop(box).resize((320, round(320 * (box[3] - box[1]) / (box[2] - box[0]))))),
        )
    for angle in range(30, 360, 30):
        yield f"turned-{angle}.jpg", _image(face.rotate(angle))
    for radius in (3, 8, 20):
        yield f"blurred-{radius}.jpg", _image(face.filter(ImageFilter.GaussianBlur(radius)))
    for gain in (0.02, 0.1, 4, 20):
        yield f"gain-{gain}.jpg", _image(face.point(lambda v, gain=gain: min(255, int(v * gain))))
    for side in (40, 64, 100, 160):
        yield f"small-{side}.png", _image(face.resize((side, side)))
    crowd = Image.new("RGB", (1000, 500))
    for number in range(50):
        small = face.crop((150, 20, 300, 200)).resize((100, 100))
        crowd.paste(small, (number % 10 * 100, number // 10 * 100))
    yield "fifty-faces.png", _image(crowd)
    for squeeze in ((512, 150), (150, 512), (2000, 200)):
        yield f"squeezed-{squeeze[0]}x{squeeze[1]}.png", _image(face.resize(squeeze))
    yield "quality-1.jpg", _image(face, quality=1)
    inverted = face.point(lambda v: 255 - v)
    yield "negative.png", _image(inverted)
    yield "upside-down.png", _image(face.transpose(Image.Transpose.FLIP_TOP_BOTTOM))


def _odd_files() -> Iterator[tuple[str, Writer]]:
    """Number types and colour modes, all of the same face."""
    face = astronaut()
    values = np.asarray(face)
    for mode in ("1", "L", "P", "LA", "RGBA"):
        yield f"mode-{mode}.png", _image(face.convert("RGBA").convert(mode) if mode != "LA" else face.convert("LA"))
    for mode in ("CMYK", "YCbCr", "LAB", "RGBX"):
        converted = face.convert(mode) if mode != "LAB" else Image.merge("LAB", face.split())
        yield f"mode-{mode}.tif", _image(converted)
    yield "mode-CMYK.jpg", _image(face.convert("CMYK"))
    for name, bad in (("nan", np.nan), ("inf", np.inf), ("minus-inf", -np.inf)):
        for share in (0.01, 1.0):
            numbers = values.astype(np.float32) / 255
            numbers[np.random.default_rng(2).random(numbers.shape) < share] = bad
            yield f"{name}-{share}.tif", lambda path, n=numbers: tifffile.imwrite(path, n, photometric="rgb")
    for dtype, gain in ((np.uint16, 257), (np.uint32, 1), (np.float64, 1 / 255), (np.float16, 1 / 255), (np.int16, 1)):
        numbers = (values.astype(np.float64) * gain).astype(dtype)
        yield f"{np.dtype(dtype).name}.tif", lambda path, n=numbers: tifffile.imwrite(path, n, photometric="rgb")
    five = np.zeros((64, 64, 5), np.uint8)
    yield (
        "five-channels.tif",
        lambda path: tifffile.imwrite(path, five, photometric="minisblack", planarconfig="contig"),
    )
    yield "complex.tif", lambda path: tifffile.imwrite(path, np.zeros((64, 64), np.complex64))
    yield (
        "volume.tif",
        lambda path: tifffile.imwrite(path, np.zeros((3, 4, 64, 64), np.uint16), photometric="minisblack"),
    )
    frames = [face.rotate(angle) for angle in (0, 5, 10)]
    for suffix in ("gif", "webp", "png", "tif"):
        yield f"animated.{suffix}", _image(frames[0], save_all=True, append_images=frames[1:])
    for suffix in ("jpg", "tif", "webp", "bmp", "gif"):
        yield f"is-a-png.{suffix}", _bytes(encoded(face, "PNG"))
    transparent = face.copy()
    transparent.putalpha(0)
    yield "invisible.png", _image(transparent)


def _odd_metadata() -> Iterator[tuple[str, Writer]]:
    """Orientations, focal lengths and profiles that are none."""
    face = astronaut()
    for orientation in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 65535):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        yield f"orientation-{orientation}.jpg", _image(face, exif=exif)
    for focal in (0, 1, 65535):
        exif = Image.Exif()
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = focal
        yield f"focal-{focal}.jpg", _image(face, exif=exif)
    rng = np.random.default_rng(3)
    for number in range(10):
        noise = rng.integers(0, 256, 200, dtype=np.uint8).tobytes()
        header = b"Exif\0\0" + (b"II*\0\x08\0\0\0" if number % 2 else b"MM\0*\0\0\0\x08") if number else b"Exif\0\0"
        yield f"exif-noise-{number}.jpg", _image(face, exif=header + noise)
        yield f"icc-noise-{number}.jpg", _image(face, icc_profile=noise)
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "x" * 2_000_000, zip=True)
    yield "long-text.png", _image(face, pnginfo=text)


def _no_files() -> Iterator[tuple[str, Writer]]:
    """What is no image, or no file at all."""
    for suffix in (*FORMATS.values(), "heic", "avif", "svg"):
        yield f"empty.{suffix}", _bytes(b"")
        yield f"text.{suffix}", _bytes(b"once upon a time " * 20)
        yield f"zeros.{suffix}", _bytes(bytes(5000))
    yield "drawing.svg.png", _bytes(b'<svg xmlns="http://www.w3.org/2000/svg"><circle r="9"/></svg>')
    yield "page.pdf.jpg", _bytes(b"%PDF-1.4\n%%EOF")
    yield "archive.zip.jpg", _bytes(b"PK\x03\x04" + bytes(100))
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\nshowpage\n"
    yield "script.eps", _bytes(script)
    yield "script.jpg", _bytes(script)
    yield "folder.jpg", lambda path: path.mkdir()
    yield "loop.jpg", lambda path: path.symlink_to(path)
    yield "nowhere.jpg", lambda path: path.symlink_to(path.with_name("there is nothing"))
    yield "pipe.jpg", os.mkfifo
    yield f"{'long' * 60}.jpg", _image(astronaut())
    yield "new\nline\tand [bold]markup.jpg", _bytes(b"")
    yield os.fsdecode(b"not utf-8 \xff\xfe.jpg"), _bytes(b"")
    yield os.fsdecode(b"face \xff.jpg"), _image(astronaut())
