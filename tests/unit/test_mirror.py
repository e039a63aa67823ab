"""Files behind a URL: whole or not at all, once, and no more of them than there is room for. Against a real server."""

import functools
import http.server
import json
import multiprocessing
import random
import shutil
import threading

import pytest
import torch

from fitdiff.data import mirror
from fitdiff.data.mirror import Mirror, Remote
from fitdiff.data.read_only import Shards
from fitdiff.data.shard_file import DataError
from fitdiff.data.shards import ShardedDataset, shard_path, write_manifest
from fitdiff.storage import write_tensors
from fitdiff.training.order import global_batch

N, SIZE = 40, 4


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; `faults` maps a file's name to how often it is cut short before it is served whole."""

    def do_GET(self):
        name = self.path.rpartition("/")[2]
        self.server.asked.append(name)
        if self.server.faults.get(name, 0):
            self.server.faults[name] -= 1
            body = self.translate_path(self.path)
            with open(body, "rb") as file:
                half = file.read()[:-100]
            self.send_response(200)
            self.send_header("Content-Length", str(len(half) + (100 if self.server.says_so else 0)))
            self.end_headers()
            self.wfile.write(half)
            return
        super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def origin(tmp_path):
    """A finished data set: 40 people to train on in files of 4, and 4 held out."""
    torch.manual_seed(0)
    for split, n in (("train", N), ("held_out", SIZE)):
        for number in range(n // SIZE):
            tensors = {"maps": torch.randint(256, (SIZE, 9, 8, 8)).to(torch.uint8), "identity": torch.randn(SIZE, 3)}
            write_tensors(shard_path(tmp_path / "set" / split, number), tensors)
    write_manifest(tmp_path / "set", SIZE, 8, "face model")
    return tmp_path / "set"


@pytest.fixture
def server(origin):
    pytest.importorskip("aiohttp", reason="pip install aiohttp: what fsspec reads https:// with")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=origin))
    server.asked, server.faults, server.says_so = [], {}, True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    server.url = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    server.server_close()


def shards(server, tmp_path, **options):
    return Shards(None, None, None, 8, "face model", url=server.url, cache=str(tmp_path / "cache"), **options)


def shard_bytes(origin):
    return shard_path(origin / "train", 0).stat().st_size


def test_an_epoch_over_http_is_the_local_one(server, origin, tmp_path):
    here, there = ShardedDataset(origin / "train", N, SIZE), shards(server, tmp_path).train
    for step in range(5):
        batch = global_batch(N, 8, 0, step, SIZE, 3)
        for key, value in there.gather(batch, ("maps", "identity")).items():
            assert torch.equal(value, here.gather(batch, (key,))[key])


def test_a_small_cache_holds_the_window_and_downloads_each_file_once(server, origin, tmp_path):
    room = 4 * shard_bytes(origin)
    data = shards(server, tmp_path, window=3, cache_gb=room / 1e9)
    most = 0
    for step in range(N // 2):
        data.train.gather(global_batch(N, 2, 0, step, SIZE, data.train.window), ("maps",))
        most = max(most, sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.safetensors")))
    assert 3 * shard_bytes(origin) <= most <= room
    downloads = [name for name in server.asked if name.startswith("shard")]
    assert sorted(downloads) == [shard_path(origin, i).name for i in range(N // SIZE)]


def test_what_is_cached_is_not_downloaded_again(server, tmp_path):
    shards(server, tmp_path).train.gather(range(N), ("maps",))
    before = len(server.asked)
    shards(server, tmp_path).train.gather(range(N), ("maps",))
    assert server.asked[before:] == ["manifest.json"]


@pytest.mark.parametrize("says_so", [True, False], ids=["connection breaks", "file is cut short"])
def test_half_a_file_is_asked_for_again(server, origin, tmp_path, says_so):
    server.faults, server.says_so = {"shard-000000.safetensors": 2}, says_so
    data = Mirror(Remote(server.url, pause=0), tmp_path / "cache" / "set", 1e9)
    assert torch.equal(data.open("train/shard-000000.safetensors").read("maps"),
                       ShardedDataset(origin / "train", N, SIZE).load("maps")[:SIZE])  # fmt: skip
    assert server.asked == 3 * ["shard-000000.safetensors"]


def test_a_file_that_never_comes_whole_is_named_and_leaves_nothing(server, tmp_path):
    server.faults = {"shard-000001.safetensors": 99}
    data = Mirror(Remote(server.url, attempts=3, pause=0), tmp_path / "cache" / "set", 1e9)
    with pytest.raises(DataError, match=r"http://127.*/train/shard-000001.safetensors could not be read in 3 attempts"):
        data.open("train/shard-000001.safetensors")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and not path.name.startswith(".")]
    with pytest.raises(DataError, match=r"shard-000099.safetensors does not exist"):
        data.open("train/shard-000099.safetensors")


def _read(data, indices, results):
    results.put(data.gather(indices, ("identity",))["identity"].sum().item())


def test_forked_workers_read_and_share_downloads(server, origin, tmp_path):
    """As DataLoader's do: after the parent has used its own connection."""
    data = shards(server, tmp_path).train
    data.gather([0], ("maps",))
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=_read, args=(data, range(N), results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    sums = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    whole = ShardedDataset(origin / "train", N, SIZE).gather(range(N), ("identity",))["identity"].sum().item()
    assert sums == 3 * [whole]
    downloads = [name for name in server.asked if name.startswith("shard")]
    assert len(downloads) == len(set(downloads)) == N // SIZE


@pytest.mark.parametrize(("fingerprint", "resolution", "options", "message"), [
    ("other", 8, {}, "was made with fingerprint face model, this run has other"),
    ("face model", 16, {}, "was made with resolution 8, this run has 16"),
    ("face model", 8, {"n": 41}, "data.n is 41; .* holds 40 people"),
    ("face model", 8, {"n": 0}, "data.n is 0; .* holds 40 people"),
    ("face model", 8, {"cache_gb": 0}, "at once, data.cache_gb is 0: give data.cache_gb="),
    ("face model", 8, {"cache_gb": 7e-6}, "at once, data.cache_gb is 7e-06: give data.window=2 "),
    ("face model", 8, {"window": 0}, "data.window is 0; give 1 file or more"),
])  # fmt: skip
def test_a_set_that_does_not_fit_is_refused(origin, tmp_path, fingerprint, resolution, options, message):
    with pytest.raises(DataError, match=message):
        Shards(None, None, None, resolution, fingerprint, url=f"file://{origin}", cache=str(tmp_path / "c"), **options)


def test_any_storage_that_fsspec_knows(origin, tmp_path):
    """Object stores are read through the same calls; the one in memory needs no account."""
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(origin), "/bucket/set", recursive=True)
    data = Shards(None, None, None, 8, "face model", url="memory://bucket/set", n=9, cache=str(tmp_path / "cache"))
    assert (len(data.train), len(data.held_out)) == (9, SIZE)
    assert torch.equal(data.train.load("maps"), ShardedDataset(origin / "train", 9, SIZE).load("maps"))
    assert data.missing() == []


def test_storage_that_needs_a_package_says_which(tmp_path):
    with pytest.raises(DataError, match=r"nosuch://bucket cannot be read: .*nosuch"):
        Remote("nosuch://bucket")


def _browse(url, folder, room, process, results):
    mirror, numbers = Mirror(Remote(url, pause=0), folder, room), random.Random(process)
    try:
        for _ in range(150):
            number = numbers.randrange(N // SIZE)
            mirror.open(f"train/shard-{number:06d}.safetensors").read("identity")
        results.put("went well")
    except Exception as error:
        results.put(repr(error))


def test_processes_that_share_a_cache_take_each_others_room(origin, tmp_path):
    context = multiprocessing.get_context("fork")
    results, folder, room = context.Queue(), tmp_path / "cache" / "set", 3 * shard_bytes(origin)
    work = functools.partial(_browse, f"file://{origin}", folder, room)
    processes = [context.Process(target=work, args=(i, results)) for i in range(4)]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == 4 * ["went well"]
    for process in processes:
        process.join()
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= room


def test_another_set_under_the_same_url_is_not_mixed_with_the_former(origin, tmp_path):
    options = {"url": f"file://{origin}", "cache": str(tmp_path / "cache"), "cache_gb": 11 * shard_bytes(origin) / 1e9}
    Shards(None, None, None, 8, "face model", **options).train.load("maps")
    for number in range(N // SIZE):
        zeros = {"maps": torch.zeros(SIZE, 9, 8, 8, dtype=torch.uint8), "identity": torch.zeros(SIZE, 3)}
        write_tensors(shard_path(origin / "train", number), zeros)
    write_manifest(origin, SIZE, 8, "another face model")
    assert not Shards(None, None, None, 8, "another face model", **options).train.load("maps").any()
    files = list((tmp_path / "cache").rglob("shard-*"))
    assert len(files) == 11  # the former ones made room


def test_a_killed_download_is_written_over_and_a_whole_one_lasts(origin, tmp_path, monkeypatch):
    def killed(remote, name, path):
        path.write_bytes(bytes(100_000))
        raise KeyboardInterrupt

    data = Mirror(Remote(f"file://{origin}"), tmp_path / "cache" / "set", 1e9)
    with monkeypatch.context() as patch:
        patch.setattr(Remote, "download", killed)
        with pytest.raises(KeyboardInterrupt):
            data.open("train/shard-000002.safetensors")
    synced = []
    monkeypatch.setattr(mirror, "sync", synced.append)
    data.open("train/shard-000002.safetensors")
    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.stat().st_size]
    assert [path.name for path in left] == ["shard-000002.safetensors"]
    assert len(synced) == 1


GOOD = {"name": "x", "resolution": 8, "fingerprint": "face model", "shard_size": 4,
        "train": {"shards": 1, "bytes": 1}, "held_out": {"shards": 1, "bytes": 1}}  # fmt: skip


@pytest.mark.parametrize("text", [
    "<html>log in</html>", "[" * 100_000, "{}", "[]", "7",
    *(json.dumps(GOOD | change) for change in (
        {"shard_size": 0}, {"shard_size": 4.0}, {"train": 7}, {"train": {"shards": 0, "bytes": 1}},
        {"held_out": {"shards": -1, "bytes": 1}}, {"name": None}, {"held_out": {"shards": True, "bytes": 1}},
    )),
])  # fmt: skip
def test_what_is_no_manifest_is_named(origin, tmp_path, text):
    (origin / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=rf"file://{origin}/manifest.json is no (JSON|manifest of a data set)"):
        Shards(None, None, None, 8, "face model", url=f"file://{origin}", cache=str(tmp_path / "c"))


def test_a_manifest_claims_no_gaps(origin):
    for number in (12, 15):
        shutil.copy(shard_path(origin / "train", 0), shard_path(origin / "train", number))
    shard_path(origin / "train", 7).unlink()
    write_manifest(origin, SIZE, 8, "face model")
    assert json.loads((origin / "manifest.json").read_text())["train"] == {
        "shards": 7,
        "bytes": 7 * shard_bytes(origin),
    }


def test_the_manifest_says_what_there_is(origin):
    manifest = json.loads((origin / "manifest.json").read_text())
    assert manifest["train"] == {"shards": 10, "bytes": 10 * shard_bytes(origin)}
    assert (manifest["name"], manifest["shard_size"], manifest["resolution"]) == ("set", SIZE, 8)
