"""Every operation of the OpenAPI document, asked as it says and otherwise: no 5xx, no status that is not declared, no
body that is not what its schema says. Schemathesis makes the requests and compares the answers.

The short form asks each operation a few times, always the same; `slow` asks more, and anew each time.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from api.app import create_app
from gpt_trader.instruments import Instrument
from gpt_trader.settings import Home, Settings
from storage.cluster import Cluster
from storage.lake import Lake
from tests.api.account_samples import CHEAP, Person, account_settings, person, with_hasher
from tests.api.conftest import Engine, Prefect, fill_lake, serving
from tests.api.test_runs import finish
from tests.lake_samples import exact_bars

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the library's own dependencies
    import schemathesis
    from schemathesis import Case, GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
DOCUMENT = create_app(Settings(), Home(Path("/nowhere"))).openapi()
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = [(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods]
#: Examples an operation.
EXAMPLES = 3

#: What each request is counted as: the figure tells that not everything was refused.
answered: Counter[str] = Counter()


@pytest.fixture(scope="module")
def engine(prefect: Prefect, postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    home = Home(tmp_path_factory.mktemp("conformance") / "home")
    fill_lake(home)
    Lake(home.lake).upsert(Instrument(symbol="SPARE"), "1d", exact_bars(40), source="csv")
    with serving(account_settings(postgres), home, prefect.url) as served:
        engine = with_hasher(served, CHEAP)
        yield engine
        for item in engine.http.get("/workflows/schedules").json()["items"]:
            where = f"/workflows/{item['workflow']}/schedule"
            assert engine.http.delete(where, params={"slug": item["slug"]}).status_code == 204


@pytest.fixture(scope="module")
def finished(engine: Engine, prefect: Prefect) -> str:
    run_id: str = engine.start()["run_id"]
    finish(engine, prefect, run_id)
    return run_id


def existing(path: str, method: str, finished: str, user_id: str) -> dict[str, str]:
    """Return ids of things that are there; what would take one of them away gets none."""
    name = "momentum" if "/strategies/" in path else "equity" if "/artifacts/" in path else "backtest"
    symbol = "SPARE" if method == "delete" else "ACME"
    return {"run_id": finished, "name": name, "symbol": symbol, "user_id": user_id}


def ask(engine: Engine, who: Person, case: Case, ids: dict[str, str]) -> None:
    """Send one request, as an administrator, and compare the answer with the document."""
    case.path_parameters = {
        name: ids.get(name, value) for name, value in (case.path_parameters or {}).items()
    }
    if "/quotes/" in case.path:
        (case.query or {}).pop("source", None)  # nobody on the internet is asked by a test
    with requests.Session() as session:
        session.trust_env = False
        credential = who.access if "/auth/" in case.path else engine.key
        headers = {"Authorization": f"Bearer {credential}"}
        answer = case.call(base_url=engine.url, session=session, headers=headers, timeout=60)
        answered[f"{answer.status_code // 100}xx"] += 1
        case.validate_response(answer, checks=CHECKS)


def requests_of(path: str, method: str) -> st.SearchStrategy[Case]:
    """Return requests that fit the document and, where there is anything to get wrong, some that do not."""
    operation = SCHEMA[path][method]
    described = DOCUMENT["paths"][path][method]
    fitting = operation.as_strategy()
    if not described.get("parameters") and "requestBody" not in described:
        return fitting
    return fitting | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)


def conform(
    engine: Engine, finished: str, path: str, method: str, examples: int, *, derandomize: bool
) -> None:
    who, other = person(engine, "admin"), person(engine)

    @settings(
        max_examples=examples,
        derandomize=derandomize,
        database=None,
        deadline=None,
        phases=[Phase.generate] if derandomize else [Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=requests_of(path, method), real=st.booleans())
    def run(case: Case, real: bool) -> None:
        ask(engine, who, case, existing(path, method, finished, other.id) if real else {})
        if "/auth/" in path and who.ask("GET", "/auth/me").status_code == 401:  # it has logged itself out
            assert who.log_in().status_code == 200

    run()


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_answers_are_what_the_document_says(engine: Engine, finished: str, path: str, method: str) -> None:
    conform(engine, finished, path, method, EXAMPLES, derandomize=True)
