"""What an album came to: index.html in one file, results.json and results.csv."""

from __future__ import annotations

import base64
import csv
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from fitdiff.album.film import FRAME
from fitdiff.album.results import METRICS, Entry
from fitdiff.storage import write_atomically, write_json

THUMBNAIL = 900
"""Width of a thumbnail in pixels."""

LABELS = {
    "id_cosine": "identity cosine",
    "id_cosine_centred": "centred",
    "id_cosine_frontal": "frontal, neutral",
    "landmark_error": "landmark error / eye distance",
}

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:960px;margin:2em auto;padding:0 1em;color:#222}"
    "section{border-top:1px solid #ccc;padding:1em 0}h1,h2{font-weight:500}h2{font-size:1.1em;margin:0;"
    "overflow-wrap:anywhere}img,video{max-width:100%}.bad{color:#a11}table{border-spacing:1em 0;margin-left:-1em}"
    "th{font-weight:400;text-align:left;color:#666}.note{color:#666;margin:.2em 0}"
)


def save_index(out: Path, title: str, entries: Sequence[Entry], links: Mapping[str, str] | None = None) -> Path:
    """Write index.html, whose pictures are inside it but for a shared person's frames, results.json and results.csv.

    Args:
        links: text -> file in the album, shown at the top: the avatar of a shared person, the film.
    """
    write_json(out / "results.json", [entry.row() for entry in entries])
    write_atomically(out / "results.csv", _csv(entries).encode("utf-8", "surrogateescape"))
    fitted, bad = ([e for e in entries if (e.error is None) == good] for good in (True, False))
    lines = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{_text(title)}</title><style>{STYLE}</style>",
        f"<h1>{_text(title)}</h1><p>{len(fitted)} fitted, {len(bad)} not</p>",
        *(f"<p>{_link(text, file)}</p>" for text, file in (links or {}).items()),
        *(_section(out, entry) for entry in fitted),
    ]
    if bad:
        lines.append('<section><h2>Not fitted</h2><ul class="bad">')
        lines += [f"<li>{_text(entry.name)}: {_text(entry.error or '')}</li>" for entry in bad]
        lines.append("</ul></section>")
    return write_atomically(out / "index.html", "\n".join([*lines, "</html>", ""]).encode())


def _section(out: Path, entry: Entry) -> str:
    folder = entry.folder or ""
    figures = "".join(
        f"<tr><th>{LABELS[name]}<td>{entry.metrics[name]['guided']:.3f}<td>{entry.metrics[name]['mean_face']:.3f}"
        for name in METRICS
    )
    files = [name for name in ("avatar.glb", "comparison.png", "fit.json") if (out / folder / name).exists()]
    links = " · ".join(_link(name, f"{folder}/{name}") for name in files)
    notes = "".join(f'<p class="note">{_text(note)}</p>' for note in entry.notes)
    return (
        f"<section><h2>{_text(entry.name)}</h2>{_picture(out, folder)}"
        f"<table><tr><th><th>fit<th>mean face{figures}</table><p>{links}</p>{notes}</section>"
    )


def _picture(out: Path, folder: str) -> str:
    """The comparison inside the page; of a shared person a link to the frame, of which there may be ten thousand."""
    if (out / folder / FRAME).exists():
        return f'<img loading="lazy" alt="photo, fit" src="{_address(f"{folder}/{FRAME}")}">'
    comparison = out / folder / "comparison.png"
    if not comparison.exists():
        return ""
    return f'<img alt="photo, fit, relit, frontal, maps" src="{_thumbnail(comparison)}">'


def _thumbnail(path: Path) -> str:
    """A picture as a data URL."""
    with Image.open(path) as file:
        picture = file.convert("RGB")
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _text(value: str) -> str:
    """Escaped for HTML; bytes of a file name that are no UTF-8 become question marks."""
    return html.escape(value.encode("utf-8", "replace").decode())


def _link(text: str, file: str) -> str:
    return f'<a href="{_address(file)}">{_text(text)}</a>'


def _address(file: str) -> str:
    return quote(file.encode("utf-8", "surrogateescape"))


def _csv(entries: Sequence[Entry]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["photo", "folder", *METRICS, "seconds", "error", "notes"])
    for entry in entries:
        figures = [entry.metrics.get(name, {}).get("guided", "") for name in METRICS]
        seconds = "" if entry.seconds is None else round(entry.seconds, 2)
        notes = "; ".join(entry.notes)
        writer.writerow([entry.name, entry.folder or "", *figures, seconds, entry.error or "", notes])
    return buffer.getvalue()
