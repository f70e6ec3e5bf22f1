"""Settings: which place wins, what is refused, and that a secret stays one."""

import pytest

from gpt_trader.errors import Refused
from gpt_trader.settings import Home, home, load_settings


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("GPT_TRADER_HOME", str(tmp_path))
    return tmp_path


def test_options_beat_environment_beats_file_beats_default(own_home):
    (own_home / "config.yaml").write_text("api_port: 1001\nprefect_port: 1002\nworker_limit: 3\n")
    environ = {"GPT_TRADER_API_PORT": "2001", "GPT_TRADER_PREFECT_PORT": "2002", "GPT_TRADER_HOME": "ignored"}
    settings = load_settings({"api_port": 3001, "worker_limit": None}, environ)
    assert (settings.api_port, settings.prefect_port, settings.worker_limit) == (3001, 2002, 3)
    assert settings.worker_poll_seconds == 0.1
    assert settings.chosen("api_port")
    assert not settings.chosen("worker_poll_seconds")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("api_prt: 1", "did you mean 'api_port'"),
        ("api_port: 99999", "api_port"),
        ("- a list", "must be a mapping"),
        ("a: [", "not valid YAML"),
        ("default_source: smaple", "did you mean 'sample'"),
    ],
)
def test_a_wrong_file_is_refused_by_name(own_home, written, said):
    (own_home / "config.yaml").write_text(written)
    with pytest.raises(Refused, match=said):
        load_settings(environ={})


def test_a_file_that_is_no_text_is_refused(own_home):
    (own_home / "config.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Refused, match="not valid YAML"):
        load_settings(environ={})


def test_an_unknown_variable_of_ours_is_refused():
    with pytest.raises(Refused, match="api_port"):
        load_settings(environ={"GPT_TRADER_API_PROT": "1"})


def test_a_part_of_a_running_engine_does_not_read_the_file(own_home):
    (own_home / "config.yaml").write_text("nope: 1\napi_port: 1001\n")
    settings = load_settings(environ={"GPT_TRADER_PART": "worker", "GPT_TRADER_API_PORT": "2001"})
    assert settings.api_port == 2001


def test_a_database_url_is_never_shown():
    settings = load_settings(environ={"GPT_TRADER_DATABASE_URL": "postgresql://u:hunter2@h/d"})
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in settings.model_dump_json()


def test_home_is_where_the_variable_says(own_home):
    assert home() == Home(own_home)


@pytest.mark.parametrize("written", ["", "{", "[]", '{"api_url": null}', '{"parts": {}}'])
def test_a_damaged_engine_record_names_no_api(own_home, written):
    assert home().api_origin() is None
    (own_home / "engine.json").write_text(written)
    assert home().api_origin() is None
