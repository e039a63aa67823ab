"""Keys of kept results: content alone decides."""

import os

import pytest

from fitdiff.evaluation.file_digest import digest_of


def test_content_and_order_decide_and_neither_names_nor_dates(tmp_path):
    a, b, c = (tmp_path / name for name in "abc")
    for path, text in ((a, "one"), (b, "one"), (c, "two")):
        path.write_text(text)
        os.utime(path, (0, 0))
    assert digest_of([a]) == digest_of([b]) != digest_of([c])
    assert digest_of([a, c]) != digest_of([c, a])
    before = digest_of([a], "x")
    os.utime(a, (9, 9))
    assert digest_of([a], "x") == before != digest_of([a], "y")


def test_pieces_do_not_run_into_each_other(tmp_path):
    assert digest_of([], "ab", "c") != digest_of([], "a", "bc") != digest_of([], "abc")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        digest_of([tmp_path / "gone"])
