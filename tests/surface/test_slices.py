"""The table of slices against every face of the program: no row without its flow, deployment, route, command, page."""

import inspect
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import pytest
import typer
import yaml

from api.app import create_app
from cli.tree import build
from gpt_trader.requests import Request
from gpt_trader.settings import Home, Settings
from gpt_trader.slices import SLICES

ROOT = Path(__file__).parent.parent.parent

rows = pytest.mark.parametrize("row", SLICES.values(), ids=SLICES)


@cache
def openapi():
    return create_app(Settings(), Home(Path("/nowhere"))).openapi()


def deployments():
    return {each["name"]: each for each in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]}


@rows
def test_request(row):
    model = row.request_type()
    assert issubclass(model, Request)
    assert model.model_config["extra"] == "forbid"
    assert "schema_version" in model.model_fields


@rows
def test_flow_takes_the_request_and_nothing_else(row):
    module, _, name = row.flow.rpartition(".")
    flow = getattr(import_module(module), name)
    assert flow.name == row.name
    assert get_type_hints(flow.fn)["request"] is row.request_type()
    assert list(inspect.signature(flow.fn).parameters) == ["request"]
    for hook in ("on_running", "on_completion", "on_failure", "on_cancellation", "on_crashed"):
        assert getattr(flow, f"{hook}_hooks"), f"{row.name} does not tell the event log of {hook}"


@rows
def test_deployment(row):
    declared = deployments()[row.name]
    module, _, function = row.flow.rpartition(".")
    assert declared["entrypoint"] == f"{module.replace('.', '/')}.py:{function}"


@rows
def test_route(row):
    operation = openapi()["paths"][row.route]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert row.request_type().__name__ in str(schema)
    assert "202" in operation["responses"]


@rows
def test_command(row):
    group = typer.main.get_command(build())
    for word in row.command.split():
        assert word in group.commands, f"no command {row.command}"
        group = group.commands[word]


@rows
def test_page(row):
    page = (ROOT / "docs" / "slices" / f"{row.name.replace('_', '-')}.md").read_text()
    for named in (f"gpt-trader {row.command}", row.route, row.flow, row.deployment, row.request):
        assert named in page, f"the page of {row.name} does not name {named}"


def test_nothing_is_deployed_that_is_no_slice():
    assert set(deployments()) == set(SLICES)
