"""Fitting photos: Algorithm 1 of the supplement, and its rival."""

from fitdiff.fitting.adam import AdamFitting
from fitdiff.fitting.guided import GuidedFitting
from fitdiff.fitting.problem import FitProblem, FitResult, OnStep, first_noise, observed_features
from fitdiff.fitting.refine import LearnedPrior
from fitdiff.fitting.scene import LIGHT_STRENGTH, RATES, SceneOptimiser, ScenePrior

__all__ = [
    "LIGHT_STRENGTH",
    "RATES",
    "AdamFitting",
    "FitProblem",
    "FitResult",
    "GuidedFitting",
    "LearnedPrior",
    "OnStep",
    "SceneOptimiser",
    "ScenePrior",
    "first_noise",
    "observed_features",
]
