"""Real faces in photographs that installed packages ship. Every file keeps its own licence; nothing is copied.

Photos without a stated licence are measured where their package is installed, and are in no picture that is published.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PhotoSource:
    """A photo inside a package: module, path in its folder, whose it is, and whether it may be published here."""

    package: str
    path: str
    licence: str
    free: bool

    def find(self) -> Path:
        """Its path, without importing the package; one that does not exist where the package is not installed."""
        spec = importlib.util.find_spec(self.package)
        places = list(spec.submodule_search_locations or ()) if spec else []
        return Path(places[0] if places else self.package) / self.path


SHIPPED = (
    PhotoSource("skimage", "data/astronaut.png", "NASA, public domain", True),
    PhotoSource("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "US Navy, public domain", True),
    PhotoSource("insightface", "data/images/t1.jpg", "none stated", False),
    PhotoSource("insightface", "data/images/Tom_Hanks_54745.png", "none stated", False),
)
"""All that a detector finds in the packages that this project needs or names; scikit-image's `camera` (a profile of 55
pixels) and `lfw_subset` (25 pixels a side) are too small to be recognised."""
