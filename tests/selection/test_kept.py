"""What is kept case by case: made once, and made anew where it is damaged or of another key."""

import numpy as np
import pytest

from mijax.selection.kept import kept


@pytest.fixture
def made(tmp_path):
    """``made(names, key)``: the names that were made, and the arrays."""

    def run(names, key=1, stop=None):
        asked = []

        def make(missing):
            for name in missing:
                if name == stop:
                    raise KeyboardInterrupt
                asked.append(name)
                yield {"value": np.array([len(name), key])}

        found = kept(names, make, folder=tmp_path, what="doing", key=key)
        return asked, {name: arrays["value"].tolist() for name, arrays in found.items()}

    return run


def test_goes_on_where_it_was_killed(made):
    with pytest.raises(KeyboardInterrupt):
        made(["a", "bb", "ccc"], stop="ccc")
    assert made(["a", "bb", "ccc"]) == (["ccc"], {"a": [1, 1], "bb": [2, 1], "ccc": [3, 1]})
    assert made(["ccc", "a"]) == ([], {"ccc": [3, 1], "a": [1, 1]})


def test_another_key_is_another_value(made):
    made(["a"])
    assert made(["a"], key=2) == (["a"], {"a": [1, 2]})
    assert made(["a"], key=1) == ([], {"a": [1, 1]})


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 half"])
def test_a_damaged_file_is_made_anew(made, tmp_path, content):
    made(["a"])
    (file,) = tmp_path.rglob("a.npz")
    file.write_bytes(content)
    assert made(["a"]) == (["a"], {"a": [1, 1]})
