"""Homes that are not safely ours, and ports: each refusal names the folder or the port and the way out."""

import os
import socket
import stat
from pathlib import Path

import pytest

from cli.engine.home import check_home, prepare_home
from cli.engine.plan import settings_environment
from cli.engine.ports import choose_port
from cli.engine.running import find_engine
from gpt_trader.errors import Refused
from gpt_trader.settings import Home, Settings, load_settings

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user")


def test_a_home_is_made_private_whatever_the_umask(tmp_path: Path) -> None:
    home = Home(tmp_path / "deep" / "home")
    before = os.umask(0)
    try:
        prepare_home(home)
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(folder.stat().st_mode) for folder in (home.root, home.state, home.logs)}
    assert modes == {0o700}
    prepare_home(home)


def test_a_missing_home_is_nobodys_engine_and_is_not_made(tmp_path: Path) -> None:
    home = Home(tmp_path / "none")
    assert find_engine(home) is None
    assert not home.root.exists()


@pytest.mark.parametrize("inner", ["", "state", "logs"])
def test_a_folder_that_everyone_can_write_is_refused(tmp_path: Path, inner: str) -> None:
    home = Home(tmp_path / "home")
    prepare_home(home)
    folder = home.root / inner
    folder.chmod(0o777)
    with pytest.raises(Refused, match=f"{folder} can be written by everyone; run: chmod 700"):
        find_engine(home)


@as_root
@pytest.mark.parametrize("inner", ["", "state"])
def test_another_users_home_is_refused(tmp_path: Path, inner: str) -> None:
    home = Home(tmp_path / "home")
    prepare_home(home)
    os.chown(home.root / inner, 65534, 65534)
    for use in (prepare_home, check_home):
        with pytest.raises(Refused, match=r"belongs to nobody, and you are root"):
            use(home)


@as_root
def test_another_users_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "mine")
    prepare_home(Home(link))
    os.lchown(link, 65534, 65534)
    with pytest.raises(Refused, match="belongs to nobody"):
        prepare_home(Home(link))


def test_a_link_to_nowhere_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "none")
    with pytest.raises(Refused, match="is a link to nowhere"):
        prepare_home(Home(link))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("inner", ["", "logs"])
def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path, inner: str) -> None:
    home = Home(tmp_path / "home")
    file = home.root / inner
    file.parent.mkdir(mode=0o700, exist_ok=True)
    file.write_text("")
    with pytest.raises(Refused, match=f"GPT_TRADER_HOME: {file} is not a folder"):
        prepare_home(home)


def test_a_place_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(Refused, match=r"GPT_TRADER_HOME: /proc/gpt-trader cannot be created"):
        prepare_home(Home(Path("/proc/gpt-trader")))


def test_any_free_port() -> None:
    first = choose_port("api_port", 0, host="127.0.0.1", chosen=True)
    second = choose_port("api_port", 0, host="127.0.0.1", chosen=True)
    assert first.number != second.number
    assert not first.moved
    first.release()
    second.release()


def test_the_next_free_port_is_taken_unless_one_was_chosen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        moved = choose_port("api_port", number, host="127.0.0.1", chosen=False)
        assert moved.number > number
        assert moved.moved
        moved.release()
        with pytest.raises(Refused, match=f"prefect_port: port {number} is taken; allowed: a free port"):
            choose_port("prefect_port", number, host="127.0.0.1", chosen=True)


def test_a_port_that_a_starting_engine_has_chosen_is_left_to_it() -> None:
    free = choose_port("api_port", 0, host="127.0.0.1", chosen=False)
    other = choose_port("api_port", free.number, host="127.0.0.1", chosen=False)
    assert other.number > free.number
    free.release()
    again = choose_port("api_port", free.number, host="127.0.0.1", chosen=True)
    assert again.number == free.number
    again.release()
    other.release()


def test_a_port_whose_connections_have_just_ended_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", number)) as client:
            accepted, _ = server.accept()
            accepted.close()  # the server's end closes first: TIME_WAIT stays on its port
            assert client.recv(1) == b""
    port = choose_port("api_port", number, host="127.0.0.1", chosen=True)
    assert port.number == number
    port.release()


def test_an_address_that_is_not_this_machines_is_refused() -> None:
    with pytest.raises(Refused, match="api_host: this machine has no such address"):
        choose_port("api_port", 8000, host="192.0.2.1", chosen=False)


def test_every_setting_reaches_the_parts_as_it_was_given() -> None:
    given = Settings.model_validate(
        {
            "cors_origins": ["https://desk.example", "http://127.0.0.1:8080"],
            "public_hosts": ["trader.example"],
            "trusted_proxies": [],
            "rate_limits": {"GET /ws/v1/": "3/minute"},
            "open_report": True,
        }
    )
    assert load_settings(environ={"GPT_TRADER_PART": "api", **settings_environment(given)}) == given
