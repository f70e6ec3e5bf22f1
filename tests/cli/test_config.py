"""`config`: files and environment only, no engine."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Command


def test_set_keeps_comments_and_the_rest(own_home: Path, cli: Command) -> None:
    own_home.mkdir(mode=0o700)
    file = own_home / "config.yaml"
    file.write_text("# ours\napi_port: 8010  # behind the proxy\n\nlog_level: debug # loud\n")
    assert cli("config set api_port 8011").code == 0
    assert cli("config set open_report true").code == 0
    assert file.read_text() == (
        "# ours\napi_port: 8011  # behind the proxy\n\nlog_level: debug # loud\nopen_report: true\n"
    )
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(own_home.glob(".config.yaml*")) == []


def test_a_file_whose_layout_cannot_be_kept_is_written_anew(own_home: Path, cli: Command) -> None:
    own_home.mkdir(mode=0o700)
    file = own_home / "config.yaml"
    file.write_text("{api_port: 8010, log_level: debug}\n")
    done = cli("config set api_port 8011")
    assert done.code == 0
    assert "without its comments" in done.err
    assert yaml.safe_load(file.read_text()) == {"api_port": 8011, "log_level": "debug"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("set api_prot 8011", "did you mean 'api_port'?"),
        ("get api_prot", "did you mean 'api_port'?"),
        ("set api_port 70000", "api_port: Input should be less than or equal to 65535"),
        ("set api_port eighty", "(given: 'eighty')"),
        ("set log_level loud", "log_level"),
        ("set api_port '[1, 2]'", "a setting is one value"),
    ],
)
def test_a_wrong_setting_is_refused_and_nothing_written(
    own_home: Path, cli: Command, words: str, said: str
) -> None:
    refused = cli(f"config {words}")
    assert (refused.code, refused.out) == (2, "")
    assert said in refused.err
    assert not own_home.exists()


def test_values_come_from_environment_before_file_before_default(
    own_home: Path, cli: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("config set api_port 8011")
    cli("config set log_level debug")
    monkeypatch.setenv("GPT_TRADER_API_PORT", "8022")
    listed = {row["setting"]: row for row in json.loads(cli("--output json config list").out)}
    assert (listed["api_port"]["value"], listed["api_port"]["source"]) == (8022, "environment")
    assert (listed["log_level"]["value"], listed["log_level"]["source"]) == ("debug", "file")
    assert (listed["worker_limit"]["value"], listed["worker_limit"]["source"]) == (4, "default")
    assert cli("config get api-port").out == "8022\n"
    assert "goes before the file" in cli("config set api_port 8012").err


def test_secrets_are_masked_and_read_from_standard_input(
    own_home: Path, process: Command, cli: Command
) -> None:
    secret = "postgresql://me:hunter2@db/name"
    cli("config", "set", "database_url", secret)
    for words in ("config list", "config get database_url", "--output json config list", "config validate"):
        shown = cli(words)
        assert shown.code == 0
        assert "hunter2" not in shown.out + shown.err
    assert yaml.safe_load((own_home / "config.yaml").read_text()) == {"database_url": secret}
    done = process("config set database_url -", stdin="postgresql://me:other@db/name\n")
    assert "other" not in done.out + done.err
    assert "other" in (own_home / "config.yaml").read_text()


def test_validate_names_everything_that_is_wrong(
    own_home: Path, cli: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_home.mkdir(mode=0o700)
    (own_home / "config.yaml").write_text("api_prot: 1\nworker_limit: 0\n")
    refused = cli("config validate")
    assert refused.code == 2
    assert "api_prot" in refused.err
    assert "worker_limit" in refused.err
    (own_home / "config.yaml").write_text("a: [1\n")
    assert "is not valid YAML" in cli("config validate").err
    (own_home / "config.yaml").unlink()
    assert cli("config validate").code == 0
    monkeypatch.setenv("GPT_TRADER_API_PROT", "1")
    assert "api_prot" in cli("config validate").err


def test_path(own_home: Path, cli: Command) -> None:
    assert cli("config path").out == f"{own_home / 'config.yaml'}\n"
    assert json.loads(cli("--output json config path").out) == {
        "path": str(own_home / "config.yaml"),
        "exists": False,
    }
