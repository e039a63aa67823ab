"""What `fit.py` does: one photo into one folder, or an album of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fitdiff.album.album import ENDS_ALL, Album, reason_of
from fitdiff.album.film import save_film
from fitdiff.album.index_page import save_index
from fitdiff.album.results import SHARED, Entry, publish
from fitdiff.album.sources import Sources, find_sources
from fitdiff.alignment.photo import PhotoError, load_photo
from fitdiff.config import plain
from fitdiff.fitting.scene import LIGHTS
from fitdiff.model import FitDiff
from fitdiff.registry import build

GROUPS = ("sampler", "guidance", "fitting", "detector", "landmarks")


class FitProgress:
    """Progress over photos with ETA and losses; silent before the first step, so that an early error stands alone.

    Args:
        photos: how many there are; a photo counts by parts while its batch is being fitted. batch: photos at once.
    """

    def __init__(self, console: Console, photos: int = 1, batch: int = 1) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[place]}"))
        times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[losses]}"))
        self.bar = Progress(*columns, *times, console=console)
        self.task = self.bar.add_task("fitting", total=photos, place="", losses="")
        self.photos, self.batch, self.finished = photos, batch, 0

    def __enter__(self) -> FitProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar.live.is_started:
            self.bar.stop()

    def on_step(self, done: int, total: int, terms: dict[str, float]) -> None:
        """One step of a batch is done: an `OnStep` of `fitting`."""
        self.bar.start()
        losses = " · ".join(f"{name} {value:.3g}" for name, value in terms.items())
        under_way = max(1, min(self.batch, self.photos - self.finished)) * done / total
        place = (
            f"step {done}/{total}" if self.photos == 1 else f"photo {self.finished}/{self.photos}, step {done}/{total}"
        )
        self.bar.update(self.task, completed=self.finished + under_way, place=place, losses=losses)

    def on_entry(self, entry: Entry) -> None:
        """A photo is done, or has none of what is needed."""
        self.finished += 1
        self.photos = max(self.photos, self.finished)  # with faces=all, a photo is several
        self.bar.update(self.task, completed=self.finished, total=self.photos)


def fit_what_is_asked(config: DictConfig, console: Console) -> Path:
    """Fit the photos of `config.photo`, write and show what came out.

    Returns:
        The folder of the results.

    Raises:
        PhotoError: nothing could be fitted, or an option asks for what is not there.
    """
    _check_options(config)
    sources = find_sources(config.photo, Path(config.out) if config.out else None, config.every)
    out = sources.results
    if sources.single and config.faces != "all" and config.person == "each":
        return _fit_one(config, sources.photos[0].path, out, console)
    return _fit_album(config, sources, out, console)


def _check_options(config: DictConfig) -> None:
    """Refuse what no photo could be fitted with, before any is looked at."""
    if not config.photo:
        raise PhotoError("no photo given: python fit.py photo=me.jpg")
    if config.person not in ("each", "shared"):
        raise PhotoError(f"person={config.person}: give each or shared")
    for name, least in (("every", 1), ("batch", 1), ("samples", 1), ("seed", 0)):
        if config[name] < least:
            raise PhotoError(f"{name}={config[name]}: give {least} or more")
    if OmegaConf.is_missing(config, "guidance") or not config.guidance:  # Hydra makes [] a missing value
        raise PhotoError("guidance=[]: give a term to fit by, as in guidance=[mse]")
    light = config.fitting.get("light", LIGHTS[0])
    if light not in LIGHTS:
        raise PhotoError(f"fitting.light={light}: give {' or '.join(LIGHTS)}")


def _load_model(config: DictConfig) -> FitDiff:
    """The checkpoint, if its schedule has the steps that are asked for."""
    sampler, fitting = (build(config[kind], kind) for kind in ("sampler", "fitting"))
    model = FitDiff.load(config.checkpoint, config.device, plain(config.renderer))
    try:
        sampler.timesteps(model.schedule, fitting.steps)
    except ValueError as error:
        raise PhotoError(f"fitting.steps={fitting.steps}: {error}") from error
    return model


def options_of(config: DictConfig) -> dict[str, Any]:
    """What of fit.py's config `FitDiff.fit` and `Album` take."""
    choices = {key: plain(config[key]) for key in GROUPS}
    return {"samples": config.samples, "seed": config.seed, **choices}


def _which(faces: str) -> str | int:
    if faces in ("largest", "all"):
        return faces
    if not faces.isdecimal() or int(faces) < 1:
        raise PhotoError(f"faces={faces}: give largest, all, or a number (1 is the largest)")
    return int(faces)


def _fit_one(config: DictConfig, path: Path, out: Path, console: Console) -> Path:
    which = _which(config.faces)
    photo = load_photo(path)  # before the model: a bad photo is told at once
    model = _load_model(config)
    try:
        with FitProgress(console) as progress:
            fit = model.fit(photo, face=which, on_step=progress.on_step, **options_of(config))
        if not fit.finite:
            raise PhotoError(f"{path}: the fit did not stay finite; try fitting.adaptive=0.1")
        publish(out, fit.save)
    except (PhotoError, *ENDS_ALL):
        raise
    except Exception as error:
        raise PhotoError(f"{path}: the fit failed ({reason_of(error)})") from error
    for note in fit.notes:
        console.print(f"note: {_printable(note)}", highlight=False, markup=False)
    console.print(fit.summary())
    _say(console, f"results: {out} (avatar.glb, comparison.png, fit.json, ...)")
    return out


def _fit_album(config: DictConfig, sources: Sources, out: Path, console: Console) -> Path:
    which = _which(config.faces)
    model = _load_model(config)
    links: dict[str, str] = {}
    with FitProgress(console, len(sources.photos), max(1, config.batch // config.samples)) as progress:
        album = Album(
            model, out, faces=which, batch=config.batch, on_entry=progress.on_entry, on_step=progress.on_step,
            **options_of(config),
        )  # fmt: skip
        shared = config.person == "shared"
        entries = album.fit_shared(sources.photos) if shared else album.fit_each(sources.photos)
    entries += [Entry(name, error=reason) for name, reason in sources.unusable.items()]
    fitted = [entry for entry in entries if entry.folder]
    if shared and fitted:
        links = {"the avatar of all photos (GLB)": f"{SHARED}/avatar.glb"}
        film = save_film([out / entry.folder for entry in fitted], out, sources.frames_per_second)
        links |= {"photos and fits as a film": film.name} if film else {}
    page = save_index(out, sources.title, entries, links)
    _report(console, entries)
    if not fitted:
        raise PhotoError(f"none of {len(entries)} photos could be fitted: see {page}")
    _say(console, f"results: {page}")
    return out


def _report(console: Console, entries: Sequence[Entry]) -> None:
    """How many, and each photo that could not be fitted in one line."""
    bad = [entry for entry in entries if entry.error is not None]
    kept = sum(entry.kept for entry in entries)
    _say(console, f"{len(entries) - len(bad)} fitted ({kept} of them before), {len(bad)} not")
    for entry in bad:
        _say(console, f"  {entry.name}: {entry.error}")


def _say(console: Console, text: str) -> None:
    console.print(_printable(text), highlight=False, markup=False, soft_wrap=True)


def _printable(text: str) -> str:
    """On one line, without the surrogates that stand for bytes of a file name that are no UTF-8."""
    return " ".join(text.encode("utf-8", "replace").decode().splitlines())
