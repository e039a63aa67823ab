"""Fitting photos: Algorithm 1 of the supplement, and its rival."""

from fitdiff.fitting.adam import AdamFitting
from fitdiff.fitting.guided import GuidedFitting
from fitdiff.fitting.problem import FitProblem, FitResult, OnStep, first_noise, observed_features
from fitdiff.fitting.scene import LIGHT_STRENGTH, SceneOptimiser

__all__ = [
    "LIGHT_STRENGTH",
    "AdamFitting",
    "FitProblem",
    "FitResult",
    "GuidedFitting",
    "OnStep",
    "SceneOptimiser",
    "first_noise",
    "observed_features",
]
