"""Comparisons: common dates, correlation, which is best, what does not compare, and the page."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gpt_trader.backtesting.report.glossary import METRICS
from gpt_trader.backtesting.result import Metrics
from gpt_trader.bars import Floats, Times
from gpt_trader.comparison.common_dates import common_dates, correlation
from gpt_trader.comparison.comparing import compare
from gpt_trader.comparison.contenders import Contender, contender
from gpt_trader.comparison.page import render_html
from gpt_trader.errors import Refused, UnknownName
from tests.comparison_samples import crossed, run_id
from tests.html_document import Document

CREATED_AT = "2026-11-23T09:00:00Z"
HOSTILE = "</style><script>alert(1)</script>\"'&<img src=x onerror=alert(1)>\ud800"


def days(first: str, count: int) -> Times:
    return np.arange(first, count, dtype="datetime64[D]").astype("datetime64[us]")


def traded(number: int, time: Times, equity: Floats | list[float], **changes: Any) -> Contender:
    """Return a run with this equity, and no metrics worth a name."""
    series = (time, np.asarray(equity, np.float64))
    summary = {
        "symbol": "AAPL", "timeframe": "1d", "strategy": "s", "start": "a", "end": "b", "bars": len(time),
        "snapshot_id": "snap", "bars_hash": "bars", "metrics": {"sharpe": float(number)},
    }  # fmt: skip
    return replace(contender(run_id(number), "backtest", {}, summary, series), **changes)


def fields(*contenders: Contender) -> list[str]:
    return [warning.field for warning in compare(contenders).warnings]


class TestCommonDates:
    def test_of_one_length_are_the_labels_that_all_have(self) -> None:
        a = traded(1, days("2020-01-01", 6), [100, 110, 120, 90, 130, 140])
        gaps = days("2020-01-03", 8)[[0, 2, 3, 7]]  # the 3rd, 5th, 6th and 10th
        b = traded(2, gaps, [50, 60, 30, 70])
        found = common_dates([a, b])
        assert found is not None
        assert found.time.astype("datetime64[D]").astype(str).tolist() == [
            "2020-01-03",
            "2020-01-05",
            "2020-01-06",
        ]
        np.testing.assert_allclose(found.growth, [[1, 130 / 120, 140 / 120], [1, 1.2, 0.6]])

    def test_of_shorter_bars_the_last_that_has_closed_counts(self) -> None:
        daily = traded(1, days("2020-01-01", 3), [100, 101, 102])
        hours = np.datetime64("2020-01-01T14", "us") + np.arange(48) * np.timedelta64(1, "h")
        hourly = traded(2, hours, np.arange(1.0, 49.0), timeframe="1h")
        found = common_dates([hourly, daily])
        assert found is not None
        assert found.run_ids == (run_id(2), run_id(1))
        assert len(found.time) == 3
        # The day of the 1st ends with the bar of 23:00, the 10th; a day later with the 34th; then with the last.
        np.testing.assert_allclose(found.growth[0] * 10, [10, 34, 48])

    def test_a_bar_that_ends_after_the_day_is_of_the_next(self) -> None:
        daily = traded(1, days("2020-01-01", 2), [100, 101])
        hours = np.datetime64("2020-01-01T23:30", "us") + np.arange(30) * np.timedelta64(1, "h")
        hourly = traded(2, hours, np.arange(1.0, 31.0), timeframe="1h")
        found = common_dates([daily, hourly])
        assert found is not None
        assert found.time.tolist() == daily.time[1:].tolist()  # type: ignore[index]

    def test_there_may_be_none(self) -> None:
        a, b = traded(1, days("2020-01-01", 3), [1, 2, 3]), traded(2, days("2021-01-01", 3), [1, 2, 3])
        assert common_dates([a, b]) is None
        assert common_dates([replace(a, time=None, equity=None)]) is None
        found = compare([a, b])
        assert (found.common, found.correlated) == (None, None)
        assert found.document(50)["curves"] is found.document(50)["correlation"] is None

    def test_a_run_that_is_ruined_before_is_not_drawn(self) -> None:
        a = traded(1, days("2020-01-01", 4), [100, 0, 0, 0])
        b, c = (traded(number, days("2020-01-02", 3), [1, 2, 3]) for number in (2, 3))
        found = common_dates([a, b, c])
        assert found is not None
        assert found.run_ids == (run_id(2), run_id(3))
        told = next(warning for warning in compare([a, b, c]).warnings if warning.field == "curves")
        assert told.values == {run_id(1): 0.0}

    def test_a_run_that_is_ruined_meanwhile_stays_at_nothing(self) -> None:
        found = compare([traded(1, days("2020-01-01", 4), [100, 90, 0, 0]), crossed(2)])
        assert found.common is None
        both = compare([traded(n, days("2020-01-01", 4), [100, 90 + n, 0, 0]) for n in (1, 2)])
        assert both.common is not None
        assert both.common.growth[:, -1].tolist() == [0, 0]
        assert "Growth of 1" in render_html(both, created_at=CREATED_AT)


class TestCorrelation:
    def test_is_pearsons_of_the_returns(self) -> None:
        random = np.random.default_rng(5)
        growth = np.cumprod(1 + random.normal(0, 0.01, (4, 200)), axis=1)
        found = correlation(growth)
        returns = growth[:, 1:] / growth[:, :-1] - 1
        np.testing.assert_allclose(np.array(found, float), np.corrcoef(returns), atol=1e-12)
        assert found is not None
        assert [found[at][at] for at in range(4)] == [1.0] * 4

    def test_mirrored_and_equal_curves(self) -> None:
        steps = np.array([0.01, -0.02, 0.03, 0.005])
        growth = np.cumprod(np.column_stack(([1, 1, 1], 1 + np.outer([1, 1, -1], steps))), axis=1)
        found = correlation(growth)
        assert found is not None
        assert found[0][1] == pytest.approx(1)
        assert found[0][2] == pytest.approx(-1)
        assert all(-1 <= value <= 1 for row in found for value in row if value is not None)

    def test_of_what_never_moves_there_is_none(self) -> None:
        still, steady = np.ones(50), 1.01 ** np.arange(50)
        moving = np.cumprod(1 + np.random.default_rng(1).normal(0, 0.01, 50))
        assert correlation(np.array([still, steady, moving])) == [
            [None, None, None], [None, None, None], [None, None, 1.0],
        ]  # fmt: skip

    def test_of_one_return_there_is_none(self) -> None:
        assert correlation(np.array([[1.0, 1.1], [1.0, 0.9]])) is None
        assert compare([traded(n, days("2020-01-01", 2), [1, n]) for n in (1, 2)]).correlated is None


class TestBest:
    def test_each_metric_has_its_direction(self) -> None:
        less = {name for name, entry in METRICS.items() if entry.better == "less"}
        neither = {name for name, entry in METRICS.items() if entry.better is None}
        assert less == {"annualized_volatility", "max_drawdown_bars", "costs"}
        assert neither == {"exposure", "turnover", "trades"}
        assert METRICS.keys() == Metrics.__dataclass_fields__.keys()

    def test_more_of_most_and_less_of_some(self) -> None:
        low = {"sharpe": 0.5, "max_drawdown": -0.4, "costs": 10.0, "trades": 3}
        high = {"sharpe": 0.9, "max_drawdown": -0.1, "costs": 20.0, "trades": 5}
        time = days("2020-01-01", 2)
        found = compare([traded(1, time, [1, 1], metrics=low), traded(2, time, [1, 1], metrics=high)]).best
        assert found["sharpe"] == found["max_drawdown"] == (run_id(2),)
        assert found["costs"] == (run_id(1),)
        assert "trades" not in found

    def test_ties_share_and_the_undefined_is_left_out(self) -> None:
        time = days("2020-01-01", 2)
        values = [
            {"sharpe": 1.0, "calmar": None},
            {"sharpe": 1.0, "calmar": None},
            {"sharpe": None, "calmar": None},
        ]
        runs = [traded(number, time, [1, 1], metrics=each) for number, each in enumerate(values)]
        found = compare(runs).best
        assert found["sharpe"] == (run_id(0), run_id(1))
        assert found["calmar"] == ()

    def test_sorting_puts_the_best_first_and_the_undefined_last(self) -> None:
        time = days("2020-01-01", 2)
        values = [(0.5, 3.0), (None, 1.0), (2.0, 2.0), (0.5, None)]
        runs = [
            traded(at, time, [1, 1], metrics={"sharpe": sharpe, "costs": costs})
            for at, (sharpe, costs) in enumerate(values)
        ]
        assert [each.run_id for each in compare(runs, "sharpe").contenders] == [
            run_id(n) for n in (2, 0, 3, 1)
        ]
        assert [each.run_id for each in compare(runs, "costs").contenders] == [
            run_id(n) for n in (1, 2, 0, 3)
        ]
        assert [each.run_id for each in compare(runs).contenders] == [run_id(n) for n in range(4)]

    def test_an_unknown_metric_is_refused_with_the_nearest(self) -> None:
        with pytest.raises(UnknownName, match="did you mean 'sharpe'"):
            compare([crossed(1), crossed(2)], "sharp")


class TestComparability:
    def test_the_same_terms_on_the_same_bars_compare(self) -> None:
        assert fields(crossed(1), crossed(2, fast=5), crossed(3, slow=100)) == []

    @pytest.mark.parametrize(
        ("field", "changes"),
        [
            ("symbol", {"symbol": "MSFT"}),
            ("timeframe", {"timeframe": "1w"}),
            ("range", {"start": "2001-01-01"}),
            ("range", {"end": "2011-01-01"}),
            ("snapshot", {"snapshot_id": "other", "bars_hash": "other"}),
        ],
    )
    def test_what_differs_is_named_with_what_each_run_has(self, field: str, changes: dict[str, Any]) -> None:
        same, other = crossed(1), replace(crossed(2), **changes)
        (told,) = compare([same, other]).warnings
        assert told.field == field
        assert told.values.keys() == {run_id(1), run_id(2)}
        assert told.values[run_id(1)] != told.values[run_id(2)]

    @pytest.mark.parametrize(
        ("term", "value"),
        [("capital", 5.0), ("commission", {"per_unit": 0.005}), ("slippage", 0.0), ("size", 0.5)],
    )
    def test_other_costs_and_capital(self, term: str, value: Any) -> None:
        assert fields(crossed(1), crossed(2, **{term: value})) == [term]

    def test_a_stop_is_part_of_a_strategy(self) -> None:
        assert fields(crossed(1), crossed(2, stop_loss=0.1)) == []

    def test_another_snapshot_of_the_same_bars_compares(self) -> None:
        assert fields(crossed(1), replace(crossed(2), snapshot_id="later")) == []

    def test_the_best_of_many_trials_is_pointed_out(self) -> None:
        chosen = replace(crossed(2), chosen_of=200, verdict="reject")
        (told,) = compare([crossed(1), chosen]).warnings
        assert (told.field, told.values) == ("trials", {run_id(2): 200})

    def test_runs_without_a_curve_are_said(self) -> None:
        old = replace(crossed(2), time=None, equity=None)
        found = compare([crossed(1), old])
        assert [(each.field, list(each.values)) for each in found.warnings] == [("curves", [run_id(2)])]
        assert found.common is not None
        assert found.common.run_ids == (run_id(1),)


class TestContender:
    def test_of_an_optimization_is_its_best(self) -> None:
        summary = {
            "flow": "optimize", "symbol": "AAPL", "timeframe": "1d", "strategy": "ma_crossover", "result_hash": "all",
            "best": {"params": {"fast": 5}, "metrics": {"sharpe": 1.5}, "result_hash": "best's"},
            "overfitting": {"trials": 15, "verdict": "reject"}, "warnings": ["bars are missing"],
        }  # fmt: skip
        found = contender(run_id(1), "optimize", {"capital": 5.0, "report": True}, summary, None)
        assert (found.params, found.metrics, found.result_hash) == ({"fast": 5}, {"sharpe": 1.5}, "best's")
        assert (found.chosen_of, found.verdict, found.warnings) == (15, "reject", ("bars are missing",))
        assert found.terms == {"capital": 5.0}

    def test_without_metrics_there_is_nothing_to_compare(self) -> None:
        with pytest.raises(Refused, match="is a run of data, which has no metrics"):
            contender(run_id(1), "data", {}, {"series": []}, None)


class TestDocument:
    def test_is_json_with_curves_by_run(self) -> None:
        found = compare([crossed(1), crossed(2, fast=5)], "sharpe").document(3000)
        json.dumps(found, allow_nan=False)
        assert (found["schema_version"], found["sort"]) == (1, "sharpe")
        assert found["curves"]["bars"] == 3270
        assert len(found["curves"]["time"]) <= 3000
        assert found["curves"]["time"][0] == "2000-03-01T00:00:00Z"
        for run in found["runs"]:
            growth = found["curves"]["growth"][run["run_id"]]
            assert len(growth) == len(found["curves"]["time"])
            assert growth[0] == 1
            assert growth[-1] == pytest.approx(1 + run["metrics"]["total_return"], rel=1e-9)
        assert found["correlation"]["returns"] == 3269

    def test_thinning_keeps_each_runs_highs_and_lows(self) -> None:
        comparison = compare([crossed(1), crossed(2, fast=5)])
        found = comparison.document(50)
        assert len(found["curves"]["time"]) <= 50
        assert comparison.common is not None
        for curve, thinned in zip(comparison.common.growth, found["curves"]["growth"].values(), strict=True):
            assert max(thinned) == pytest.approx(float(curve.max()))
            assert min(thinned) == pytest.approx(float(curve.min()))


@pytest.fixture(scope="module")
def html() -> str:
    runs = [
        crossed(1),
        crossed(2, fast=10, slow=30, commission=0.0),
        replace(crossed(3, slow=120), chosen_of=50),
    ]
    return render_html(compare(runs, "sharpe"), created_at=CREATED_AT)


class TestPage:
    def test_needs_nothing_but_itself(self, html: str) -> None:
        shown = Document(html)
        assert not {tag for tag, _ in shown.elements} & {"script", "img", "link", "iframe", "form"}
        assert not [a for _, a in shown.elements if {"src", "href", "style", "onclick"} & a.keys()]
        (policy,) = (
            a["content"] for tag, a in shown.elements if a.get("http-equiv") == "Content-Security-Policy"
        )
        (style,) = re.findall("<style>(.*?)</style>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        assert (
            policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
        )

    def test_draws_a_curve_and_a_fall_a_run(self, html: str) -> None:
        paths = [str(a["class"]) for tag, a in Document(html).elements if tag == "path"]
        assert sorted(name for name in paths if name.startswith("run")) == [
            "run c0", "run c0 under", "run c1", "run c1 under", "run c2", "run c2 under",
        ]  # fmt: skip

    def test_stars_the_best_of_each_metric(self, html: str) -> None:
        found = compare([crossed(1), crossed(2, fast=10, slow=30), crossed(3, slow=120)], "sharpe")
        order = [each.run_id for each in found.contenders]
        for label, field in (
            ("Sharpe ratio", "sharpe"),
            ("Costs paid", "costs"),
            ("Max drawdown", "max_drawdown"),
        ):
            (row,) = re.findall(rf'<th scope="row">{label}</th>(.*?)</tr>', html)
            starred = [order[at] for at, cell in enumerate(re.findall("<td(.*?)>", row)) if "best" in cell]
            assert starred == list(found.best[field])
        assert 'class="best"' not in re.findall(r'<th scope="row">Trades</th>(.*?)</tr>', html)[0]

    def test_says_what_the_json_says(self, html: str) -> None:
        shown = Document(html)
        text = " ".join(shown.text.split())
        for said in (
            "3 runs on AAPL",
            "3,270 common dates",
            "best sharpe first",
            "The commissions differ",
            "trials: ",
        ):
            assert said in text
        assert [row[0] for row in shown.tables["matrix"][1:]] == ["A", "B", "C"]
        assert [row[at + 1] for at, row in enumerate(shown.tables["matrix"][1:])] == ["1.00"] * 3
        assert [row[0] for row in shown.tables["years"][1:]] == [str(year) for year in range(2000, 2014)]
        for number in (1, 2, 3):
            assert run_id(number) in text

    def test_escapes_every_text(self) -> None:
        hostile = replace(
            crossed(1), symbol=HOSTILE, strategy=HOSTILE, params={HOSTILE: HOSTILE}, start=HOSTILE, direction=HOSTILE,
            flow=HOSTILE, snapshot_id=HOSTILE, verdict=HOSTILE, chosen_of=9, warnings=(HOSTILE,),
            terms={"commission": {HOSTILE: HOSTILE}},
        )  # fmt: skip
        page = render_html(compare([hostile, crossed(2)]), created_at=HOSTILE)
        page.encode()
        assert not [tag for tag, _ in Document(page).elements if tag in ("script", "img")]

    def test_of_twenty_runs_and_of_none_to_draw(self) -> None:
        many = render_html(compare([crossed(n, fast=2 + n) for n in range(20)]), created_at=CREATED_AT)
        assert 'class="run c9 again under"' in many
        assert len(many) < 1_000_000
        bare = [replace(crossed(n), time=None, equity=None) for n in (1, 2)]
        shown = Document(render_html(compare(bare), created_at=CREATED_AT))
        assert "svg" not in {tag for tag, _ in shown.elements}
        assert "no equity curve was kept" in shown.text.lower()

    def test_is_the_same_for_the_same_runs(self, html: str) -> None:
        runs = [
            crossed(1),
            crossed(2, fast=10, slow=30, commission=0.0),
            replace(crossed(3, slow=120), chosen_of=50),
        ]
        assert render_html(compare(runs, "sharpe"), created_at=CREATED_AT) == html
