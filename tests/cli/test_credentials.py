"""`data credentials` and the file behind it: kept 0600, never shown, never half written, never from an option."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import resource
import stat
import subprocess
import sys
import termios
from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr

from gpt_trader.credentials import credential, read_credentials, required, write_credential
from gpt_trader.errors import Denied, GptTraderError, Refused
from tests.cli.conftest import ROOT, Command, Ended, environment

KEY, SECRET = "AK-hunter2", "s3cr3t/+ =#:'\"{é"


def silent(ended: Ended, *secrets: str) -> Ended:
    """Return what a command left, once none of the secrets is in it."""
    for each in (KEY, SECRET, *secrets):
        assert each not in ended.out + ended.err
    return ended


@pytest.fixture
def file(own_home: Path) -> Path:
    return own_home / "credentials.yaml"


@pytest.fixture
def fed(cli: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command line in this process with these lines on its standard input."""

    def run(lines: str, *words: str) -> Ended:
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        return cli(*words)

    return run


def stored(path: Path) -> dict[str, dict[str, str]]:
    found = read_credentials(path)
    return {name: {f: v.get_secret_value() for f, v in fields.items()} for name, fields in found.items()}


def test_a_key_from_a_pipe_is_kept_private_and_listed_without_its_value(
    file: Path, process: Command, cli: Command
) -> None:
    done = silent(process("data credentials set alpaca", stdin=f"{KEY}\r\n{SECRET}\n"))
    assert (done.code, done.err) == (0, "")
    assert done.out == f"stored in {file}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert stored(file) == {"alpaca": {"key": KEY, "secret": SECRET}}

    for output in ("table", "json", "yaml", "csv"):
        shown = silent(cli("--output", output, "data", "credentials", "list"))
        assert shown.code == 0, shown.err
        assert "alpaca" in shown.out
        assert "secret" in shown.out
    assert json.loads(cli("--output json data credentials list").out) == [
        {"name": "alpaca", "fields": ["key", "secret"]}
    ]
    assert [path.name for path in file.parent.iterdir()] == [file.name], "a draft was left"


def test_a_file_is_private_whatever_the_mask_is(file: Path) -> None:
    before = os.umask(0)
    try:
        write_credential("alpaca", {"key": SecretStr(KEY)}, file)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_at_a_terminal_a_key_is_asked_for_without_echo(file: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "gpt_trader", "data", "credentials", "set", "alpaca"],
        cwd=ROOT,
        env=environment(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
    ) as running:
        os.close(theirs)
        shown = b""
        for prompt, answer in ((b"alpaca key: ", KEY), (b"alpaca secret: ", SECRET)):
            while prompt not in shown:
                shown += os.read(ours, 4096)
            os.write(ours, answer.encode() + b"\n")
        try:
            while more := os.read(ours, 4096):
                shown += more
        except OSError:  # the terminal has gone with its last process
            pass
        assert running.wait(30) == 0, shown
    os.close(ours)
    assert KEY.encode() not in shown
    assert SECRET.encode() not in shown
    assert stored(file) == {"alpaca": {"key": KEY, "secret": SECRET}}


def test_fields_are_those_that_are_asked_for(file: Path, fed: Command) -> None:
    words = ("data", "credentials", "set", "ccxt:kraken", "--field", "key", "--field", "password")
    done = silent(fed(f"{KEY}\n{SECRET}\nnot asked for\n", "--output", "json", *words))
    assert json.loads(done.out) == {"name": "ccxt:kraken", "fields": ["key", "password"], "file": str(file)}
    assert stored(file) == {"ccxt:kraken": {"key": KEY, "password": SECRET}}


def test_a_key_that_is_set_again_replaces_its_own_alone(file: Path, fed: Command) -> None:
    set_ = ("data", "credentials", "set")
    fed(f"{KEY}\n{SECRET}\n", *set_, "alpaca")
    fed(f"{KEY}\n", *set_, "yahoo", "--field", "key")
    silent(fed("new\n", *set_, "alpaca", "--field", "key"), "new")
    assert stored(file) == {"alpaca": {"key": "new"}, "yahoo": {"key": KEY}}


def test_a_removed_key_is_gone_and_no_other(file: Path, cli: Command) -> None:
    for name in ("alpaca", "ccxt:kraken"):
        write_credential(name, {"key": SecretStr(KEY)}, file)
    done = silent(cli("data credentials remove alpaca"))
    assert (done.code, done.out) == (0, "removed the key of alpaca\n")
    assert stored(file) == {"ccxt:kraken": {"key": KEY}}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = cli("--output json data credentials remove alpaca")
    assert (again.code, again.out) == (2, "")
    assert json.loads(again.err)["type"] == "not-found"
    assert json.loads(cli("--output json data credentials remove ccxt:kraken").out) == {
        "name": "ccxt:kraken",
        "removed": True,
    }
    assert cli("data credentials list").out == "no key is stored\n"


def test_without_a_file_nothing_is_listed_and_nothing_made(own_home: Path, cli: Command) -> None:
    assert cli("data credentials list").out == "no key is stored\n"
    assert cli("--output json data credentials list").out.strip() == "[]"
    assert cli("data credentials remove alpaca").code == 2
    assert not own_home.exists()


@pytest.mark.parametrize(
    ("lines", "field"), [("\n" + SECRET, "key"), ("", "key"), (KEY, "secret"), (f"{KEY}\n\r\n", "secret")]
)
def test_an_empty_line_is_refused_and_nothing_kept(file: Path, fed: Command, lines: str, field: str) -> None:
    done = silent(fed(lines, "--verbose", "data", "credentials", "set", "alpaca"))
    assert (done.code, done.out) == (2, "")
    assert f"{field}: is empty" in done.err
    assert not file.exists()


@pytest.mark.parametrize(
    "name",
    ["../../x", "", "Alpaca", "alpaca:", ":kraken", "ccxt:kraken:x", "'; DROP", "😀", "a\0b", "a\n", "x/y", "-"],
)  # fmt: skip
def test_a_name_that_is_none_is_refused(file: Path, fed: Command, name: str) -> None:
    done = silent(fed(f"{KEY}\n{SECRET}\n", "--verbose", "data", "credentials", "set", "--", name))
    assert (done.code, done.out) == (2, "")
    assert "name: is no source's name; allowed: alpaca, ccxt:kraken" in done.err
    assert not file.exists()


@pytest.mark.parametrize("field", ["Key", "a b", "", "key!", "x" * 33, "../key", "ключ"])
def test_a_field_that_is_none_is_refused(file: Path, fed: Command, field: str) -> None:
    done = silent(fed(f"{KEY}\n", "--verbose", "data", "credentials", "set", "alpaca", "--field", field))
    assert (done.code, done.out) == (2, "")
    assert "field: is no field's name" in done.err
    assert not file.exists()


def test_no_option_takes_a_value(file: Path, process: Command) -> None:
    """What stands on a command line is in the shell's history, and everybody's to read in /proc."""
    for words in (("--key", KEY), ("--secret", SECRET), (KEY,)):
        assert process("data", "credentials", "set", "alpaca", *words, stdin="").code == 2
    assert not file.exists()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param(f"alpaca: {{key: {KEY}", 2, id="broken YAML"),
        pytest.param(f"alpaca: {KEY}", 2, id="no fields"),
        pytest.param(f"- {KEY}", 2, id="a list"),
        pytest.param(KEY, 2, id="a word"),
        pytest.param(f"? [{KEY}]\n: {{}}", 2, id="a list as a name"),
        pytest.param(f"alpaca: {{key: \t@{KEY}}}", 2, id="no scalar"),
        pytest.param(f"!!python/object/apply:os.system ['echo {KEY}']", 2, id="code"),
        pytest.param(b"\xff\xfe" + KEY.encode(), 2, id="no text"),
    ],
)
@pytest.mark.parametrize("command", ["list", "remove alpaca", "set alpaca"])
def test_a_damaged_file_is_refused_kept_and_never_shown(
    file: Path, fed: Command, content: str | bytes, code: int, command: str
) -> None:
    file.parent.mkdir(mode=0o700)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    file.chmod(0o600)
    before = file.read_bytes()
    done = silent(
        fed("new\nnewer\n", "--verbose", "data", "credentials", *command.split()), "hunter2", "newer"
    )
    assert (done.code, done.out) == (code, "")
    assert f"{file} must map each name to its fields" in done.err
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def _readable_by_others(path: Path) -> None:
    path.write_text(yaml.safe_dump({"alpaca": {"key": KEY}}))
    path.chmod(0o640)


def _linked(path: Path) -> None:
    other = path.with_name("elsewhere")
    other.write_text(yaml.safe_dump({"alpaca": {"key": KEY}}))
    other.chmod(0o600)
    path.symlink_to(other)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "lay", [_readable_by_others, _linked, Path.mkdir, lambda path: os.mkfifo(path, 0o600)],
    ids=["others may read it", "a link", "a folder", "a pipe that nobody writes to"],
)  # fmt: skip
def test_a_file_that_others_could_have_laid_is_not_read(file: Path, cli: Command, lay: object) -> None:
    assert callable(lay)
    file.parent.mkdir(mode=0o700)
    lay(file)
    opened = len(list(Path("/dev/fd").iterdir()))
    done = silent(cli("--verbose data credentials list"))
    assert (done.code, done.out) == (4, "")
    assert str(file) in done.err
    for _ in range(5):
        with pytest.raises(Denied):
            read_credentials(file)
    assert len(list(Path("/dev/fd").iterdir())) <= opened


@pytest.mark.parametrize(
    "value", ["0123", "0x1F", "1e5", "yes", "null", "~", "5.10", "2020-01-01", "a: b", "é😀", "x" * 5000]
)
def test_a_value_comes_back_as_it_was_given(file: Path, value: str) -> None:
    write_credential("alpaca", {"key": SecretStr(value)}, file)
    assert stored(file) == {"alpaca": {"key": value}}


@pytest.mark.parametrize("value", ["0123", "0x1F", "1_000", "yes", "5.10", "2020-01-01", "12:30"])
def test_a_value_that_a_person_wrote_without_quotes_is_what_stands_there(file: Path, value: str) -> None:
    file.parent.mkdir()
    file.write_text(f"alpaca: {{key: {value}}}\n")
    file.chmod(0o600)
    assert stored(file) == {"alpaca": {"key": value}}


def test_a_full_disk_leaves_what_was_there(file: Path) -> None:
    write_credential("alpaca", {"key": SecretStr(KEY)}, file)
    done = subprocess.run(
        [sys.executable, "-m", "gpt_trader", "--verbose", "data", "credentials", "set", "alpaca"],
        cwd=ROOT,
        env=environment(PYTHONDONTWRITEBYTECODE="1"),
        input=f"new\n{SECRET}\n",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10)),
    )
    assert silent(Ended(done.returncode, done.stdout, done.stderr)).code == 1
    assert "File too large" in done.stderr
    assert stored(file) == {"alpaca": {"key": KEY}}
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_the_environment_wins_field_by_field_and_an_empty_one_does_not(file: Path) -> None:
    write_credential("ccxt:kraken", {"key": SecretStr("file"), "secret": SecretStr("file")}, file)
    environ = {
        "GPT_TRADER_CREDENTIAL_CCXT_KRAKEN_KEY": "environment",
        "GPT_TRADER_CREDENTIAL_CCXT_KRAKEN_SECRET": "",
        "GPT_TRADER_CREDENTIAL_CCXT_KRAKEN_PASSWORD": "environment",
        "GPT_TRADER_CREDENTIAL_CCXT_BINANCE_KEY": "another's",
        "KRAKEN_KEY": "nobody's",
    }
    found = credential("ccxt:kraken", file, environ)
    assert {name: value.get_secret_value() for name, value in found.items()} == {
        "key": "environment",
        "secret": "file",
        "password": "environment",
    }
    assert credential("alpaca", file, environ) == {}
    assert required(found, "ccxt:kraken", "key", "secret") == ("environment", "file")


def test_what_is_missing_is_said_with_the_ways_to_give_it(file: Path) -> None:
    with pytest.raises(Denied) as denied:
        required({"key": SecretStr(KEY)}, "ccxt:kraken", "key", "secret", "password")
    said = denied.value.detail
    assert "secret, password is not known" in said
    assert "gpt-trader data credentials set ccxt:kraken" in said
    assert "GPT_TRADER_CREDENTIAL_CCXT_KRAKEN_SECRET" in said
    assert KEY not in said


def test_no_repr_and_no_error_shows_a_value(file: Path) -> None:
    write_credential("alpaca", {"key": SecretStr(KEY), "secret": SecretStr(SECRET)}, file)
    found = read_credentials(file)
    assert KEY not in f"{found!r} {found['alpaca']['key']} {json.dumps(found, default=str)}"
    for name, fields in (("no name", {"key": SecretStr(KEY)}), ("alpaca", {"No": SecretStr(KEY)})):
        with pytest.raises(Refused) as refused:
            write_credential(name, fields, file)
        error: GptTraderError = refused.value
        assert KEY not in f"{error!r} {error.detail} {[p.as_dict() for p in error.problems]}"
