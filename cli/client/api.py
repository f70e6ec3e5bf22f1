"""What the API offers, as typed calls; one client is one connection."""

from __future__ import annotations

import uuid
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import quote, urlencode

from cli.client import sse
from cli.client.wire import Target, Wire

ROOT: Final = "/api/v1"
Json = dict[str, Any]


@dataclass(frozen=True)
class Started:
    """A run that was accepted: its id (also Prefect's), flow, first state and links."""

    run_id: str
    flow: str
    state: str
    links: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Started:
        """Read it from the API's answer."""
        return cls(
            str(answer["run_id"]),
            str(answer.get("flow", "")),
            str(answer.get("state", "")),
            dict(answer.get("links") or {}),
        )

    def as_dict(self) -> Json:
        """Return it as JSON-ready values."""
        return {"run_id": self.run_id, "flow": self.flow, "state": self.state, "links": dict(self.links)}


class Client:
    """Calls of the API; errors are those of `gpt_trader.errors`, whoever raised them."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    @property
    def url(self) -> str:
        """The origin this client talks to."""
        return self._wire.target.url

    @property
    def wire(self) -> Wire:
        """The connection, for a client of other calls."""
        return self._wire

    @property
    def target(self) -> Target:
        """Where this client talks to, and its key, as they are now."""
        return self._wire.target

    def move(self, target: Target) -> None:
        """Go on at another address."""
        if target != self._wire.target:
            self._wire.close()
            self._wire.target = target

    def settle(self) -> None:
        """Start no engine from now on where nobody answers; see `Wire.settle`."""
        self._wire.settle()

    def renewed(self, refused: str) -> Target:
        """Return it with another key than one that was refused or is about to end, where there is one."""
        return self._wire.renewed(refused)

    def patience(self, seconds: float) -> None:
        """Wait at most this long for each answer."""
        self._wire.timeout = seconds

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, route: str, request: Mapping[str, Any]) -> Started:
        """Start a run by its route (`/api/v1/…`). The key makes a repeated sending the same run."""
        return self._start(route, request)

    def start_workflow(self, name: str, request: Mapping[str, Any]) -> Started:
        """Start a run of a workflow by its general name."""
        return self._start(f"{ROOT}/workflows/{part(name)}/runs", request)

    def reproduce(self, run_id: str) -> Started:
        """Run once more what a run did: same request, same snapshot."""
        return self._start(f"{ROOT}/workflows/runs/{part(run_id)}/reproduce", None)

    def retry(self, run_id: str) -> Started:
        """Try once more what a run did not complete."""
        return self._start(f"{ROOT}/workflows/runs/{part(run_id)}/retry", None)

    def approve(self, run_id: str, given: Mapping[str, Any] | None) -> Json:
        """Let a run that waits go on, with the fields that it asked for."""
        return self._object("POST", f"{ROOT}/workflows/runs/{part(run_id)}/approve", {"input": given})

    def reject(self, run_id: str) -> Json:
        """End a run that waits."""
        return self._object("POST", f"{ROOT}/workflows/runs/{part(run_id)}/reject")

    def schedules(self) -> list[Json]:
        """Return the schedules of all workflows."""
        return self._items(f"{ROOT}/workflows/schedules")

    def put_schedule(self, name: str, wanted: Mapping[str, Any]) -> Json:
        """Make a schedule, or replace the one of its slug."""
        return self._object("PUT", f"{ROOT}/workflows/{part(name)}/schedule", wanted)

    def switch_schedules(self, name: str, slug: str | None, *, active: bool) -> list[Json]:
        """Switch one schedule of a workflow, or all, on or off; return them as they stand."""
        step = "resume" if active else "pause"
        path = f"{ROOT}/workflows/{part(name)}/schedule/{step}"
        query = f"?slug={part(slug)}" if slug else ""
        items: list[Json] = self._object("POST", path + query)["items"]
        return items

    def remove_schedule(self, name: str, slug: str) -> None:
        """Remove a schedule."""
        self._wire.request("DELETE", f"{ROOT}/workflows/{part(name)}/schedule?slug={part(slug)}")

    def cancel(self, run_id: str) -> Json:
        """Ask a run to stop; it is CANCELLED a little later."""
        return self._object("POST", f"{ROOT}/workflows/runs/{part(run_id)}/cancel")

    def readiness(self) -> Json:
        """Return the state of the engine's parts, as `parts` by name."""
        return self._object("GET", "/api/v1/system/health/ready")

    def workflows(self) -> list[Json]:
        """Return every workflow with the JSON schema of its request."""
        return self._items(f"{ROOT}/workflows")

    def workflow(self, name: str) -> Json:
        """Return one workflow."""
        return self._object("GET", f"{ROOT}/workflows/{part(name)}")

    def runs(self, **filters: object) -> list[Json]:
        """Return runs, newest first; pages are followed up to `limit`."""
        return self._items(f"{ROOT}/workflows/runs", **filters)

    def run(self, run_id: str) -> Json:
        """Return a run: state, times, request, tags, links."""
        return self._object("GET", f"{ROOT}/workflows/runs/{part(run_id)}")

    def result(self, run_id: str) -> Json:
        """Return what a run found."""
        return self._object("GET", f"{ROOT}/workflows/runs/{part(run_id)}/result")

    def reproduction(self, run_id: str) -> Json:
        """Return how a finished run compares with the one that it reproduces."""
        return self._object("GET", f"{ROOT}/workflows/runs/{part(run_id)}/reproduction")

    def report(self, run_id: str) -> bytes:
        """Return a run's report, a whole HTML page."""
        headers = {"Accept": "text/html, application/problem+json"}
        path = f"{ROOT}/workflows/runs/{part(run_id)}/report"
        return self._wire.request("GET", path, headers=headers).body

    def absolute(self, links: Mapping[str, str]) -> dict[str, str]:
        """Return links as whole addresses: the API names its own by path alone."""
        return {name: f"{self.url}{link}" if link.startswith("/") else link for name, link in links.items()}

    def logs(self, run_id: str) -> list[Json]:
        """Return a run's log lines, oldest first."""
        return self._items(f"{ROOT}/workflows/runs/{part(run_id)}/logs")

    def events(self, run_id: str, after: str | None = None) -> Generator[sse.Event]:
        """Yield a run's events as they come, from the first or from the one after `after`."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
        if after:
            headers["Last-Event-ID"] = after
        with closing(self._wire.stream(f"{ROOT}/workflows/runs/{part(run_id)}/events", headers)) as lines:
            yield from sse.events(lines)

    def register_strategy(self, filename: str, source: str) -> Json:
        """Store a strategy file of the user's, by the hash of its content."""
        body = {"filename": filename, "source": source}
        return self._object("POST", f"{ROOT}/strategies", body=body)

    def strategies(self) -> list[Json]:
        """Return the strategies the server knows."""
        return self._items(f"{ROOT}/strategies")

    def strategy(self, name: str) -> Json:
        """Return one strategy: parameters, defaults, search space."""
        return self._object("GET", f"{ROOT}/strategies/{part(name)}")

    def check_strategy(self, name: str, request: Mapping[str, Any]) -> Json:
        """Have a strategy tried on stored bars; return what was found."""
        return self._object("POST", f"{ROOT}/strategies/{part(name)}/check", body=dict(request))

    def compare(self, run_ids: Sequence[str], sort: str | None = None) -> Json:
        """Return finished runs side by side."""
        answer: Json = self._wire.request(
            "GET", f"{ROOT}/strategies/compare", query=_compared(run_ids, sort)
        ).json()
        return answer

    def comparison_page(self, run_ids: Sequence[str], sort: str | None = None) -> bytes:
        """Return finished runs side by side as an HTML page."""
        headers = {"Accept": "text/html, application/problem+json"}
        query = _compared(run_ids, sort)
        return self._wire.request("GET", f"{ROOT}/strategies/compare", query=query, headers=headers).body

    def symbols(self, **query: object) -> list[Json]:
        """Return the symbols of the lake."""
        return self._items(f"{ROOT}/market/symbols", **query)

    def bars(self, symbol: str, **query: object) -> Json:
        """Return bars of a symbol, a list a column."""
        reply = self._wire.request("GET", f"{ROOT}/market/bars/{part(symbol)}", query=query)
        answer: Json = reply.json()
        return answer

    def remove_series(self, symbol: str, timeframe: str) -> Json:
        """Take a series out of the lake; return the new snapshot."""
        query = urlencode({"timeframe": timeframe})
        return self._object("DELETE", f"{ROOT}/market/symbols/{part(symbol)}?{query}")

    def quality(self, **query: object) -> list[Json]:
        """Return the verdicts on stored series."""
        return self._items(f"{ROOT}/market/quality", **query)

    def quality_page(self, **query: object) -> bytes:
        """Return the verdicts on stored series as an HTML page."""
        headers = {"Accept": "text/html, application/problem+json"}
        return self._wire.request("GET", f"{ROOT}/market/quality", query=query, headers=headers).body

    def instrument(self, symbol: str, **query: object) -> Json:
        """Return an instrument's facts and series."""
        answer: Json = self._wire.request("GET", f"{ROOT}/market/symbols/{part(symbol)}", query=query).json()
        return answer

    def edit_instrument(self, symbol: str, changes: Mapping[str, Any]) -> Json:
        """Set facts of an instrument by hand (None: leave one to the sources again); return it."""
        return self._object("PATCH", f"{ROOT}/market/symbols/{part(symbol)}", body=dict(changes))

    def actions(self, symbol: str, **query: object) -> list[Json]:
        """Return splits and dividends, oldest first."""
        return self._items(f"{ROOT}/market/actions/{part(symbol)}", **query)

    def replace_actions(self, symbol: str, rows: list[Json]) -> Json:
        """Replace splits and dividends."""
        return self._object("PUT", f"{ROOT}/market/actions/{part(symbol)}", body={"items": rows})

    def quote(self, symbol: str, **query: object) -> Json:
        """Return the newest prices of a symbol."""
        answer: Json = self._wire.request("GET", f"{ROOT}/market/quotes/{part(symbol)}", query=query).json()
        return answer

    def snapshots(self) -> list[Json]:
        """Return the lake's snapshots, newest first: id, time, parent."""
        return self._items(f"{ROOT}/market/snapshots")

    def snapshot(self, identity: str) -> Json:
        """Return what a snapshot holds and what it changed."""
        return self._object("GET", f"{ROOT}/market/snapshots/{part(identity)}")

    def collect(self, *, older_than_days: float | None, dry_run: bool) -> Json:
        """Remove old snapshots (None: older than the server's setting says); return what went, once it is done."""
        body = {"older_than_days": older_than_days, "dry_run": dry_run}
        return self._object("POST", f"{ROOT}/market/collect", body=body)

    def bars_page(self, symbol: str, **query: object) -> tuple[bytes, str]:
        """Return bars of a symbol as an Arrow stream, and the snapshot they are from."""
        headers = {"Accept": "application/vnd.apache.arrow.stream, application/problem+json"}
        path = f"{ROOT}/market/bars/{part(symbol)}"
        reply = self._wire.request("GET", path, query=query, headers=headers)
        return reply.body, reply.headers.get("x-snapshot-id", "")

    def query(self, request: Mapping[str, Any]) -> Json:
        """Return the answer to a SELECT over the lake, a list a column."""
        return self._object("POST", f"{ROOT}/market/query", body=dict(request))

    def cache(self) -> Json:
        """Return how much the cache of matrices holds, and how much it may."""
        return self._object("GET", f"{ROOT}/market/cache")

    def clear_cache(self) -> Json:
        """Empty the cache of matrices and return how much it held."""
        return self._object("DELETE", f"{ROOT}/market/cache")

    def warm_cache(self, request: Mapping[str, Any]) -> Json:
        """Have a matrix computed and kept; return its shape."""
        return self._object("POST", f"{ROOT}/market/cache/warm", body=dict(request))

    def _start(self, path: str, request: Mapping[str, Any] | None) -> Started:
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        body = dict(request) if request is not None else None
        reply = self._wire.request("POST", path, body=body, headers=headers)
        return Started.of(reply.json())

    def _object(self, method: str, path: str, body: object = None) -> Json:
        reply = self._wire.request(method, path, body=body)
        answer: Json = reply.json() if reply.body else {}
        return answer

    def _items(self, path: str, page: int | None = None, /, **query: object) -> list[Json]:
        """Return a list's items, page after page up to `limit`; `page` is the most that the route gives at once."""
        limit = query.get("limit")
        if page is not None:
            query["limit"] = min(limit, page) if isinstance(limit, int) else page
        found: list[Json] = []
        while True:
            answer = self._wire.request("GET", path, query=query).json()
            found += answer["items"]
            cursor = answer.get("next_cursor")
            if not cursor or (isinstance(limit, int) and len(found) >= limit):
                return found[:limit] if isinstance(limit, int) else found
            query["cursor"] = cursor


def _compared(run_ids: Sequence[str], sort: str | None) -> dict[str, object]:
    return {"runs": list(run_ids), "sort": sort}


def part(name: str) -> str:
    """Return a name as one part of a path: nothing in it leads elsewhere."""
    quoted = quote(name, safe="")
    return quoted.replace(".", "%2E") if set(name) <= {"."} else quoted
