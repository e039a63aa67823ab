"""Files of a folder behind a URL, brought to a local folder of bounded size when they are needed."""

from __future__ import annotations

import json
import os
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import fsspec
from filelock import FileLock

from fitdiff.data.shard_file import DataError, ShardFile

LOCKS = 64
"""Lock files of a mirror: processes that want the same file download it once."""


class Mirror:
    """Read-only view of `url`, whatever fsspec opens: https://, s3://, gs://, az://, hf://, file://, ...

    Safe in any number of processes, forked ones included. A file is local when it is there whole; the least recently
    opened go first when room is needed. A file that a process has open keeps its room until it is closed there.

    Args:
        url: of the folder. folder: local. limit: bytes that the local files may have together, beyond which only the
            newest of them stays. attempts: for each file. pause: seconds before the second, doubled after each.

    Raises:
        DataError: fsspec needs a package for this kind of URL.
    """

    def __init__(self, url: str, folder: Path, limit: float, attempts: int = 5, pause: float = 1.0) -> None:
        self.url, self.folder, self.limit, self.attempts, self.pause = url.rstrip("/"), folder, limit, attempts, pause
        self._remote: tuple[int, Any, str] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._connect()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_remote": None}

    def read_json(self, name: str) -> Any:
        """A JSON file as it is now at the URL.

        Raises:
            DataError: there is none, or it could not be read.
        """
        return json.loads(self._try(name, lambda remote, root: remote.cat_file(f"{root}/{name}")))

    def open(self, name: str) -> ShardFile:
        """A safetensors file, downloaded if it is not here.

        Raises: as `read_json`; what is no whole safetensors file counts as not read.
        """
        path = self.folder / name
        while True:
            with FileLock(self.folder / f".lock-{zlib.crc32(name.encode()) % LOCKS}"):
                if not path.exists():
                    self._try(name, lambda remote, root: _download(remote, f"{root}/{name}", path))
                    self._make_room(path)
            try:
                os.utime(path)
                return ShardFile(path)
            except FileNotFoundError:  # another process needed the room just now
                continue

    def _connect(self) -> tuple[int, Any, str]:
        """(process, file system, path of the URL in it); connections do not survive a fork."""
        if self._remote is None or self._remote[0] != os.getpid():
            try:
                remote, root = fsspec.core.url_to_fs(self.url, skip_instance_cache=True)
            except (ImportError, ValueError) as error:  # a package is missing; fsspec knows no such protocol
                raise DataError(f"{self.url} cannot be read: {error}") from error
            self._remote = os.getpid(), remote, root
        return self._remote

    def _try(self, name: str, read: Any) -> Any:
        for attempt in range(self.attempts):
            try:
                _, remote, root = self._connect()
                return read(remote, root)
            except FileNotFoundError as error:
                raise DataError(f"{self.url}/{name} does not exist") from error
            except Exception as error:  # each kind of storage has errors of its own
                if attempt + 1 == self.attempts:
                    what = f"{self.url}/{name} could not be read in {self.attempts} attempts"
                    raise DataError(f"{what}: {type(error).__name__}: {error}") from error
                time.sleep(self.pause * 2**attempt)

    def _make_room(self, newest: Path) -> None:
        """Delete the files that were opened longest ago, until the limit holds."""
        files = sorted((entry.stat().st_mtime_ns, entry.stat().st_size, entry) for entry in self._files())
        excess = sum(size for _, size, _ in files) - self.limit
        for _, size, path in files:
            if excess <= 0:
                return
            if path != newest:
                path.unlink(missing_ok=True)
                excess -= size

    def _files(self) -> list[Path]:
        return list(self.folder.rglob("*.safetensors"))


def _download(remote: Any, source: str, target: Path) -> None:
    """Bring a file whole or not at all: one that stops short is no safetensors file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as folder:
        temporary = Path(folder) / "download"
        remote.get_file(source, str(temporary))
        ShardFile(temporary)
        os.replace(temporary, target)
