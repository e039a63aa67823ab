"""Albums: folders, lists and videos of photos, fitted in batches; one person over all of them if asked."""

from fitdiff.album.album import Album
from fitdiff.album.film import save_film
from fitdiff.album.index_page import save_index
from fitdiff.album.results import Entry, publish
from fitdiff.album.sources import Source, Sources, default_results, find_sources

__all__ = [
    "Album",
    "Entry",
    "Source",
    "Sources",
    "default_results",
    "find_sources",
    "publish",
    "save_film",
    "save_index",
]
