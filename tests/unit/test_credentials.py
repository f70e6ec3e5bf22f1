"""Keys: where they are found, who may read their file, and that they show nowhere else."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr

from gpt_trader.adapters.sources import Access
from gpt_trader.credentials import credential, read_credentials, required, write_credential
from gpt_trader.errors import Denied, GptTraderError, Refused
from gpt_trader.settings import Home, Settings

SECRET = "tops3cret-value"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "credentials.yaml"


def secrets(**fields: str) -> dict[str, SecretStr]:
    return {name: SecretStr(value) for name, value in fields.items()}


def plain(found: object) -> dict[str, str]:
    assert isinstance(found, dict)
    return {name: value.get_secret_value() for name, value in found.items()}


def put(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def test_nothing_is_known_where_there_is_neither_file_nor_variable(path: Path):
    assert read_credentials(path) == {}
    assert credential("alpaca", path, {}) == {}


def test_the_environment_wins_over_the_file_field_by_field(path: Path):
    write_credential("alpaca", secrets(key="file-key", secret="file-secret"), path)
    environ = {"GPT_TRADER_CREDENTIAL_ALPACA_KEY": "env-key", "GPT_TRADER_CREDENTIAL_ALPACA_PAPER": "yes"}
    found = credential("alpaca", path, environ)
    assert plain(found) == {"key": "env-key", "secret": "file-secret", "paper": "yes"}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GPT_TRADER_CREDENTIAL_ALPACA_KEY", ""),
        ("GPT_TRADER_CREDENTIAL_KRAKEN_KEY", "other"),
        ("ALPACA_KEY", "other"),
        ("gpt_trader_credential_alpaca_key", "other"),
    ],
)
def test_variables_that_are_empty_or_of_others_say_nothing(path: Path, variable: str, value: str):
    write_credential("alpaca", secrets(key="file-key"), path)
    assert plain(credential("alpaca", path, {variable: value})) == {"key": "file-key"}


def test_the_process_environment_is_the_default(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GPT_TRADER_CREDENTIAL_CCXT_KRAKEN_KEY", SECRET)
    assert plain(credential("ccxt:kraken", path)) == {"key": SECRET}
    assert credential("ccxt:binance", path) == {}


def test_sources_get_theirs_from_the_home(tmp_path: Path):
    home = Home(tmp_path)
    write_credential("alpaca", secrets(key="file-key"), home.credentials)
    assert plain(Access.of(Settings(), home).credential("alpaca")) == {"key": "file-key"}


def test_names_are_written_replaced_and_taken_out_one_by_one(path: Path):
    write_credential("alpaca", secrets(key="a", secret="b"), path)
    write_credential("ccxt:kraken", secrets(key="c"), path)
    write_credential("alpaca", secrets(key="d"), path)
    assert {n: plain(f) for n, f in read_credentials(path).items()} == {
        "alpaca": {"key": "d"},
        "ccxt:kraken": {"key": "c"},
    }
    write_credential("alpaca", None, path)
    write_credential("nobody", None, path)
    assert list(read_credentials(path)) == ["ccxt:kraken"]


@pytest.mark.parametrize("value", ["007", "true", "null", "1e5", "a: b", "#hash", " space ", "ключ", "'\"\\"])
def test_a_value_comes_back_to_the_letter(path: Path, value: str):
    write_credential("alpaca", secrets(key=value), path)
    assert plain(read_credentials(path)["alpaca"]) == {"key": value}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_file_and_its_folder_are_their_owners_alone_whatever_the_umask(path: Path, umask: int):
    before = os.umask(umask)
    try:
        write_credential("alpaca", secrets(key=SECRET), path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o666, 0o777])
def test_a_file_that_others_may_touch_is_neither_read_nor_written(path: Path, mode: int):
    text = f"alpaca: {{key: {SECRET}}}\n"
    put(path, text, mode)
    for refused in (
        lambda: credential("alpaca", path, {}),
        lambda: write_credential("alpaca", secrets(key="new"), path),
    ):
        with pytest.raises(Denied, match=f"chmod 600 {path}") as caught:
            refused()
        assert SECRET not in shown(caught.value)
    assert (path.read_text(), path.stat().st_mode & 0o777) == (text, mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_is_not_read(path: Path):
    put(path, "alpaca: {key: theirs}\n")
    os.chown(path, 12345, 12345)
    with pytest.raises(Denied, match="a regular file of yours"):
        credential("alpaca", path, {})


def test_a_symlink_is_neither_followed_nor_replaced(path: Path, tmp_path: Path):
    real = put(tmp_path / "real.yaml", f"alpaca: {{key: {SECRET}}}\n")
    path.parent.mkdir()
    path.symlink_to(real)
    with pytest.raises(Denied, match="cannot be read"):
        credential("alpaca", path, {})
    with pytest.raises(Denied, match="cannot be read"):
        write_credential("alpaca", secrets(key="new"), path)
    assert path.is_symlink()
    assert SECRET in real.read_text()


def test_a_folder_is_refused(path: Path):
    path.mkdir(parents=True, mode=0o700)
    with pytest.raises(Denied):
        credential("alpaca", path, {})


def test_a_write_replaces_the_file_and_never_changes_the_old_one(path: Path, tmp_path: Path):
    write_credential("alpaca", secrets(key="old"), path)
    kept = tmp_path / "kept.yaml"
    os.link(path, kept)  # whoever had opened the old file still sees all of it
    write_credential("alpaca", secrets(key="new"), path)
    assert yaml.safe_load(kept.read_text()) == {"alpaca": {"key": "old"}}
    assert yaml.safe_load(path.read_text()) == {"alpaca": {"key": "new"}}
    assert list(path.parent.iterdir()) == [path], "no draft stays"


class Odd(SecretStr):
    """Fails once the draft is open: no plain text, so YAML does not write it."""

    def get_secret_value(self) -> str:
        return type("Text", (str,), {})("odd")


def test_a_write_that_fails_leaves_the_file_and_no_draft(path: Path):
    write_credential("alpaca", secrets(key="old"), path)
    with pytest.raises(yaml.representer.RepresenterError):
        write_credential("ccxt:kraken", {"key": Odd("odd")}, path)
    assert {n: plain(f) for n, f in read_credentials(path).items()} == {"alpaca": {"key": "old"}}
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "name", ["", "ALPACA", "al paca", "ccxt:", ":kraken", "a/b", "ccxt:kraken:x", "../alpaca"]
)
def test_a_name_of_another_form_is_refused(path: Path, name: str):
    with pytest.raises(Refused, match="name: is no source's name; allowed: alpaca, ccxt:kraken"):
        write_credential(name, secrets(key=SECRET), path)
    assert not path.exists()


@pytest.mark.parametrize("field", ["", "Key", "api key", "key1", "k" * 33])
def test_a_field_of_another_form_is_refused(path: Path, field: str):
    with pytest.raises(Refused, match="field: is no field's name; allowed: key, secret, password") as caught:
        write_credential("alpaca", {field: SecretStr(SECRET)}, path)
    assert SECRET not in shown(caught.value)
    assert not path.exists()


@pytest.mark.parametrize(
    "text",
    [
        f"alpaca: {SECRET}\n",
        f"- {SECRET}\n",
        f"{SECRET}\n",
        f"alpaca: {{key: {SECRET}\n",
        f"alpaca:\n\tkey: {SECRET}\n",
        f"alpaca: !!python/object/apply:os.system ['{SECRET}']\n",
        f"alpaca: &x {{key: {SECRET}}}\nalpaca: *y\n",
    ],
)
def test_a_file_of_another_form_is_refused_without_showing_a_line(path: Path, text: str):
    put(path, text)
    with pytest.raises(Refused, match="must map each name to its fields") as caught:
        credential("alpaca", path, {})
    assert SECRET not in shown(caught.value)


def test_an_empty_file_holds_nothing(path: Path):
    assert read_credentials(put(path, "")) == {}


def test_what_is_missing_is_named_with_the_ways_to_give_it():
    with pytest.raises(Denied) as caught:
        required(secrets(key=SECRET), "ccxt:kraken", "key", "secret", "password")
    assert "secret, password is not known" in caught.value.detail
    assert "gpt-trader data credentials set ccxt:kraken" in caught.value.detail
    assert (
        "GPT_TRADER_CREDENTIAL_CCXT_KRAKEN_SECRET, GPT_TRADER_CREDENTIAL_CCXT_KRAKEN_PASSWORD"
        in caught.value.detail
    )
    assert SECRET not in shown(caught.value)


def test_what_is_required_comes_in_order():
    assert required(secrets(key="k", secret="s"), "alpaca", "secret", "key") == ("s", "k")


def test_no_repr_or_text_shows_a_value(path: Path):
    write_credential("alpaca", secrets(key=SECRET), path)
    found = credential("alpaca", path, {"GPT_TRADER_CREDENTIAL_ALPACA_SECRET": SECRET})
    assert sorted(found) == ["key", "secret"]
    for text in (repr(found), str(found), f"{found}", repr(read_credentials(path)), f"{found['key']}"):
        assert SECRET not in text
        assert "**" in text


def shown(error: GptTraderError) -> str:
    """Return all that a log or a page could show of an error."""
    documents = [problem.as_dict() for problem in error.problems]
    return "".join(traceback.format_exception(error)) + repr(error) + str(documents)
