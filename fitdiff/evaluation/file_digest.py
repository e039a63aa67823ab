"""What a kept result was made from: its key changes when the content of a file does, and not when a file is copied."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def digest_of(files: Iterable[Path], *texts: str) -> str:
    """Hexadecimal SHA-256 of the contents of files, in their order, and of texts. Names and dates do not count.

    Raises:
        OSError: a file cannot be read.
    """
    digests = [
        hashlib.sha256(data).digest() for data in (*(file.read_bytes() for file in files), *map(str.encode, texts))
    ]
    return hashlib.sha256(b"".join(digests)).hexdigest()
