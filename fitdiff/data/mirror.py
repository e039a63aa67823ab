"""Files of a folder behind a URL, brought to a local folder of bounded size when they are needed."""

from __future__ import annotations

import json
import os
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
from filelock import FileLock

from fitdiff.data.shard_file import DataError, ShardFile
from fitdiff.storage import sync

LOCKS = 64
"""Lock files of a mirror: processes that want the same file download it once."""

ASKED_AT_THE_START = 4
"""Attempts for what a run begins with: somebody may wait for the message that the URL is wrong."""


class Remote:
    """What lies under `url`, whatever fsspec opens: https://, s3://, gs://, az://, hf://, file://, ...

    Works in forked processes, too.

    Args:
        url: of the folder. attempts: for each file; all of them by default last 8.5 minutes, so that an outage of the
            network does not end a training. pause: seconds before the second attempt, doubled after each.

    Raises:
        DataError: fsspec needs a package for this kind of URL.
    """

    def __init__(self, url: str, attempts: int = 10, pause: float = 1.0) -> None:
        self.url, self.attempts, self.pause = url.rstrip("/"), attempts, pause
        self._connection: tuple[int, Any, str] | None = None
        self._connect()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_connection": None}

    def read_json(self, name: str) -> Any:
        """A JSON file as it is now at the URL.

        Raises:
            DataError: there is none, it could not be read, or it is no JSON.
        """
        attempts = min(self.attempts, ASKED_AT_THE_START)
        data = self._try(name, lambda remote, root: remote.cat_file(f"{root}/{name}"), attempts)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self.url}/{name} is no JSON ({error}): is this the URL of a data set?") from error

    def download(self, name: str, path: Path) -> ShardFile:
        """Bring a safetensors file to `path`, whole and on the disk for good; what stops short is asked for again.

        Raises:
            DataError: there is none, or it could not be read as safetensors in all attempts.
        """

        def get(remote: Any, root: str) -> ShardFile:
            remote.get_file(f"{root}/{name}", str(path))
            sync(path)
            return ShardFile(path)

        return self._try(name, get, self.attempts)

    def _connect(self) -> tuple[int, Any, str]:
        """(process, file system, path of the URL in it); connections do not survive a fork."""
        if self._connection is None or self._connection[0] != os.getpid():
            try:
                remote, root = fsspec.core.url_to_fs(self.url, skip_instance_cache=True)
            except (ImportError, ValueError) as error:  # a package is missing; fsspec knows no such protocol
                raise DataError(f"{self.url} cannot be read: {error}") from error
            self._connection = os.getpid(), remote, root
        return self._connection

    def _try(self, name: str, read: Any, attempts: int) -> Any:
        for attempt in range(attempts):
            try:
                _, remote, root = self._connect()
                return read(remote, root)
            except FileNotFoundError as error:
                raise DataError(f"{self.url}/{name} does not exist") from error
            except Exception as error:  # each kind of storage has errors of its own
                if attempt + 1 == attempts:
                    what = f"{self.url}/{name} could not be read in {attempts} attempts"
                    raise DataError(f"{what}: {type(error).__name__}: {error}") from error
                time.sleep(self.pause * 2**attempt)


class Mirror:
    """Read-only view of a set of shards behind a URL, safe in any number of processes, forked ones included.

    A file is local when it is there whole; those whose opening is longest ago go first when room is needed. A file that
    a process has open keeps its room until it is closed there.

    Args:
        remote: where the set is. folder: local, for this very set. Its parent holds nothing but folders of mirrors,
            which share the room: former states of the set go like everything else that is not used.
        limit: bytes that the local files may have together, beyond which only the newest of them stays.
    """

    def __init__(self, remote: Remote, folder: Path, limit: float) -> None:
        self.remote, self.folder, self.limit = remote, folder, limit
        folder.mkdir(parents=True, exist_ok=True)

    def open(self, name: str) -> ShardFile:
        """The shard `split/name`, downloaded if it is not here.

        Raises: as `Remote.download`.
        """
        path = self.folder / name
        with suppress(FileNotFoundError):
            return _opened(path)
        number = zlib.crc32(name.encode()) % LOCKS
        with FileLock(self.folder / f".lock-{number}"):
            with suppress(FileNotFoundError):  # another process brought it meanwhile
                return _opened(path)
            # One name a lock: what a killed process left is written over.
            return self._bring(name, self.folder / f".download-{number}", path)

    def _bring(self, name: str, temporary: Path, path: Path) -> ShardFile:
        # Open before it has its name: from then on any process may need its room.
        file = self.remote.download(name, temporary)
        path.parent.mkdir(exist_ok=True)
        os.replace(temporary, path)
        file.path = path
        with FileLock(self.folder.parent / ".lock-room"):
            self._make_room(path)
        return file

    def _make_room(self, newest: Path) -> None:
        """Delete the files that were opened longest ago, until the limit holds."""
        files = []
        for path in self.folder.parent.glob("*/*/shard-*.safetensors"):
            with suppress(FileNotFoundError):  # somebody cleans up by hand
                state = path.stat()
                files.append((state.st_mtime_ns, state.st_size, path))
        excess = sum(size for _, size, _ in files) - self.limit
        for _, size, path in sorted(files):
            if excess <= 0:
                return
            if path != newest:
                path.unlink(missing_ok=True)
                excess -= size


def _opened(path: Path) -> ShardFile:
    os.utime(path)
    return ShardFile(path)
