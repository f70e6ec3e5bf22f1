"""Requests: what is refused, by name and with the nearest right one; what two spellings have in common."""

import re

import pytest

from gpt_trader.errors import Refused
from gpt_trader.requests import BacktestRequest, DataRequest
from gpt_trader.slices import SLICES
from gpt_trader.trading.request import PaperTradeRequest
from gpt_trader.validation import validated


def refusal(model, **values):
    with pytest.raises(Refused) as caught:
        validated(model, values)
    return caught.value


def test_an_unknown_field_names_the_nearest():
    problem = refusal(BacktestRequest, symbol="AAPL", capitl=5).problems[0]
    assert (problem.field, problem.nearest) == ("capitl", "capital")


def test_every_wrong_field_is_named_at_once():
    problems = refusal(BacktestRequest, symbol="AAPL", capital=-1, direction="lng", size=2).problems
    assert {problem.field for problem in problems} == {"capital", "direction", "size"}
    assert next(p.nearest for p in problems if p.field == "direction") == "long"


@pytest.mark.parametrize(
    "symbol", ["../../x", "'; DROP TABLE runs", "😀", "A\0B", "A" * 10_000, "", "straße", ".hidden", "A..B"]
)
def test_hostile_symbols_are_refused(symbol):
    problem = refusal(BacktestRequest, symbol=symbol).problems[0]
    assert problem.field == "symbol"
    assert len(str(problem.as_dict()["value"])) < 300


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0, -5])
def test_money_is_finite_and_positive(value):
    assert refusal(BacktestRequest, symbol="AAPL", capital=value).problems[0].field == "capital"


def test_dates_out_of_order_are_refused():
    assert "after end" in str(refusal(BacktestRequest, symbol="AAPL", start="2012-01-02", end="2012-01-01"))


def test_both_spellings_are_one_request():
    kebab = BacktestRequest(symbol="aapl", strategy="ma-crossover")
    assert kebab.canonical() == BacktestRequest(symbol="AAPL", strategy="ma_crossover").canonical()
    assert BacktestRequest(symbol="AAPL", strategy="./my-own.py:Mine").strategy == "./my-own.py:Mine"


def test_where_bars_came_from_and_what_is_written_stay_out_of_the_hash():
    plain = BacktestRequest(symbol="AAPL").canonical()
    told = BacktestRequest(symbol="AAPL", source="sample", snapshot="ab" * 16, report=False).canonical()
    assert plain == told


def test_a_file_is_read_by_the_csv_source():
    assert DataRequest(symbols=("AAPL",), file="/tmp/x.csv").source == "csv"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"file": "/x.csv", "source": "sample", "symbols": ["A"]}, "reads no file"),
        ({"file": "/x.csv"}, "one file holds one symbol"),
        ({"source": "csv"}, "needs a file"),
        ({"columns": {"close": "Last"}}, "add --file"),
        ({"label": "close"}, "add --file"),
        ({"file": "/x.csv", "symbols": ["A"], "timeframes": ["1m", "1h"]}, "bars of one length"),
        ({"refresh": True, "source": "sample"}, "leave source and file out"),
        ({"refresh": True, "replace": True}, "give one of them"),
        ({"source": "smaple"}, "did you mean 'sample'"),
        ({"source": "ccxt"}, "ccxt:VENUE"),
        ({"timeframe": "1day"}, "1d"),
    ],
)
def test_an_ingest_that_contradicts_itself_is_refused(values, said):
    assert said in str(refusal(DataRequest, **values))


@pytest.mark.parametrize("row", SLICES.values(), ids=SLICES)
@pytest.mark.parametrize(
    "value",
    [object(), "no such thing", [object()], {"no": object()}, float("nan")],
    ids=["object", "text", "list", "mapping", "nan"],
)
def test_a_problem_has_its_fields_name_and_nothing_of_pydantics_own(row, value):
    """Of a union pydantic tells each branch, with names of its own (`speed.literal['max']`)."""
    for name in row.request_type().model_fields:
        try:
            validated(row.request_type(), {name: value})
        except Refused as refused:
            fields = [problem.field for problem in refused.problems]
            assert not [field for field in fields if not re.fullmatch(r"\w+(\.\w+)*", field)], fields


@pytest.mark.parametrize(
    ("speed", "nearest"),
    [("fast", "max"), ("mx", "max"), ("0", None), (-1, None), (float("nan"), None), ([2], None)],
)
def test_a_speed_that_is_none_is_said_once_with_what_is_allowed(speed, nearest):
    (problem,) = refusal(PaperTradeRequest, symbol="AAPL", speed=speed).problems
    assert (problem.field, problem.nearest) == ("speed", nearest)
    assert problem.allowed == "max, or a number above 0, 1,000,000,000 at most"


@pytest.mark.parametrize(("speed", "kept"), [("max", "max"), ("86400", 86400.0), (0.5, 0.5)])
def test_a_speed_is_max_or_a_number(speed, kept):
    assert validated(PaperTradeRequest, {"symbol": "AAPL", "speed": speed}).speed == kept
