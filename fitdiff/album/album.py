"""Fit many photos: in batches, past bad ones, and from where it was stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fitdiff.album.film import save_frame
from fitdiff.album.results import SHARED, Entry, find_whole, is_whole, made_from, publish, seal_result
from fitdiff.album.sources import Source
from fitdiff.alignment.face import DetectedFace, find_faces
from fitdiff.alignment.photo import PhotoError, load_photo
from fitdiff.diffusion.sampler import Known
from fitdiff.faces import load_faces
from fitdiff.photo_fit import CHOICES, PhotoFit, fit_faces
from fitdiff.registry import ComponentError, build
from fitdiff.storage import CheckpointError

ENDS_ALL = (OSError, ComponentError, CheckpointError)
"""What is no photo's fault: the disk, the choice of components, their weights. Anything else costs one photo."""

OnEntry = Callable[[Entry], None]


@dataclass(frozen=True)
class Job:
    """A face on its way: where its result goes, and what that is made from."""

    source: Source
    folder: str
    face: DetectedFace
    key: str
    faces: int


class Album:
    """Photos that are fitted with one model and one choice of settings into one folder.

    A result that is whole and was made from the same photo with the same settings is kept; a photo without a usable
    face is an entry with its error, and so is one whose fit fails even alone. How photos are batched decides nothing.

    Args:
        model: a `FitDiff`. out: folder of the results.
        faces: of each photo: "largest", "all", or a number (1 is the largest).
        avatars: also write each face as an avatar (GLB, OBJ, maps).
        batch: fits at once. samples, seed: see `photo_fit.fit_faces`.
        on_entry: called with each entry when it is there. on_step: progress of a batch.
        choices: as of `fit_faces`.
    """

    def __init__(
        self,
        model: Any,
        out: Path,
        *,
        faces: str | int = "largest",
        avatars: bool = True,
        batch: int = 8,
        samples: int = 1,
        seed: int = 0,
        on_entry: OnEntry = lambda entry: None,
        on_step: Any = None,
        **choices: Mapping[str, Any] | None,
    ) -> None:
        if batch < 1:
            raise ValueError(f"got batch={batch}, expected 1 or more")
        nodes = {key: choices.get(key) or model.config[key] for key in CHOICES}
        self.model, self.out, self.faces, self.batch = model, out, faces, max(1, batch // samples)
        self.avatars, self.on_entry = avatars, on_entry
        detector, landmarks = (build(nodes[key], key) for key in ("detector", "landmarks"))
        self._find = partial(find_faces, detector=detector, landmark_detector=landmarks, which=faces)
        self._fit = partial(fit_faces, model, samples=samples, seed=seed, on_step=on_step, **choices)
        self._settings = {
            "weights": model.fingerprint(),
            "renderer": model.config["renderer"],
            "samples": samples,
            "seed": seed,
            "faces": str(faces),
            **nodes,
        }

    def fit_each(self, sources: Iterable[Source]) -> list[Entry]:
        """Fit every photo on its own. Entries are in the order of the photos."""
        return self._run(sources, self._settings, self._fit)

    def fit_shared(self, sources: Sequence[Source]) -> list[Entry]:
        """Fit photos of one person: one z, a scene for each photo.

        z comes from up to `batch` photos, spread evenly over all, which are fitted together; then every photo gets its
        scene with z given, so that the cost and the memory of a long video grow as those of single photos.

        Raises:
            PhotoError: no photo has a usable face, or the fit of those together failed.
        """
        if self.faces == "all":
            raise PhotoError("faces=all with person=shared: one person has one face; give faces=largest or a number")
        key = made_from(
            [source.path for source in sources], {**self._settings, "person": "shared", "batch": self.batch}
        )
        if not is_whole(self.out / SHARED, key):
            self._fit_person(sources, key)
        z = load_faces(self.model, self.out / SHARED).require_z()

        def fit(faces: Sequence[DetectedFace]) -> list[PhotoFit]:
            given = torch.ones(z.shape[-1], dtype=torch.bool, device=z.device)
            return self._fit(faces, samples=1, known=Known(z.expand(len(faces), -1), given))

        return self._run(sources, {"person": key}, fit, shared=True)

    def _fit_person(self, sources: Sequence[Source], key: str) -> None:
        """Fit one person to some of the photos, and write the avatar and its z."""
        faces: list[DetectedFace] = []
        reason: Exception | None = None
        for source in spread(sources):
            try:
                faces += self._find(load_photo(source.path))
            except ENDS_ALL:
                raise
            except Exception as error:
                reason = error
            if len(faces) == self.batch:
                break
        if not faces:
            raise PhotoError(f"none of the {len(sources)} photos has a usable face; the last one said: {reason}")
        fit = self._fit_together(faces)
        if not fit.finite:
            raise PhotoError("the fit of the person did not stay finite; try other photos or fitting.adaptive=0.1")

        def write(folder: Path) -> None:
            fit.save(folder)
            seal_result(folder, key, len(faces))

        try:
            publish(self.out / SHARED, write)
        except ENDS_ALL:
            raise
        except Exception as error:
            raise PhotoError(f"the fit of the person could not be drawn ({reason_of(error)})") from error

    def _fit_together(self, faces: Sequence[DetectedFace]) -> PhotoFit:
        """The fit of one person to several faces; to half as many where that fails."""
        try:
            return self._fit(faces, shared=True)[0]
        except ENDS_ALL:
            raise
        except Exception as error:
            reason = reason_of(error)
        if len(faces) == 1:
            raise PhotoError(f"the fit of the person failed ({reason})")
        return self._fit_together(faces[: len(faces) // 2])

    def _run(self, sources: Iterable[Source], settings: Mapping[str, Any], fit: Any, shared: bool = False) -> list[Entry]:  # fmt: skip # noqa: E501
        """Look at photos one by one, fit their faces batch by batch."""
        entries: dict[str, list[Entry]] = {}
        waiting: list[Job] = []

        def flush() -> None:
            jobs = waiting[: self.batch]
            for job, outcome in zip(jobs, self._fit_all([job.face for job in jobs], fit), strict=True):
                add(job.source, self._save(job, outcome, shared))
            del waiting[: self.batch]

        def add(source: Source, entry: Entry) -> None:
            entries[source.name].append(entry)
            self.on_entry(entry)

        for source in sources:
            entries[source.name] = []
            try:
                key = made_from([source.path], settings)
                for entry in find_whole(self.out, source.name, key):
                    add(source, entry)
                if not entries[source.name]:
                    waiting += self._jobs(source, key)
            except ENDS_ALL:
                raise
            except Exception as error:
                add(source, Entry(source.name, error=reason_of(error).removeprefix(f"{source.path}: ")))
            while len(waiting) >= self.batch:
                flush()
        while waiting:
            flush()
        return [entry for of_photo in entries.values() for entry in of_photo]

    def _jobs(self, source: Source, key: str) -> Iterator[Job]:
        found = self._find(load_photo(source.path))
        for number, face in enumerate(found, 1):
            folder = f"{source.name}/face{number}" if self.faces == "all" else source.name
            yield Job(source, folder, face, key, len(found))

    def _fit_all(self, faces: Sequence[DetectedFace], fit: Any) -> list[PhotoFit | str]:
        """Fits, or why there is none; a batch that fails is halved."""
        try:
            return [*fit(faces)]
        except ENDS_ALL:
            raise
        except Exception as error:
            reason = reason_of(error)
        if len(faces) == 1:
            return [f"the fit failed ({reason})"]
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # what the failed batch held would fragment the next one
        half = len(faces) // 2
        return self._fit_all(faces[:half], fit) + self._fit_all(faces[half:], fit)

    def _save(self, job: Job, outcome: PhotoFit | str, shared: bool) -> Entry:
        if isinstance(outcome, str):
            return Entry(job.folder, error=outcome)
        if not outcome.finite:
            return Entry(job.folder, error="the fit did not stay finite")

        def write(folder: Path) -> None:
            outcome.save(folder, avatar=self.avatars and not shared)
            if shared:
                save_frame(outcome, folder)
            seal_result(folder, job.key, job.faces)

        try:
            publish(self.out / job.folder, write)
        except ENDS_ALL:
            raise
        except Exception as error:
            return Entry(job.folder, error=f"the fit could not be drawn ({reason_of(error)})")
        total = outcome.seconds["total"]
        return Entry(job.folder, job.folder, None, outcome.metrics, [str(note) for note in outcome.notes], total)


def spread(items: Sequence[Any]) -> Iterator[Any]:
    """All items in an order whose beginnings are spread evenly over them (van der Corput's, base 2)."""
    bits = max(1, (len(items) - 1).bit_length())
    for number in range(1 << bits):
        index = int(format(number, f"0{bits}b")[::-1], 2)
        if index < len(items):
            yield items[index]


def reason_of(error: BaseException) -> str:
    """The first line of what an exception says, or its name."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
