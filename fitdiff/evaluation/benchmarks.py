"""The built-in benchmarks: importing this registers them. What is heavy they import when they are called."""

from fitdiff.evaluation import identity_benchmark, people_benchmark  # noqa: F401
from fitdiff.evaluation.now import benchmark  # noqa: F401
from fitdiff.evaluation.realy import benchmark as realy_benchmark  # noqa: F401
