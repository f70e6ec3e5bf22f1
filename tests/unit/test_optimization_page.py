"""The report of an optimization: complete, escaped, self-contained, and the same in words as in pictures."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gpt_trader.backtesting.report.drawing import Scale
from gpt_trader.bars import Bars, Floats
from gpt_trader.optimization.charts import distribution, timeline
from gpt_trader.optimization.page import CELLS, THREADS, render_html
from gpt_trader.optimization.result import OptimizeResult, choose
from gpt_trader.optimization.space import search_space, trial_numbers
from gpt_trader.optimization.study import RUN, Screened, Study
from gpt_trader.optimization.surface import STATES, surface, weights
from gpt_trader.optimization.walk_forward import document, walk
from gpt_trader.requests import OptimizeRequest
from gpt_trader.strategies.base import Strategy
from gpt_trader.strategies.registry import strategy_type
from tests.bars_factory import STOCK
from tests.html_document import Document

RUN_ID, CREATED_AT = "0d2c8f6e-3f8a-4c6e-9a64-6f7f5f1f2a10", "2026-11-23T09:00:00Z"
HOSTILE = "</style><script>alert(1)</script>\"'&<img src=x onerror=alert(1)>\ud800"
JUDGED = {
    "verdict": "reject",
    "reasons": ["The best of 13 trials is no more than luck."],
    "deflated_sharpe": 0.321,
    "probabilistic_sharpe": 0.876,
    "expected_by_luck": 0.4,
    "pbo": 0.617,
    "neighborhood": None,
    "min_track_record": 1233.1,
    "trials": 13,
}


def bars(n: int = 500, seed: int = 3) -> Bars:
    random = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(random.normal(0.0003, 0.02, n)))
    open_ = close * np.exp(random.normal(0, 0.004, n))
    days = np.datetime64("2010-01-04", "us") + np.arange(n) * np.timedelta64(1, "D")
    high, low = np.maximum(open_, close) * 1.01, np.minimum(open_, close) * 0.99
    return Bars(STOCK, "1d", days, open_, high, low, close, np.full(n, 1e6), logical_hash="walk")


class Periodic(Strategy):
    """Is long `hold` of every `period` bars, from `shift` on; raises on a period of 13."""

    name = "periodic"
    period: int = 7
    hold: int = 3
    shift: int = 0
    word: str = "a"

    def targets(self, bars: Bars, first: int = 0) -> Floats:
        if self.period == 13:
            raise ZeroDivisionError(f"bad luck <b>{self.word}</b>")
        return ((np.arange(len(bars)) + self.shift) % self.period < self.hold).astype(float)


def study_of(strategy: type[Strategy] | str = "ma_crossover", **values: Any) -> Study:
    chosen = strategy_type(strategy) if isinstance(strategy, str) else strategy
    request = OptimizeRequest(symbol="TEST", strategy=chosen.name, **values)
    return Study(bars(), 60, chosen, search_space(chosen, request), request)


def optimized(strategy: type[Strategy] | str = "ma_crossover", **values: Any) -> OptimizeResult:
    study = study_of(strategy, **values)
    numbers = trial_numbers(study.space, study.request)
    screened = study.screen(numbers)
    objective, best, backtests, verified = choose(study, screened, snapshot_id="snap")
    how = study.request.walk_forward
    return OptimizeResult(
        study, screened, objective, tuple(best), tuple(backtests), verified, "snap", JUDGED,
        walk_forward=None if how is None else document(study, list(walk(study, how))),
        provenance={"code_version": "0.1+g1", "libraries": {"numpy": "2.0"}, "seed": 0},
    )  # fmt: skip


def letters(number: int) -> str:
    """A word for each number: reasons that differ in a number only are one."""
    return str(number).translate(str.maketrans("0123456789", "abcdefghij"))


def synthetic(shape: tuple[int, ...], *, failed: int = 0) -> OptimizeResult:
    """Return the result of a large grid whose objectives are drawn: two trials are simulated."""
    names = ("period", "hold", "shift")
    space = {name: list(range(20, 20 + length)) for name, length in zip(names, shape, strict=False)}
    study = study_of(Periodic, space=space)
    random = np.random.default_rng(1)
    number = np.arange(study.space.size)
    real = study.screen([0, 1])
    state = np.zeros(len(number), np.int8)
    rows = np.repeat(real.rows[:1], len(number), axis=0)
    objective = random.normal(0.3, 0.4, len(number))
    if failed:
        state[-failed:], objective[-failed:] = 2, np.nan
    reasons = {int(n): f"ValueError: {letters(n)}" for n in number[len(number) - failed :]}
    screened = Screened.of_rows(number, state, rows, reasons)
    _, _, backtests, verified = choose(study, real, snapshot_id="snap")
    best = int(np.nanargmax(objective))
    return OptimizeResult(study, screened, objective, (best,), (backtests[0],), verified, "snap", JUDGED)


def page(result: OptimizeResult) -> str:
    return render_html(result, run_id=RUN_ID, created_at=CREATED_AT)


@pytest.fixture(scope="module")
def crossed() -> OptimizeResult:
    return optimized(
        walk_forward={"windows": 4}, space={"fast": [5, 10, 30], "slow": [20, 30, 40, 50]}, top=5
    )


@pytest.fixture(scope="module")
def document_of_crossed(crossed: OptimizeResult) -> Document:
    return Document(page(crossed))


def test_the_header_says_what_was_tried_and_whether_to_believe_it(document_of_crossed: Document):
    text = " ".join(document_of_crossed.text.split())
    for said in (
        "ma_crossover on TEST",
        "2010-03-05 – 2011-05-18",
        "440 daily bars",
        "10 trials run, 2 skipped, 0 failed",
        "10 verified by vectorbt",
        "Rejected: luck may explain it",
        "The best of 13 trials is no more than luck.",
    ):
        assert said in text
    assert ("b", {"class": "badge behind"}) in document_of_crossed.elements


def test_every_measure_that_is_there_is_shown_with_its_meaning(document_of_crossed: Document):
    rows = {row[0]: row[1:] for row in document_of_crossed.tables["meanings"]}
    assert rows["Deflated Sharpe ratio"][0] == "32.1%"
    assert rows["Probability of overfitting"][0] == "61.7%"
    assert rows["Bars needed to believe it"][0] == "1,234"
    assert rows["Neighbors' objective"][0] == "–"
    assert "Worth, in independent trials" not in rows
    assert all(len(meaning) > 20 for _, meaning in list(rows.values())[1:])


@pytest.mark.parametrize(
    ("judged", "badge"),
    [
        ({"verdict": "accept", "reasons": []}, "Accepted: more than luck"),
        ({"verdict": "undecided", "pbo": None}, "Undecided"),
        ({}, "No verdict"),
    ],
)
def test_a_verdict_may_lack_what_it_lacks(crossed: OptimizeResult, judged: dict[str, Any], badge: str):
    assert badge in Document(page(replace(crossed, overfitting=judged))).text


def test_warnings_and_touched_trades_are_shown(crossed: OptimizeResult):
    assert crossed.top[0].trades
    html = page(replace(crossed, warnings=("3 bars are missing",), data_quality={"affected_trades": [0]}))
    entry = str(crossed.top[0].trades[0].entry_time)[:10]
    assert "<li>3 bars are missing</li>" in html
    assert f"by their entry: {entry}." in html


def test_the_top_table_is_the_engines(crossed: OptimizeResult, document_of_crossed: Document):
    heading, *rows = document_of_crossed.tables["top"]
    assert heading[:4] == ["#", "fast", "slow", "Objective"]
    assert len(rows) == 5
    for row, backtest in zip(rows, crossed.top, strict=True):
        assert row[1:3] == [str(backtest.params["fast"]), str(backtest.params["slow"])]
        assert row[3] == f"{backtest.metrics.sharpe:.2f}".replace("-", "−")


def test_two_parameters_make_a_heat_map_with_its_numbers(
    crossed: OptimizeResult, document_of_crossed: Document
):
    classes = document_of_crossed.classes("heat")
    cells = [name for name in classes if re.fullmatch(r"cell s\d", name)]
    assert len(cells) == 10 + 10  # and the legend's
    assert classes.count("skipped") == 2
    assert classes.count("frame best") == 1
    heading, *rows = document_of_crossed.tables["cells"]
    assert heading[1:] == ["20", "30", "40", "50"]
    assert rows[2][:3] == ["30", "skipped", "skipped"]
    best = crossed.study.space.places(crossed.numbers[0])
    top = f"{np.nanmax(crossed.objective):.2f}"
    assert rows[best[0]][best[1] + 1] == top
    assert f"<b>{top}</b>" in page(crossed)


def test_the_neighbors_of_the_best_are_framed_and_listed(
    crossed: OptimizeResult, document_of_crossed: Document
):
    _, *rows = document_of_crossed.tables["neighbors"]
    assert rows[0][2].endswith("best")
    steps = [(5, 10, 30), (20, 30, 40, 50)]
    best, *listed = [
        tuple(values.index(int(cell)) for values, cell in zip(steps, row[:2], strict=True)) for row in rows
    ]
    assert best == crossed.study.space.places(crossed.numbers[0])
    around = [(best[0] - 1, best[1]), (best[0] + 1, best[1]), (best[0], best[1] - 1), (best[0], best[1] + 1)]
    assert listed == [place for place in around if 0 <= place[0] < 3 and 0 <= place[1] < 4]
    assert document_of_crossed.classes("heat").count("frame near") == len(listed)


def test_neighbors_of_drawn_combinations_are_the_nearest_that_were_tried() -> None:
    drawn = optimized(
        method="random",
        trials=12,
        space={"fast": {"low": 2, "high": 60}, "slow": {"low": 70, "high": 130}},
    )
    best, *tried = drawn.numbers[0], *drawn.screened.number.tolist()
    places = drawn.study.space.places_of(tried)
    span = places.max(axis=0) - places.min(axis=0)
    away = ((places - drawn.study.space.places_of([best])) / span) ** 2
    nearest = [tried[at] for at in np.argsort(away.sum(axis=1), kind="stable")[:5]]
    shown = Document(page(drawn))
    listed = [row[:2] for row in shown.tables["neighbors"][1:]]
    assert listed == [[str(value) for value in drawn.study.space.at(number).values()] for number in nearest]
    assert all(row[2] != "not tried" for row in shown.tables["neighbors"])
    assert "the nearest that were tried" in shown.text


def test_skipped_combinations_are_explained(document_of_crossed: Document):
    _, *rows = document_of_crossed.tables["reasons"]
    assert sum(int(row[0]) for row in rows) == 2
    assert {row[1] for row in rows} == {"skipped"}
    assert "must be below" in rows[0][2]
    assert rows[0][3].startswith("fast 30, slow ")


def test_the_walk_is_drawn_and_told_window_by_window(crossed: OptimizeResult, document_of_crossed: Document):
    walked = crossed.walk_forward
    assert walked is not None
    classes = document_of_crossed.classes("walk")
    assert classes.count("train") == 4
    gained = sum(row["test_return"] > 0 for row in walked["each"])
    assert (classes.count("test gain"), classes.count("test loss")) == (gained, 4 - gained)
    _, *rows = document_of_crossed.tables["windows"]
    for row, window in zip(rows, walked["each"], strict=True):
        assert row[2] == f"{window['test'][0][:10]} – {window['test'][1][:10]}"
        assert row[3] == f"fast {window['params']['fast']}, slow {window['params']['slow']}"
    measures = {row[0]: row[1] for row in document_of_crossed.tables["meanings"]}
    assert measures["Consistency"] == f"{walked['consistency'] * 100:.1f}%"


def test_the_timeline_says_what_each_window_chose_and_made(crossed: OptimizeResult) -> None:
    walked = crossed.walk_forward
    assert walked is not None
    drawn = Document(str(timeline(walked))).text
    for row in walked["each"]:
        made = f"{row['test_return'] * 100:+.1f}%".replace("-", "−")
        params = "fast {fast}, slow {slow}".format(**row["params"])
        assert made in drawn
        assert params in drawn
        assert f"{params} made {made} in {row['trades']} trades" in drawn, "as the bar's title"


def test_a_timeline_of_many_windows_has_its_words_as_titles(crossed: OptimizeResult) -> None:
    walked = crossed.walk_forward
    assert walked is not None
    drawn = str(timeline({**walked, "each": [walked["each"][0]] * 60}))
    titles = "".join(re.findall(r"<title>.*?</title>", drawn))
    assert titles.count(" made ") == 2 * 60
    assert "fast" not in re.sub(r"<title>.*?</title>", "", drawn)


def test_a_window_without_a_choice_held_cash(crossed: OptimizeResult):
    walked = dict(crossed.walk_forward or {})
    empty = {"params": None, "train_objective": None, "train_annualized_return": None, "test_return": 0.0}
    walked["each"] = [{**walked["each"][0], **empty}, *walked["each"][1:]]
    shown = Document(page(replace(crossed, walk_forward=walked)))
    assert shown.classes("walk").count("test held") == 1
    assert shown.tables["windows"][1][3:7] == ["none: cash was held", "–", "–", "0.0%"]


def test_without_a_walk_there_is_none(crossed: OptimizeResult):
    shown = Document(page(replace(crossed, walk_forward=None)))
    assert "Walk forward" not in shown.text
    assert "windows" not in shown.tables


def test_one_parameter_makes_a_line_with_its_failures():
    result = optimized(Periodic, space={"period": [11, 12, 13, 14, 15]})
    shown = Document(page(result))
    classes = shown.classes("line")
    assert classes.count("failed") == 1
    assert len([name for name in classes if name.startswith("dot")]) == 4
    assert classes.count("dot best") == 1
    (through,) = re.findall(r'<path class="thread t4" d="([^"]*)"', page(result))
    assert through.count("M") == 2  # broken where the failure is
    assert ["13", "failed"] in shown.tables["cells"]
    assert shown.tables["reasons"][1][1:] == ["failed", "ZeroDivisionError: bad luck <b>a</b>", "period 13"]


def test_three_parameters_show_the_two_that_matter_and_threads_through_all():
    space = {"period": [5, 9, 13, 20], "hold": [2, 3], "shift": list(range(4))}
    result = optimized(Periodic, space=space)
    weighed = weights(result)
    most = set(list(weighed)[:2])
    shown = Document(page(result))
    heading, *_ = shown.tables["cells"]
    assert set(re.findall(r"(\w+) [↓→]", heading[0])) == most
    defined = int(np.isfinite(result.objective).sum())
    _, *rows = shown.tables["threads"]
    assert len(rows) == defined == 24
    listed = [float(row[-1].replace("−", "-")) for row in rows]
    assert listed == sorted(listed, reverse=True)
    lines = re.findall(r'<path class="thread t\d" d="([^"]*)"', page(result))
    assert sum(drawn.count("M") for drawn in lines) == 24
    assert shown.classes("parallel").count("thread chosen") == 1
    assert "These two matter most" in shown.text


def test_weights_name_the_parameter_that_decides():
    result = synthetic((6, 7, 5))
    places = result.study.space.places_of(result.screened.number)
    decided = replace(result, objective=places[:, 1] * 1.0 + 0.01 * places[:, 2])
    weighed = weights(decided)
    assert list(weighed)[:2] == ["hold", "shift"]
    assert weighed["hold"] > 0.99
    assert weighed["period"] == pytest.approx(0, abs=1e-12)
    assert set(weights(replace(result, objective=np.ones(210))).values()) == {0.0}


def test_places_of_many_are_those_of_each():
    space = synthetic((6, 7, 5)).study.space
    numbers = [0, 1, 17, 209]
    assert space.places_of(numbers).tolist() == [list(space.places(number)) for number in numbers]


def test_a_surface_has_the_best_of_each_cell_and_says_why_there_is_none():
    result = synthetic((6, 7, 5))
    objective, state = result.objective.copy(), result.screened.state.copy()
    cube, states = objective.reshape(6, 7, 5), state.reshape(6, 7, 5)
    cube[0, 0], states[0, 0] = np.nan, [1, 1, 2, 1, 1]
    cube[0, 1], states[0, 1] = np.nan, 1
    cube[0, 2] = np.nan
    cube[0, 3, :4] = np.nan
    kept = slice(0, 200)  # the last two cells were not drawn
    screened = Screened.of_rows(result.screened.number[kept], state[kept], result.screened.rows[kept], {})
    found = surface(
        replace(result, screened=screened, objective=objective[kept], numbers=(17,)), ["period", "hold"], 60
    )
    words = [STATES[code] for code in found.state.ravel()]
    assert words[:4] == ["failed", "skipped", "undefined", ""]
    assert words[-2:] == ["not tried", "not tried"]
    assert found.value[0, 3] == cube[0, 3, 4]
    np.testing.assert_array_equal(found.value[1], cube[1].max(axis=1))
    assert (found.best, found.neighbors) == ((0, 3), {(0, 2), (0, 4), (1, 3)})


def test_a_large_grid_is_thinned_to_the_best_of_each_cell():
    result = synthetic((100, 100))
    found = surface(result, ["period", "hold"], CELLS)
    assert found.value.shape == (50, 50)
    np.testing.assert_array_equal(found.value, result.objective.reshape(50, 2, 50, 2).max(axis=(1, 3)))
    assert np.nanmax(found.value) == found.value[found.best]
    assert found.axes[0].labels[0] == "20 … 21"


@pytest.mark.parametrize("shape", [(100, 100), (25, 20, 20)])
def test_ten_thousand_trials_are_a_page_in_a_second_and_a_megabyte(shape: tuple[int, ...]):
    result = synthetic(shape, failed=500)
    page(synthetic((2, 2)))  # compiles the template
    started = time.perf_counter()
    html = page(result)
    assert time.perf_counter() - started < 1
    assert len(html.encode()) < 1_000_000
    shown = Document(html)
    assert "495 more trials have others" in shown.text
    if len(shape) == 2:
        assert "Thinned out: each cell shows the best of 2 neighboring values of period." in shown.text
    else:
        assert len(shown.tables["threads"]) == THREADS + 1


def test_combinations_that_break_the_constraints_are_told_apart():
    free = optimized(Periodic, space={"period": [5, 50, 400], "hold": [2, 3]})
    entries = free.screened.rows[:, 5]
    least = int(np.sort(entries)[2])
    bound = optimized(Periodic, space={"period": [5, 50, 400], "hold": [2, 3]}, min_trades=least)
    barred = int((entries < least).sum())
    assert barred == 2
    assert f"2 trials break the constraints (at least {least} trades)" in Document(page(bound)).text


def test_the_distribution_counts_every_trial_and_places_the_best():
    objective = np.concatenate([np.random.default_rng(2).normal(0, 1, 5000), [np.nan, 1e6]])
    found = distribution(objective, 3.0)
    assert found.counts.sum() == found.trials == 5001
    assert found.edges[-1] < 10
    assert found.better == int((objective > 3.0).sum())
    assert distribution(np.array([0.7, 0.7, np.nan]), 0.7).counts.sum() == 2
    assert distribution(np.array([0.7, 0.7]), float(np.nextafter(0.7, 1))).counts.sum() == 2


def test_shades_go_from_the_low_to_the_high():
    values = np.concatenate([np.linspace(0, 1, 1001), [np.nan, 50.0]])
    scale = Scale.of(values, 10)
    assert [scale.shade(value) for value in (-9.0, 0.0, 0.5, 1.0, 50.0)] == [0, 0, 4, 9, 9]
    assert Scale.of(np.array([2.0, 2.0]), 10).shade(2.0) == 9


def test_objectives_are_written_as_what_they_are():
    result = optimized(objective="total_return", space={"fast": [5], "slow": [20, 30]})
    shown = Document(page(result))
    made = f"{result.top[0].metrics.total_return * 100:+.2f}%".replace("-", "−")
    assert shown.tables["top"][1][3] == made
    assert "luck 0.40" not in shown.text  # a Sharpe ratio has no place among returns


def test_luck_has_its_place_among_sharpe_ratios():
    wide = replace(synthetic((30, 30)), overfitting={**JUDGED, "expected_by_luck": 0.55})
    assert "mark luck" in Document(page(wide)).classes("distribution")


def test_a_single_combination_is_a_page_too():
    shown = Document(page(optimized(space={"fast": [5], "slow": [20]})))
    assert "heat" not in {str(a.get("class")).split()[-1] for tag, a in shown.elements if tag == "svg"}
    assert len(shown.tables["top"]) == 2


def test_random_draws_leave_the_rest_untried():
    result = optimized(method="random", trials=5, space={"fast": [3, 4, 5, 6], "slow": [20, 30, 40]})
    assert (result.screened.state == RUN).all()
    assert Document(page(result)).classes("heat").count("not-tried") == 7


def test_every_text_is_escaped():
    words = ["a", HOSTILE]
    result = optimized(Periodic, space={"word": words, "period": [11, 13]}, params={"hold": 3})
    hostile = replace(
        result,
        top=tuple(replace(one, symbol=HOSTILE, timeframe=HOSTILE) for one in result.top),
        snapshot_id=HOSTILE,
        overfitting={"verdict": HOSTILE, "reasons": [HOSTILE]},
        warnings=(HOSTILE,),
        provenance={HOSTILE: HOSTILE},
    )
    html = render_html(hostile, run_id=HOSTILE, created_at=HOSTILE)
    html.encode()
    shown = Document(html)
    assert not [tag for tag, _ in shown.elements if tag in ("script", "img", "b>")]
    assert shown.text.count("<script>alert(1)</script>\"'&<img") >= 10
    assert "bad luck <b>" in shown.text


def test_makes_no_request_and_declares_it(crossed: OptimizeResult):
    html = page(crossed)
    for tag, attributes in Document(html).elements:
        assert tag not in ("script", "link", "img", "iframe", "object", "a")
        for name in attributes:
            assert name not in ("src", "srcset", "style", "href"), (tag, name)
            assert not name.startswith("on"), (tag, name)
    assert not re.search(r"url\(|@import|https?://", html)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    style = re.search(r"<style>(.*?)</style>", html, re.S)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy.replace("&#39;", "'") == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def test_is_readable_by_everybody(crossed: OptimizeResult):
    for result in (crossed, synthetic((5, 5, 5))):
        html = page(result)
        shown = Document(html)
        assert ("html", {"lang": "en"}) in shown.elements
        assert [t for t, _ in shown.elements if t in ("main", "h1", "header", "footer")] == [
            "main", "header", "h1", "footer",
        ]  # fmt: skip
        assert all(a.get("role") == "img" and a["aria-label"] for t, a in shown.elements if t == "svg")
        assert all("scope" in a for t, a in shown.elements if t == "th")
        ids = [a["id"] for _, a in shown.elements if "id" in a]
        assert len(ids) == len(set(ids))
        assert {a["aria-labelledby"] for _, a in shown.elements if "aria-labelledby" in a} <= set(ids)
        assert "prefers-color-scheme: dark" in html


def test_the_provenance_names_the_result(crossed: OptimizeResult, document_of_crossed: Document):
    rows = dict(document_of_crossed.tables["pairs hashes"])
    assert rows["run id"] == RUN_ID
    assert rows["created at"] == CREATED_AT
    assert rows["result hash"] == crossed.result_hash
    assert rows["bars hash"] == "walk"
    assert rows["libraries · numpy"] == "2.0"
    assert '"min_trades": 1' in document_of_crossed.text


def test_the_same_result_is_the_same_page(crossed: OptimizeResult):
    assert page(crossed) == page(crossed)
