"""Which photos an album has, how its results appear, and what its page says."""

import csv
import json
import os

import numpy as np
import pytest
from PIL import Image

from fitdiff.album import Entry, find_sources, publish, save_index
from fitdiff.album.album import spread
from fitdiff.album.film import Frames, save_film
from fitdiff.album.results import METRICS, SEAL, find_whole, made_from, seal_result
from fitdiff.alignment.photo import PhotoError
from fitdiff.storage import write_json

METRIC = {"guided": 0.9, "unguided": 0.5, "mean_face": 0.4}


def picture(path, size=(40, 30), colour=(200, 100, 50)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def names(sources):
    return [source.name for source in sources.photos]


def test_a_folder_is_searched_in_natural_order_without_what_is_hidden(tmp_path):
    for name in ("10.jpg", "9.JPG", "b/2.png", "b/.hidden.png", ".secret/1.png", "a.jpg", "a.png"):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a photo")
    sources = find_sources(str(tmp_path))
    assert names(sources) == ["9.JPG", "10.jpg", "a.jpg", "a.png", "b/2.png"]
    assert sources.unusable == {}
    assert not sources.single
    assert all(source.path.is_file() for source in sources.photos)


def test_links_in_a_circle_end_and_linked_folders_are_searched_once(tmp_path):
    picture(tmp_path / "album" / "sub" / "1.png")
    picture(tmp_path / "elsewhere" / "2.png")
    (tmp_path / "album" / "sub" / "up").symlink_to(tmp_path / "album")
    (tmp_path / "album" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "album" / "nowhere").symlink_to(tmp_path / "nothing")
    assert names(find_sources(str(tmp_path / "album"))) == ["linked/2.png", "sub/1.png"]


def test_results_inside_of_the_searched_folder_are_no_photos(tmp_path):
    picture(tmp_path / "1.png")
    picture(tmp_path / "out" / "1.png" / "render.png")
    picture(tmp_path / "older" / "1" / "render.png")
    write_json(tmp_path / "older" / "1" / SEAL, {})
    picture(tmp_path / "older" / "frames" / "0.jpg")
    write_json(tmp_path / "older" / "frames" / "video.json", {})
    assert names(find_sources(str(tmp_path), tmp_path / "out")) == ["1.png"]


def test_folders_that_cannot_be_read_are_listed(tmp_path, monkeypatch):
    picture(tmp_path / "1.png")
    (tmp_path / "secret").mkdir()
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    sources = find_sources(str(tmp_path))
    assert names(sources) == ["1.png"]
    assert sources.unusable == {"secret": "cannot be read (Permission denied)"}


def test_a_folder_without_photos_says_so(tmp_path):
    with pytest.raises(PhotoError, match="no photo in this folder"):
        find_sources(str(tmp_path))


def test_a_list_keeps_its_order_and_tells_equal_names_apart(tmp_path):
    paths = [picture(tmp_path / name) for name in ("x/a.jpg", "y/a.jpg", "with, comma.jpg")]
    sources = find_sources(f'[{paths[1]}, {paths[0]}, "{paths[2]}", {paths[0]}, missing.jpg, {tmp_path}]')
    assert names(sources) == ["a.jpg", "2-a.jpg", "with, comma.jpg", "missing.jpg"]
    assert [s.path for s in sources.photos[:2]] == [paths[1], paths[0]]
    assert list(sources.unusable) == [str(tmp_path)]
    with pytest.raises(PhotoError, match="list of photos is empty"):
        find_sources("[]")


def test_albums_of_different_people_never_share_a_folder(tmp_path):
    for name in ("x/holiday/1.jpg", "y/holiday/1.jpg"):
        picture(tmp_path / name)
    requests = [str(tmp_path / side / "holiday") for side in "xy"] + [f"[{tmp_path}/{side}/holiday/1.jpg]" for side in "xy"]  # fmt: skip # noqa: E501
    folders = [find_sources(request).results for request in requests]
    assert len(set(folders)) == 4
    assert [find_sources(request).results for request in requests] == folders
    assert find_sources(str(tmp_path / "x/holiday/1.jpg")).results.name == "1"
    assert names(find_sources("[person, frames]")) == ["2-person", "2-frames"]


def test_a_file_named_like_a_list_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "[a].jpg").rename(tmp_path / "[a]")
    assert find_sources("[a]").single


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Ten frames, each of a grey of its own."""
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    path = tmp_path_factory.mktemp("video") / "my film 100%.mp4"
    writer = ffmpeg.write_frames(str(path), (64, 48), fps=10, macro_block_size=2)
    writer.send(None)
    for frame in range(10):
        writer.send(np.full((48, 64, 3), 20 * frame + 20, np.uint8))
    writer.close()
    return path


@pytest.mark.parametrize(("every", "expected"), [(1, range(10)), (4, (0, 4, 8))])
def test_frames_of_a_video_are_the_right_ones(video, tmp_path, every, expected):
    sources = find_sources(str(video), tmp_path / "out", every)
    assert names(sources) == [f"{number:08d}.jpg" for number in expected]
    greys = [np.asarray(Image.open(source.path)).mean() for source in sources.photos]
    np.testing.assert_allclose(greys, [20 * number + 20 for number in expected], atol=3)
    assert sources.frames_per_second == pytest.approx(10 / every)


def test_frames_are_taken_once_and_anew_for_another_choice(video, tmp_path):
    first = find_sources(str(video), tmp_path, 5).photos[0].path
    before = first.stat().st_mtime_ns
    assert find_sources(str(video), tmp_path, 5).photos[0].path.stat().st_mtime_ns == before
    assert len(find_sources(str(video), tmp_path, 2).photos) == 5


def test_a_folder_of_frames_that_is_not_ours_is_left_alone(video, tmp_path):
    mine = picture(tmp_path / "frames" / "precious.png")
    with pytest.raises(PhotoError, match="frames is there, but not from"):
        find_sources(str(video), tmp_path)
    assert mine.exists()


def test_a_moving_gif_is_a_video_and_a_still_one_a_photo(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    frames = [Image.new("L", (64, 48), level) for level in (0, 255)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "still.gif")
    assert len(find_sources(str(tmp_path / "moving.gif"), tmp_path / "out").photos) == 2
    assert find_sources(str(tmp_path / "still.gif")).single


def test_a_broken_video_is_one_line_and_leaves_nothing(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    (tmp_path / "film.mp4").write_bytes(b"no film")
    with pytest.raises(PhotoError, match="not a video that can be read"):
        find_sources(str(tmp_path / "film.mp4"), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(PhotoError, match="every=0"):
        find_sources(str(tmp_path / "film.mp4"), tmp_path / "out", 0)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 100])
def test_the_spread_order_has_all_items_and_even_beginnings(count):
    order = list(spread(range(count)))
    assert sorted(order) == list(range(count))
    for taken in (4, 8, 16):
        gaps = np.diff(sorted(order[:taken]))
        assert len(gaps) == 0 or count < taken or gaps.max() <= 2 * count / taken + 1


def test_a_result_appears_whole_or_not_at_all(tmp_path):
    def fail(folder):
        (folder / "half").write_text("")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        publish(tmp_path / "fit", fail)
    assert list(tmp_path.iterdir()) == []


def test_a_new_result_replaces_files_and_keeps_strangers(tmp_path):
    def write(text):
        return lambda folder: [(folder / name).write_text(text) for name in (SEAL, "z")]

    publish(tmp_path / "fit", write("old"))
    (tmp_path / "fit" / "mine").write_text("kept")
    publish(tmp_path / "fit", write("new"))
    assert {file.name: file.read_text() for file in (tmp_path / "fit").iterdir()} == {SEAL: "new", "z": "new", "mine": "kept"}  # fmt: skip # noqa: E501
    assert [path.name for path in tmp_path.iterdir()] == ["fit"]


def test_nothing_of_an_earlier_result_stays(tmp_path):
    for name in (SEAL, "spread.png", "made_from.json", "mine.png"):
        (tmp_path / name).write_text("old")
    publish(tmp_path, lambda folder: (folder / SEAL).write_text("new"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [SEAL, "mine.png"]


def test_a_folder_that_is_no_result_loses_nothing(tmp_path):
    (tmp_path / "render.png").write_text("mine")
    publish(tmp_path, lambda folder: (folder / SEAL).write_text("new"))
    assert (tmp_path / "render.png").read_text() == "mine"


def stored(out, folder, key, faces=1):
    report = {name: METRIC for name in METRICS} | {"notes": ["dark"], "seconds": {"total": 2.0}}
    write_json(out / folder / SEAL, report)
    seal_result(out / folder, key, faces)


def test_whole_results_are_known_by_photo_and_settings(tmp_path):
    photo = picture(tmp_path / "a.jpg")
    key = made_from([photo], {"seed": 0})
    assert key == made_from([photo], {"seed": 0})
    assert key != made_from([photo], {"seed": 1})
    stored(tmp_path, "a", key)
    (entry,) = find_whole(tmp_path, "a", key)
    assert (entry.kept, entry.folder, entry.metrics["id_cosine"]) == (True, "a", METRIC)
    picture(photo, (50, 50))
    assert find_whole(tmp_path, "a", made_from([photo], {"seed": 0})) == []
    (tmp_path / "a" / SEAL).write_text('{"half')
    assert find_whole(tmp_path, "a", key) == []


def test_a_group_photo_is_whole_with_its_last_face(tmp_path):
    for number in (1, 2):
        stored(tmp_path, f"a/face{number}", "key", 3)
    assert find_whole(tmp_path, "a", "key") == []
    stored(tmp_path, "a/face3", "key", 3)
    assert [entry.name for entry in find_whole(tmp_path, "a", "key")] == ["a/face1", "a/face2", "a/face3"]


def test_all_faces_are_found_behind_a_result_of_one(tmp_path):
    stored(tmp_path, "a", "largest")
    for number in (1, 2):
        stored(tmp_path, f"a/face{number}", "all", 2)
    assert [entry.name for entry in find_whole(tmp_path, "a", "all")] == ["a/face1", "a/face2"]
    assert [entry.name for entry in find_whole(tmp_path, "a", "largest")] == ["a"]


def test_a_result_of_an_older_version_is_not_whole(tmp_path):
    stored(tmp_path, "a", "key")
    write_json(tmp_path / "a" / SEAL, {METRICS[0]: METRIC, "notes": [], "seconds": {"total": 2.0}})
    assert find_whole(tmp_path, "a", "key") == []


def test_the_page_does_without_a_picture_and_links_the_frames_of_a_person(tmp_path):
    picture(tmp_path / "b" / "frame.jpg")
    picture(tmp_path / "b" / "comparison.png")
    metrics = {name: METRIC for name in METRICS}
    page = save_index(tmp_path, "album", [Entry(name, name, None, metrics, [], 1.0) for name in "ab"]).read_text()
    assert page.count("<img") == 1
    assert 'src="b/frame.jpg"' in page


def test_the_page_shows_fits_and_reasons_whatever_the_names(tmp_path):
    odd = os.fsdecode(b"<b>\xff&.jpg")
    picture(tmp_path / odd / "comparison.png")
    (tmp_path / odd / "avatar.glb").touch()
    metrics = {name: METRIC for name in METRICS}
    entries = [Entry(odd, odd, None, metrics, ["a <note>"], 1.5), Entry("bad.jpg", error="no face & no hope")]
    page = save_index(tmp_path, "my <album>", entries, {"a film": "film.mp4"}).read_text()
    assert "my &lt;album&gt;" in page
    assert "&lt;b&gt;?&amp;.jpg" in page
    assert 'href="%3Cb%3E%FF%26.jpg/avatar.glb"' in page
    assert "a &lt;note&gt;" in page
    assert "bad.jpg: no face &amp; no hope" in page
    assert page.count('src="data:image/jpeg;base64,') == 1
    assert 'src="http' not in page
    results = json.loads((tmp_path / "results.json").read_text())
    assert [row["error"] for row in results] == [None, "no face & no hope"]
    with (tmp_path / "results.csv").open(newline="", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert [row["photo"] for row in rows] == [odd, "bad.jpg"]
    assert (rows[0]["id_cosine"], rows[1]["id_cosine"]) == ("0.9", "")


def test_frames_of_different_sizes_share_a_canvas_with_even_sides(tmp_path):
    for name, size, colour in (("1", (31, 20), (255, 0, 0)), ("2", (20, 41), (0, 0, 255))):
        picture(tmp_path / name / "frame.jpg", size, colour)
    frames = Frames([tmp_path / "1" / "frame.jpg", tmp_path / "2" / "frame.jpg"])
    assert [frame.shape for frame in frames] == [(42, 32, 3)] * 2
    np.testing.assert_allclose(frames[0][21, 16], (255, 0, 0), atol=4)
    np.testing.assert_array_equal(frames[0][0, 0], 255)
    assert save_film([tmp_path / "1"], tmp_path, None) is None
    assert save_film([tmp_path / "1", tmp_path / "2"], tmp_path, 5.0).stat().st_size > 100
