"""`benchmark=people`: people who do not exist, so that shape, skin, light and identity are known. No download."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fitdiff.evaluation.benchmark import BenchmarkError, Context, Evaluation
from fitdiff.registry import register

if TYPE_CHECKING:
    from fitdiff.evaluation.people_scores import Method, Part, PeopleScores

METHODS = ("mean_face", "ridge", "landmarks", "adam", "unguided", "unguided_mean", "fit")
"""What can compete; see `people_scores.methods_of`."""

PORTRAITS = ("usual", "hard")


@register("benchmark", "people")
class People:
    """Held-out synthetic people by several methods, scored by everything that `Scorer` measures.

    The last method is the one that is judged: its metrics have plain names, those of the others `<method>/<metric>`.
    What is fitted and scored is kept in `out/parts`, a file a method and batch; the same command goes on.
    """

    def __init__(
        self,
        *,
        n: int = 16,
        methods: tuple[str, ...] = ("mean_face", "landmarks", "unguided", "fit"),
        portraits: str = "hard",
        known: bool = False,
        surface: bool = False,
        judge: str | None = None,
        pictures: int = 6,
    ) -> None:
        """What is measured.

        Args:
            n: people. methods: of `METHODS`; ridge needs the training data.
            portraits: hard (up to 60 degrees to the side, any light, often something before the face) or usual.
            known: camera, light, expression and landmarks are given as they were made; nothing is detected.
            surface: also errors from the true surface in four regions by REALY's protocol; 18 s of a core a face.
            judge: a second identity network, as in `facenet`; its metrics begin with its name.
            pictures: people in `people.jpg`, drawn by the seed; 0 is no picture.

        Raises:
            ValueError: an option is out of range.
        """
        if unknown := [name for name in methods if name not in METHODS]:
            raise ValueError(f"benchmark.methods: {unknown} are unknown; choose from {', '.join(METHODS)}")
        if not methods or len(set(methods)) < len(methods):
            raise ValueError("benchmark.methods: name at least one method, and each once")
        if portraits not in PORTRAITS:
            raise ValueError(f"benchmark.portraits={portraits}: give {' or '.join(PORTRAITS)}")
        if n < 1 or pictures < 0:
            raise ValueError(f"benchmark.n={n} pictures={pictures}: give 1 or more people, and 0 or more pictures")
        self.n, self.methods, self.portraits, self.known = n, tuple(methods), portraits, known
        self.surface, self.judge, self.pictures = surface, judge, pictures

    def __call__(self, context: Context) -> Evaluation:
        """Fit and score; see `Benchmark`.

        Raises:
            BenchmarkError: several samples a photo are asked for. DataError: the model knows no synthetic people.
        """
        from fitdiff.evaluation.people_scores import PeopleScores
        from fitdiff.evaluation.people_tables import evaluation_of

        if context.samples > 1:
            raise BenchmarkError(f"samples={context.samples}: benchmark=people fits each person once; leave it out")
        scores = PeopleScores(self, context)
        return evaluation_of(self, scores, list(self._parts(scores, context)))

    def _parts(self, scores: PeopleScores, context: Context) -> Iterator[tuple[Method, Part]]:
        """Every method's result of every batch, the batches in order."""
        for number in context.track(scores.people.missing(self.n), f"{self.portraits} portraits"):
            scores.people.make(number)
        batches = [range(start, min(start + context.batch, self.n)) for start in range(0, self.n, context.batch)]
        steps = [(batch, method) for batch in batches for method in scores.methods]
        for batch, method in context.track(steps, "fitting people"):
            yield method, scores.part(method, batch)
