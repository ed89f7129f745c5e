"""Names and paths that come from users and from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from bcgan_tf.errors import UserError
from bcgan_tf.files import check_name, path_within


@pytest.mark.parametrize("name", ["mnist", "pgd-at", "v1.2", "a_b", "1a", "2-1"])
def test_a_plain_name_is_taken(name: str) -> None:
    assert check_name(name, "the model") == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "/etc", "a/b", "a\\b", "12", "a b", "a\n", "é", "a\0"]
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="cannot name the model"):
        check_name(name, "the model")


def test_paths_stay_under_their_root(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    assert path_within(tmp_path / "root", "a/b") == tmp_path / "root" / "a" / "b"
    for out in ("../x", "/etc/passwd", "a/../../x", "link/x", ".."):
        with pytest.raises(UserError, match="lies outside"):
            path_within(tmp_path / "root", out)
