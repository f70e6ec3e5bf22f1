"""Moving windows against a count over everything that was ever let through."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from api.moving_window import MovingWindows

steps = st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 30, allow_nan=False)), max_size=60)


@given(steps, st.integers(1, 5))
def test_no_window_ever_holds_more_than_allowed(steps: list[tuple[str, float]], amount: int) -> None:
    now, let_through = 0.0, {"a": list[float](), "b": list[float]()}
    windows = MovingWindows(clock=lambda: now)
    for key, later in steps:
        now += later
        inside = [at for at in let_through[key] if at > now - 10]
        hit = windows.hit(key, amount, 10)
        assert hit.allowed == (len(inside) < amount)
        if hit.allowed:
            let_through[key].append(now)
            inside.append(now)
        assert hit.remaining == amount - len(inside)
        assert hit.reset_seconds == inside[0] + 10 - now


def test_what_was_hit_longest_ago_makes_room() -> None:
    windows = MovingWindows(clock=lambda: 0.0, places=2)
    for key in ("a", "b", "a", "c"):
        windows.hit(key, 2, 60)
    assert len(windows) == 2
    assert not windows.hit("a", 2, 60).allowed  # still counted: b was the one to go
