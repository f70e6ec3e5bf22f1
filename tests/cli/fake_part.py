"""A part that behaves as its real one does from the outside: `fake_part.py NAME`, in a part's environment.

GPT_TRADER_TEST_<NAME> gives it a fault: `stubborn` ignores SIGTERM, `dies` ends at once, `refuses` ends with code 2,
`never` is never ready, `parent` has a child that outlives it and ignores SIGTERM, `sessions` has a child and a
grandchild, each in a session of its own and deaf to SIGTERM, as the worker has its template and its runs, `chatty`
logs more than a log may hold and says so once more whenever it gets SIGUSR1.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

BELOW = ("child", "grandchild")
ROUTES = {"api": "/api/v1/system/health/ready", "prefect": "/api/health"}


def main(name: str) -> None:
    home = Path(os.environ["GPT_TRADER_HOME"])
    fault = os.environ.get(f"GPT_TRADER_TEST_{name.upper()}", "")
    if fault in ("dies", "refuses"):
        sys.stderr.write(f"{name} finds no flux capacitor\n")
        sys.exit(2 if fault == "refuses" else 1)
    if fault == "stubborn" or name in BELOW:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if fault == "parent":
        subprocess.Popen(
            [sys.executable, __file__, "child"], env=os.environ | {"GPT_TRADER_TEST_CHILD": "stubborn"}
        )
    if fault == "chatty":
        line = b"x" * 1023 + b"\n"
        for _ in range(11 * 1024):
            os.write(1, line)
        os.write(1, b"that was all\n")
        signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b"still here\n") and None)
    if fault == "sessions" and name != BELOW[-1]:
        below = BELOW[BELOW.index(name) + 1] if name in BELOW else BELOW[0]
        own = {f"GPT_TRADER_TEST_{below.upper()}": "sessions"}
        subprocess.Popen([sys.executable, __file__, below], env=os.environ | own, start_new_session=True)
    if fault == "never" or name in BELOW:
        signal.pause()
    seen = {
        key: value
        for key, value in os.environ.items()
        if key.startswith(("GPT_TRADER_", "PREFECT_", "PYTHON"))
    }
    (home / "state" / f"{name}.environment").write_text(json.dumps(seen))
    if name == "database":
        status = home / "database/cluster/data/postmaster.pid"
        status.parent.mkdir(parents=True, exist_ok=True)
        status.write_text("\n".join([str(os.getpid()), *("x" for _ in range(6)), "ready   "]) + "\n")
    elif name == "worker":
        (home / "state/worker.json").write_text(json.dumps({"state": "ready"}))
    else:
        serve(int(os.environ[f"GPT_TRADER_{name.upper()}_PORT"]), ROUTES[name])
    while True:
        signal.pause()


def serve(port: int, route: str) -> None:
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen()
        while True:
            connection, _ = listening.accept()
            with connection:
                asked = connection.recv(65536).decode().split(" ")
                status = "200 OK" if asked[1:2] == [route] else "404 Not Found"
                connection.sendall(
                    f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
                )


if __name__ == "__main__":
    main(sys.argv[1])
