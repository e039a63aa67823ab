"""`python -m fitdiff.report runs=outputs/*`: any set of training runs and evaluations as one self-contained page."""

from fitdiff.report.page import render
from fitdiff.report.runs import Problem, Run
from fitdiff.report.search import find_runs

__all__ = ["Problem", "Run", "find_runs", "render"]
