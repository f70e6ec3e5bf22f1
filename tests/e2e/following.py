"""Ways to follow a run from outside, each as its users write it, and each by its own means through a restart."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

from collections.abc import Iterator  # isort: skip

from websockets.exceptions import ConnectionClosed, InvalidHandshake

from gpt_trader.runs import FINAL_STATES, channel_of
from tests.api.sockets import Plain
from tests.e2e.house import House
from tests.waiting import eventually

Told = tuple[str, str, dict[str, Any]]  # position, event, data
Value = TypeVar("Value")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def is_last(told: Told) -> bool:
    return told[1] == "state" and told[2].get("state") in FINAL_STATES


class Follower(threading.Thread):
    """Follows a run until its final state; comes back after each cut behind what it has."""

    def __init__(self, house: House, run_id: str) -> None:
        super().__init__(name=type(self).__name__, daemon=True)
        self.house, self.run_id = house, run_id
        self.told: list[Told] = []
        self.connections = 0
        self.failed: Exception | None = None
        self.start()

    @property
    def key(self) -> str:
        return (self.house.home.root / "key").read_text(encoding="ascii").strip()

    @property
    def last(self) -> str | None:
        return self.told[-1][0] if self.told else None

    def run(self) -> None:
        try:
            while not (self.told and is_last(self.told[-1])):
                self.follow()
        except Exception as error:  # noqa: BLE001 - told to the test, which waits in another thread
            self.failed = error

    def follow(self) -> None:
        """Take what one connection brings."""
        raise NotImplementedError

    def all(self) -> list[Told]:
        self.join(timeout=120)
        assert self.failed is None, self.failed
        assert not self.is_alive(), f"{self.name} has not ended: {self.told[-1:]}"
        return self.told


class BySocket(Follower):
    """A client of the WebSocket, in JSON or packed."""

    subprotocol = "gt.v1.json"

    def follow(self) -> None:
        epoch, _, offset = (self.last or ":0").partition(":")
        try:
            with Plain(self.house.record.api_url, self.key, subprotocol=self.subprotocol) as client:
                self.connections += 1
                recover = {"epoch": epoch or None, "offset": int(offset)}
                answer = client.subscribe(channel_of(self.run_id), recover)
                assert answer["type"] == "subscribed", answer
                coming = iter(answer["publications"])
                while not (self.told and is_last(self.told[-1])):  # a log line may follow it in the answer
                    message = next(coming, None) or client.take(60)
                    if message["type"] == "publication":
                        self.take(message)
        except (OSError, ConnectionClosed, InvalidHandshake):
            threading.Event().wait(0.1)

    def take(self, message: dict[str, Any]) -> None:
        self.told.append((f"{message['epoch']}:{message['offset']}", message["event"], message["data"]))


class ByPackedSocket(BySocket):
    subprotocol = "gt.v1.msgpack"


class ByCurl(Follower):
    """`curl -N`, and `Last-Event-ID` after a cut."""

    def follow(self) -> None:
        url = f"{self.house.record.api_url}/api/v1/workflows/runs/{self.run_id}/events"
        command = ["curl", "-sSN", "--fail", "--noproxy", "*", "-H", f"Authorization: Bearer {self.key}"]
        command += ["-H", f"Last-Event-ID: {self.last}"] if self.last else []
        event: dict[str, str] = {}
        with subprocess.Popen(
            [*command, url], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as curl:
            assert curl.stdout is not None
            self.connections += 1
            for line in curl.stdout:
                name, _, value = line.rstrip("\n").partition(": ")
                if name:
                    event[name] = value
                else:
                    if "id" in event:
                        self.told.append((event["id"], event["event"], json.loads(event["data"])))
                    event = {}
        threading.Event().wait(0.1)


PAGE = """<!doctype html><title>following</title><script>
const told = [];
let source = null, opened = 0;
const report = () => fetch('/told', {method: 'POST', body: JSON.stringify({told, opened})});
const take = (event) => {
  const data = JSON.parse(event.data);
  told.push([event.lastEventId, event.type, data]);
  const over = event.type === 'state' && FINAL.includes(data.state);
  if (over) source.close();
  if (over || told.length === 1) report();
};
async function open() {
  try {
    const {url} = await (await fetch('/ticket')).json();
    const after = told.length ? '&after=' + encodeURIComponent(told.at(-1)[0]) : '';
    source = new EventSource(url + after);
    opened += 1;
    for (const kind of ['state', 'progress', 'log', 'result']) source.addEventListener(kind, take);
    // A ticket opens one stream: the browser's own way back would bring the used one.
    source.onerror = () => { source.close(); setTimeout(open, 200); };
  } catch { setTimeout(open, 200); }
}
open();
</script>"""


class ByBrowser:
    """A page in Chromium whose server hands it tickets; the page reports what its EventSource brought."""

    def __init__(self, house: House, run_id: str) -> None:
        self._house, self._run_id = house, run_id
        self._reported: dict[str, Any] = {"told": [], "opened": 0}
        follower = self

        class Site(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                kind, content = follower.answer(self.path)
                with suppress(BrokenPipeError, ConnectionResetError):  # the browser was closed
                    self.send_response(200 if content else 503)
                    self.send_header("Content-Type", kind)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

            def do_POST(self) -> None:
                follower._reported = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.site = ThreadingHTTPServer(("127.0.0.1", house.page_port), Site)
        self.site.daemon_threads = True
        self.origin = f"http://127.0.0.1:{self.site.server_address[1]}"
        threading.Thread(target=self.site.serve_forever, daemon=True).start()

    def answer(self, path: str) -> tuple[str, bytes]:
        """Return a page's kind and content; no content while the engine does not answer."""
        if path == "/":
            return "text/html", PAGE.replace("FINAL", json.dumps(sorted(FINAL_STATES))).encode()
        if path != "/ticket":
            return "text/plain", b""
        try:
            made = self._house.api("POST", "/auth/stream-tickets")
        except Exception:  # noqa: BLE001 - the page asks again
            return "text/plain", b""
        if made.status_code not in (200, 201):
            return "text/plain", b""
        url = f"{self._house.record.api_url}/api/v1/workflows/runs/{self._run_id}/events"
        return "application/json", json.dumps({"url": f"{url}?ticket={made.json()['ticket']}"}).encode()

    @property
    def connections(self) -> int:
        return int(self._reported["opened"])

    @property
    def told(self) -> list[Told]:
        return [(position, event, data) for position, event, data in self._reported["told"]]

    def all(self) -> list[Told]:
        eventually(lambda: self.told and is_last(self.told[-1]), seconds=120, what="the page's last event")
        return self.told


@contextmanager
def browser(site: ByBrowser, folder: Path) -> Iterator[None]:
    """Show the site's page for the block."""
    flags = (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
        "--remote-debugging-port=0", f"--user-data-dir={folder / 'profile'}",
    )  # fmt: skip
    with subprocess.Popen(
        [str(CHROMIUM), *flags, site.origin], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=20)
            site.site.shutdown()
            site.site.server_close()
