"""Tables and generated README parts that experiments share."""

import pytest

from experiments.report import BEGIN, END, markdown_table, replace_generated


def test_table():
    assert markdown_table(["", "a"], [["x", "1"], ["y", "2"]]) == "|  | a |\n| --- | --- |\n| x | 1 |\n| y | 2 |"
    with pytest.raises(ValueError, match="got a row of 1 cells, expected 2"):
        markdown_table(["", "a"], [["x"]])


def test_only_the_generated_part_is_replaced(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"# title\n\n{BEGIN}\nold numbers\n{END}\n\nreading\n")
    replace_generated(readme, "new numbers\n")
    assert readme.read_text() == f"# title\n\n{BEGIN}\n\nnew numbers\n\n{END}\n\nreading\n"
    replace_generated(readme, "newer")
    assert readme.read_text().count(BEGIN) == 1
    assert "new numbers" not in readme.read_text()


def test_a_readme_without_markers_is_left_alone(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("by hand")
    with pytest.raises(ValueError, match=r"README\.md: expected the lines"):
        replace_generated(readme, "numbers")
    assert readme.read_text() == "by hand"
