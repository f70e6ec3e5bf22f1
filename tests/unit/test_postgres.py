"""The embedded PostgreSQL: who may enter, how it stops, and what it refuses without touching it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from gpt_trader.errors import Conflict, Refused
from gpt_trader.settings import Home
from storage import unprivileged
from storage.cluster import SUPERUSER, Cluster, is_ready, locate, processes_in, read_postmaster, running
from storage.preparation import prepare
from tests.waiting import eventually

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home whose cluster is prepared; tests that damage it put it right again."""
    home = Home(tmp_path_factory.mktemp("prepared") / "home")
    prepare(home)
    return home


@pytest.fixture
def cluster(prepared: Home) -> Cluster:
    found = locate(prepared)
    assert found is not None
    return found


def start(home: Home, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "storage.postgres"],
        env={**os.environ, "GPT_TRADER_HOME": str(home.root)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]  # options of Popen
    )


@contextlib.contextmanager
def served(home: Home) -> Iterator[tuple[subprocess.Popen[str], Cluster]]:
    """Serve the home's cluster; stop it afterwards, whatever the test did to it."""
    with start(home) as process:
        try:
            yield process, eventually(lambda: _ready(home, process), seconds=60, what="the server is ready")
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
    cluster = locate(home)
    assert cluster is not None
    eventually(lambda: not processes_in(cluster.data), what="the server has ended")


def _ready(home: Home, process: subprocess.Popen[str]) -> Cluster | None:
    assert process.poll() is None, process.communicate()[1]
    cluster = locate(home)
    return cluster if cluster is not None and is_ready(cluster) else None


def connected(cluster: Cluster) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(cluster.url("postgres", role=SUPERUSER), autocommit=True)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_only_the_owner_gets_in(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    before = {path: mode(path) for path in tmp_path.resolve().parents if path.exists()} | {
        tmp_path: mode(tmp_path)
    }
    with served(home) as (_, cluster):
        assert mode(home.root) == mode(home.database) == mode(cluster.root) == 0o700
        assert mode(cluster.data) == mode(cluster.socket_folder) == 0o700
        assert mode(cluster.password_file) == 0o600
        assert mode(cluster.socket_folder / ".s.PGSQL.5432") == 0o700
        with connected(cluster) as connection:
            shown = connection.execute("SHOW listen_addresses").fetchone()
            methods = connection.execute("SELECT DISTINCT auth_method FROM pg_hba_file_rules").fetchall()
        assert (shown, methods) == (("",), [("scram-sha-256",)])
        for options in ({"passfile": "/nonexistent"}, {"password": "guessed"}):
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(cluster.url("postgres", role=SUPERUSER), **options).close()
        secrets = [line.split(":")[-1] for line in cluster.password_file.read_text().splitlines()]
        argv = " ".join(path.read_text() for path in Path("/proc").glob("[0-9]*/cmdline") if _belongs(path))
        assert str(cluster.data) in argv
        assert not any(secret in argv + cluster.url("postgres") for secret in secrets)
    assert {path: mode(path) for path in before} == before


def _belongs(cmdline: Path) -> bool:
    with contextlib.suppress(OSError):
        return b"postgres" in cmdline.read_bytes()
    return False


@as_root
def test_as_root_the_server_is_another_user_s_and_the_home_stays_closed(
    prepared: Home, cluster: Cluster
) -> None:
    assert cluster.root.parent == unprivileged.STATE / "clusters"
    assert not cluster.root.is_relative_to(prepared.root)
    owner = cluster.data.stat().st_uid
    assert owner != 0
    assert mode(unprivileged.STATE) == 0o755
    assert mode(cluster.root.parent) == 0o711
    binaries = next(unprivileged.STATE.glob("postgres-*"))
    assert {path.lstat().st_uid for path in binaries.rglob("*")} == {0}
    assert not [path for path in binaries.rglob("*") if mode(path) & 0o022 and not path.is_symlink()]
    with served(prepared) as (_, serving):
        postmaster = running(serving)
        assert postmaster is not None
        status = Path(f"/proc/{postmaster.pid}/status").read_text()
        uids = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
        assert set(uids) == {str(owner)}


@as_root
def test_a_new_home_at_an_old_path_starts_empty(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    first = prepare(home)
    shutil.rmtree(home.root)
    second = prepare(home)
    assert second.root != first.root
    shutil.rmtree(first.root)


@as_root
def test_a_home_whose_cluster_is_gone_says_where_it_was(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    cluster = prepare(home)
    shutil.rmtree(cluster.root)
    with pytest.raises(Refused, match=f"leads to {cluster.root}, which is gone"):
        prepare(home)
    (home.database / "cluster").unlink()
    assert prepare(home).root != cluster.root


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_fast_with_clients_connected(prepared: Home, number: int) -> None:
    with served(prepared) as (process, cluster), connected(cluster) as client:
        process.send_signal(number)
        assert process.wait(timeout=10) == 0
        assert not is_ready(cluster)
        assert not (cluster.data / "postmaster.pid").exists()  # an orderly end
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT 1")


def test_it_outlives_neither_its_front_nor_a_crash(prepared: Home) -> None:
    with served(prepared) as (process, cluster):
        process.kill()
        eventually(lambda: not processes_in(cluster.data), what="the server follows its front process")
    with served(prepared) as (process, cluster):
        with connected(cluster) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
            connection.execute("INSERT INTO kept VALUES (1)")
        postmaster = running(cluster)
        assert postmaster is not None
        os.kill(postmaster.pid, signal.SIGKILL)
        assert process.wait(timeout=10) == 128 + signal.SIGKILL
        assert not is_ready(cluster)
    with served(prepared) as (_, cluster), connected(cluster) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (1,)


def test_a_dead_server_s_number_may_be_anyone_s(prepared: Home, cluster: Cluster) -> None:
    """After a crash and a reboot another process may have the old number, even one of the same user."""
    user = cluster.data.stat().st_uid
    stranger = (
        subprocess.Popen(["sleep", "60"], user=user)
        if os.geteuid() == 0
        else subprocess.Popen(["sleep", "60"])
    )
    try:
        lines = [
            str(stranger.pid),
            str(cluster.data),
            "1",
            "5432",
            str(cluster.socket_folder),
            "",
            "0 0",
            "ready",
        ]
        mark = cluster.data / "postmaster.pid"
        mark.write_text("\n".join(lines) + "\n")
        os.chown(mark, user, -1)
        assert read_postmaster(cluster) is not None
        assert not is_ready(cluster)
        with served(prepared) as (_, serving):
            assert is_ready(serving)
    finally:
        stranger.kill()
        stranger.wait(timeout=10)


@pytest.mark.parametrize(
    "content", ["", "nonsense\n", "123", "99999999999999999999\n/data\n1\n5432\n\n\n0\nready\n"]
)
def test_a_torn_mark_is_no_server(cluster: Cluster, content: str) -> None:
    mark = cluster.data / "postmaster.pid"
    mark.write_text(content)
    try:
        assert not is_ready(cluster)
        assert running(cluster) is None
    finally:
        mark.unlink()


def test_a_second_server_is_refused(prepared: Home) -> None:
    with served(prepared) as (_, cluster):
        postmaster = running(cluster)
        assert postmaster is not None
        with start(prepared) as second:
            complaint = second.communicate(timeout=30)[1]
        assert second.returncode == Conflict.exit_code
        assert f"pid {postmaster.pid}" in complaint
        assert "GPT_TRADER_HOME" in complaint
        with connected(cluster) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def _change_version(cluster: Cluster) -> Callable[[], object]:
    path = cluster.data / "PG_VERSION"
    path.write_text("15\n")
    return lambda: path.write_text("18\n")


def _hide(name: str) -> Callable[[Cluster], Callable[[], object]]:
    def change(cluster: Cluster) -> Callable[[], object]:
        path, hidden = cluster.root / name, cluster.root.parent / "hidden-by-test"
        path.rename(hidden)
        return lambda: hidden.rename(path)

    return change


def _open_passwords(cluster: Cluster) -> Callable[[], object]:
    cluster.password_file.chmod(0o644)
    return lambda: cluster.password_file.chmod(0o600)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_change_version, r"made by PostgreSQL 15.*brings PostgreSQL 18.*pg_dumpall"),
        (_hide("data/PG_VERSION"), r"not a PostgreSQL data folder.*move .* away"),
        (_hide("data"), r"not a PostgreSQL data folder.*pgpass"),
        (_hide("data/global/pg_control"), r"damaged \(pg_control missing\)"),
        (_hide("pgpass"), r"damaged \(pgpass missing\)"),
        (_open_passwords, r"can be read by others.*chmod 600"),
    ],
    ids=["version", "foreign", "no data", "no control file", "no passwords", "open passwords"],
)
def test_what_it_cannot_serve_is_refused_and_left_alone(
    prepared: Home, cluster: Cluster, change: Callable[[Cluster], Callable[[], object]], complaint: str
) -> None:
    undo = change(cluster)
    try:
        before = _tree(cluster.root)
        with pytest.raises(Refused, match=complaint):
            prepare(prepared)
        assert _tree(cluster.root) == before
    finally:
        undo()
    assert prepare(prepared) == cluster


def _tree(folder: Path) -> dict[str, tuple[int, int, int]]:
    found = {str(path): path.lstat() for path in folder.rglob("*")}
    return {path: (entry.st_mode, entry.st_size, entry.st_mtime_ns) for path, entry in found.items()}


def test_a_refusal_has_its_exit_code_and_no_traceback(prepared: Home, cluster: Cluster) -> None:
    undo = _change_version(cluster)
    try:
        with start(prepared) as process:
            complaint = process.communicate(timeout=30)[1]
    finally:
        undo()
    assert process.returncode == Refused.exit_code
    assert complaint.startswith("gpt-trader database: ")
    assert "Traceback" not in complaint


def test_what_somebody_else_put_there_is_refused(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.database.mkdir(parents=True, mode=0o700)
    (home.database / "PG_VERSION").write_text("16\n")
    with pytest.raises(Refused, match="PG_VERSION, which gpt-trader did not put there"):
        prepare(home)
    assert (home.database / "PG_VERSION").read_text() == "16\n"
    assert locate(home) is None


def test_a_home_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match=r"cannot be written .*GPT_TRADER_HOME"):
        prepare(Home(tmp_path / "file" / "home"))


@as_root
def test_another_user_s_home_is_refused(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.database.mkdir(parents=True, mode=0o700)
    os.chown(home.database, 65534, 65534)
    with pytest.raises(Refused, match="belongs to uid 65534"):
        prepare(home)
    assert list(home.database.iterdir()) == []


def test_an_interrupted_start_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    """Everything is killed in the middle of initdb; the next start begins anew."""
    home = Home(tmp_path / "home")
    with start(home, start_new_session=True) as process:
        staged = eventually(lambda: _staged(home), what="initdb has begun")
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)
    assert locate(home) is None
    assert staged.exists()
    with served(home) as (_, cluster), connected(cluster) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert not staged.exists()


def _staged(home: Home) -> Path | None:
    places = [home.database, unprivileged.STATE / "clusters"]
    digest = hashlib.sha256(os.fsencode(home.root.resolve())).hexdigest()[:12]
    for place in places:
        for path in place.glob(".new-*"):
            if (path / "data" / "PG_VERSION").exists() and path.name in (".new-cluster", f".new-{digest}"):
                return path
    return None


def test_a_signal_during_initdb_cleans_up(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with start(home) as process:
        staged = eventually(lambda: _staged(home), what="initdb has begun")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 130
    assert not staged.exists()
    assert locate(home) is None


def test_starters_at_the_same_time_make_one_cluster(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with start(home) as first, start(home) as second:
        eventually(lambda: (c := locate(home)) and is_ready(c), seconds=60, what="one of them serves")
        eventually(lambda: first.poll() is not None or second.poll() is not None, what="the other gives up")
        loser, winner = (first, second) if first.poll() is not None else (second, first)
        assert loser.returncode != 0
        winner.send_signal(signal.SIGTERM)
        assert winner.wait(timeout=30) == 0
        for process in (first, second):
            process.communicate(timeout=10)


def _without_root(home: Home) -> list[str]:
    """Return the command that serves the home as an ordinary user, who may read this interpreter as root may."""
    capability = "+dac_read_search"
    return [
        *("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"),
        *("--inh-caps", capability, "--ambient-caps", capability),
        *(sys.executable, "-P", "-m", "storage.postgres"),
    ]


@as_root
@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv (util-linux) changes the user")
@pytest.mark.parametrize("depth", [0, 3], ids=["short", "too long for a socket"])
def test_an_ordinary_user_s_cluster_lives_in_the_home(depth: int) -> None:
    with tempfile.TemporaryDirectory(prefix="gt-", dir="/tmp") as folder:
        home = Home(Path(folder, *["a-rather-long-name-of-a-folder"] * depth, "home"))
        home.root.mkdir(parents=True)
        for path in (home.root, *home.root.parents[: depth + 1]):
            os.chown(path, 65534, 65534)
        environment = {**os.environ, "GPT_TRADER_HOME": str(home.root)}
        environment.pop("XDG_RUNTIME_DIR", None)
        with subprocess.Popen(
            _without_root(home), env=environment, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                cluster = eventually(lambda: _ready(home, process), seconds=60, what="the server is ready")
                assert cluster.root == home.database / "cluster"
                assert not (home.database / "cluster").is_symlink()
                assert cluster.data.stat().st_uid == 65534
                assert mode(cluster.socket_folder) == 0o700
                assert cluster.socket_folder.stat().st_uid == 65534
                assert cluster.socket_folder.is_relative_to(home.root) == (depth == 0)
                with connected(cluster) as connection:
                    assert connection.execute("SELECT 1").fetchone() == (1,)
                recorded = cluster.socket_folder
            finally:
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=30)
        assert process.returncode == 0
        if depth:
            shutil.rmtree(recorded)
