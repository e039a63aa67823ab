"""`benchmark=identity`: do fits look like the person, to the network that guided them and to one that did not?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fitdiff.evaluation.benchmark import BenchmarkError, Context, Evaluation
from fitdiff.registry import register

if TYPE_CHECKING:
    from fitdiff.evaluation.identity_photos import PersonPhoto


@register("benchmark", "identity")
class Identity:
    """Cosine similarity of photos with their fits, beside that of photos of the same person and of different people.

    The network that guides a fit is optimised directly: what it says of the fit is no evidence of likeness by itself. A
    held-out network is; of the built-in ones only dlib's weights come in a package.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        pairs: str | None = None,
        judge: str | None = None,
        n: int = 8,
        reference: int = 64,
    ) -> None:
        """What is measured.

        Args:
            path: folder of photos; photos in one folder below it are of one person. Null: synthetic people, and the
                real faces in free photos that installed packages ship.
            pairs: list of pairs to verify, a line `photo photo 0|1`; null: all pairs, if a person has several photos.
            judge: the held-out network, as in `facenet` (its weights are the user's).
            n: synthetic people to fit without `path`. reference: synthetic people whose portraits give the
                distributions where no person has several photos.

        Raises:
            ValueError: an option is out of range, or pairs without photos.
        """
        if n < 0 or reference < 2:
            raise ValueError(
                f"benchmark.n={n} reference={reference}: give 0 or more, and 2 or more people of reference"
            )
        if pairs and not path:
            raise ValueError("benchmark.pairs names photos of benchmark.path: give that folder, too")
        self.path, self.pairs, self.judge, self.n, self.reference = path, pairs, judge, n, reference

    def __call__(self, context: Context) -> Evaluation:
        """Fit, embed and compare; see `Benchmark`.

        Raises:
            BenchmarkError: no photo could be fitted, or the list of pairs is none.
        """
        from fitdiff.evaluation import identity_tables
        from fitdiff.evaluation.identity_photos import find_photos, read_pairs
        from fitdiff.evaluation.identity_scores import embed_fits, networks_of
        from fitdiff.evaluation.photo_meshes import fit_photos

        given = find_photos(Path(self.path).expanduser(), context.out) if self.path else []
        listed = read_pairs(Path(self.pairs).expanduser(), given) if self.pairs else None
        networks = networks_of(context.model, self.judge)
        photos = given or self._people_and_shipped(context)
        entries = {entry.name: entry for entry in fit_photos(context, {photo.name: photo.path for photo in photos})}
        fitted = [photo for photo in photos if entries[photo.name].folder]
        failed = {name: str(entry.error) for name, entry in entries.items() if not entry.folder}
        if not fitted:
            raise BenchmarkError(
                f"none of {len(photos)} photos could be fitted; the first: {next(iter(failed.items()))}"
            )
        folders = {photo.name: context.out / "fits" / str(entries[photo.name].folder) for photo in fitted}
        shown = context.track(fitted, "recognising faces")
        embeddings = embed_fits(context, shown, folders, networks)
        return identity_tables.evaluation_of(self, context, fitted, failed, networks, embeddings, listed)

    def _people_and_shipped(self, context: Context) -> list[PersonPhoto]:
        from fitdiff.evaluation.identity_photos import PersonPhoto
        from fitdiff.evaluation.shipped_photos import SHIPPED

        real = [source.find() for source in SHIPPED if source.free]
        return self._synthetic(context) + [PersonPhoto(p.name, p, p.name) for p in real if p.is_file()]

    def _synthetic(self, context: Context) -> list[PersonPhoto]:
        """Portraits of held-out people as files, so that they are fitted as any photo is."""
        from fitdiff.avatar.pictures import save_png
        from fitdiff.evaluation.identity_photos import PersonPhoto
        from fitdiff.evaluation.people import PHOTO
        from fitdiff.evaluation.portraits import HeldOutPeople

        if not self.n:
            return []
        portraits = HeldOutPeople(context.model, "usual")
        for number in context.track(portraits.missing(self.n), "portraits"):
            portraits.make(number)
        images = portraits.gather(range(self.n))["image"][:, PHOTO]
        photos = []
        for number, image in enumerate(images):
            path = context.out / "photos" / portraits.folder.name / f"person-{number}.png"
            if not path.exists():  # a new file would be a new photo, whose fit is made again
                save_png(image.permute(1, 2, 0).numpy(), path)
            photos.append(PersonPhoto(path.name, path, path.name))
        return photos
