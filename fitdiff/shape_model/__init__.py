"""Shape models: identity code and expression weights to vertices in head space."""

from fitdiff.shape_model.anny_face import AnnyFace
from fitdiff.shape_model.anny_population import Population, sample_population

__all__ = ["AnnyFace", "Population", "sample_population"]
