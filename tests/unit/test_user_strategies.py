"""A user's own file: loaded, named by content, refused with the line that is wrong."""

import pytest

from gpt_trader.errors import NotFound, Refused, UnknownName
from gpt_trader.strategies import user
from tests.bars_factory import bars_of

SOURCE = '''
from typing import Literal

from gpt_trader.strategies.base import Strategy


class Always(Strategy):
    """Always the same side."""

    side: Literal[0, 1] = 1

    def targets(self, bars, first=0):
        import numpy as np

        wanted = np.full(len(bars), float(self.side))
        wanted[:first] = 0
        return wanted
'''


def test_a_file_is_loaded_and_found_again_by_its_hash(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    assert user.is_file_reference(f"{path}:Always")
    assert user.split_reference(f"{path}:Always") == (path, "Always")
    strategy = user.load_file(path, "Always")
    assert strategy(side=1).targets(bars_of([1, 2, 3])).tolist() == [1, 1, 1]

    stored = user.stored_id(SOURCE.encode(), "Always")
    digest, class_name = user.parse_stored_id(stored)
    (tmp_path / f"{digest}.py").write_text(SOURCE)
    assert class_name == "Always"
    assert user.resolve(stored, tmp_path)(side=0).targets(bars_of([1, 2])).tolist() == [0, 0]


def test_deferred_annotations_resolve(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from __future__ import annotations\n" + SOURCE)
    assert user.load_file(path, "Always")(side=0).params() == {"side": 0}


def test_a_stored_file_that_was_changed_is_refused(tmp_path):
    stored = user.stored_id(SOURCE.encode(), "Always")
    digest, _ = user.parse_stored_id(stored)
    (tmp_path / f"{digest}.py").write_text(SOURCE + "\n# changed")
    with pytest.raises(Refused, match="was changed"):
        user.resolve(stored, tmp_path)


def test_a_stored_file_that_is_gone_says_what_to_do(tmp_path):
    with pytest.raises(NotFound, match="run it from its file"):
        user.resolve(user.stored_id(b"x", "X"), tmp_path)


@pytest.mark.parametrize(
    ("source", "class_name", "said"),
    [
        ("def broken(:\n", "Any", "line 1, does not run: SyntaxError"),
        ("x = 1\ny = x / 0\n", "Any", "line 2, does not run: ZeroDivisionError"),
        ("import sys\nsys.exit(0)\n", "Any", "line 2, does not run: SystemExit: 0"),
        ("class Thing:\n    pass\n", "Thing", "not a subclass"),
        (
            "from gpt_trader.strategies.base import Strategy\nclass T(Strategy):\n    pass\n",
            "T",
            "does not define targets",
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path, source, class_name, said):
    path = tmp_path / "bad.py"
    path.write_text(source)
    with pytest.raises(Refused, match=said):
        user.load_file(path, class_name)


def test_a_missing_class_names_the_nearest(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    with pytest.raises(UnknownName) as refusal:
        user.load_file(path, "Allways")
    assert refusal.value.problems[0].nearest == "Always"


def test_a_missing_file_and_a_missing_class_name_are_refused(tmp_path):
    with pytest.raises(NotFound):
        user.load_file(tmp_path / "none.py", "X")
    with pytest.raises(Refused, match=r"mine\.py:MyStrategy"):
        user.split_reference("./mine.py")
