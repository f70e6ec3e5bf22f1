"""Registers the deployments that `prefect.yaml` declares, quickly and without undoing what a user changed.

The result is that of `prefect --no-prompt deploy --all` from the installation's folder, which works as well, but takes
seconds (a CLI, a project, a process). Here: one read a deployment when nothing changed.

Who owns what: the file owns where the code is and what it takes (entrypoint, pull step, parameter schema, description,
version). These are brought up to date at each start. Everything else (schedules, paused or not, tags, concurrency
limit, default parameters, job variables) is the user's once the deployment exists: changed in the Prefect UI or by
`prefect deploy`, it stays changed. To take the file's values again, run `prefect deploy --all`, or delete the
deployment: the next start makes it anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import (
    DeploymentScheduleCreate,
    DeploymentUpdate,
    WorkPoolCreate,
)
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyOptions
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import construct_schedule
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from prefect.workers.process import ProcessWorker
from pydantic import BaseModel, ConfigDict

#: Where this installation has its `prefect.yaml` and its flows.
INSTALLATION: Final = Path(__file__).resolve().parent.parent

WORK_POOL: Final = "gpt-trader"


class WorkPoolReference(BaseModel):
    """A deployment's `work_pool` section."""

    model_config = ConfigDict(extra="forbid")

    name: str
    work_queue_name: str | None = None
    job_variables: dict[str, Any] = {}


class DeclaredSchedule(BaseModel):
    """One entry of a deployment's `schedules`, as `prefect.yaml` has it: when, and with what."""

    model_config = ConfigDict(extra="forbid")

    cron: str | None = None
    interval: float | None = None
    rrule: str | None = None
    timezone: str | None = None
    active: bool = True
    parameters: dict[str, Any] = {}
    slug: str | None = None

    def for_prefect(self) -> DeploymentScheduleCreate:
        """Return it as Prefect's API takes it."""
        when = construct_schedule(
            cron=self.cron, interval=self.interval, rrule=self.rrule, timezone=self.timezone
        )
        return DeploymentScheduleCreate(
            schedule=when, active=self.active, parameters=self.parameters, slug=self.slug
        )


class Declared(BaseModel):
    """One entry of `deployments` in `prefect.yaml`: of Prefect's fields those we use, and no others."""

    model_config = ConfigDict(extra="forbid")

    name: str
    entrypoint: str
    work_pool: WorkPoolReference
    description: str | None = None
    tags: list[str] = []
    parameters: dict[str, Any] = {}
    schedules: list[DeclaredSchedule] = []
    concurrency_limit: int | ConcurrencyLimitConfig | None = None
    enforce_parameter_schema: bool = True


@dataclass(frozen=True)
class Registered:
    """What a registration did, by the deployments' full names."""

    created: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)


def declared(folder: Path = INSTALLATION) -> list[Declared]:
    """Read the deployments of `folder/prefect.yaml`; raise pydantic.ValidationError on a field we do not know."""
    content = yaml.safe_load((folder / "prefect.yaml").read_text(encoding="utf-8"))
    return [Declared.model_validate(entry) for entry in content["deployments"]]


async def register(client: PrefectClient, folder: Path = INSTALLATION) -> Registered:
    """Make sure that every declared deployment and its work pool exist and point at the code in `folder`."""
    registered = Registered()
    for declaration in declared(folder):
        await ensure_work_pool(client, declaration.work_pool.name)
        flow = _load(declaration, folder)
        name = f"{flow.name}/{declaration.name}"
        owned = _owned_by_code(declaration, flow, folder)
        try:
            existing = await client.read_deployment_by_name(name)
        except ObjectNotFound:
            await _create(client, declaration, flow, owned)
            registered.created.append(name)
            continue
        changed = {key: value for key, value in owned.items() if _current(existing, key) != value}
        if changed:
            await client.update_deployment(existing.id, DeploymentUpdate(**changed))
        (registered.updated if changed else registered.unchanged).append(name)
    return registered


async def ensure_work_pool(client: PrefectClient, name: str) -> None:
    """Create the work pool, of type process, unless it exists; what a user set in it stays."""
    try:
        await client.read_work_pool(name)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        try:
            await client.create_work_pool(
                WorkPoolCreate(
                    name=name,
                    type="process",
                    description="Runs of gpt-trader: served by its warm worker, or by a stock process worker.",
                    base_job_template=template,
                )
            )
        except ObjectAlreadyExists:  # somebody else was quicker: that one is as good
            return


def _load(declaration: Declared, folder: Path) -> Flow[..., Any]:
    path, _, name = declaration.entrypoint.partition(":")
    return load_flow_from_entrypoint(f"{folder / path}:{name}", use_placeholder_flow=False)


def _owned_by_code(declaration: Declared, flow: Flow[..., Any], folder: Path) -> dict[str, Any]:
    return {
        "entrypoint": declaration.entrypoint,
        "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}],
        "parameter_openapi_schema": parameter_schema(flow).model_dump(exclude_unset=True),
        "description": declaration.description or flow.description,
        "version": flow.version,
    }


def _current(existing: DeploymentResponse, key: str) -> Any:  # noqa: ANN401 - whatever the field holds
    return getattr(existing, key)


async def _create(
    client: PrefectClient, declaration: Declared, flow: Flow[..., Any], owned: dict[str, Any]
) -> None:
    limit = declaration.concurrency_limit
    options = None
    if isinstance(limit, ConcurrencyLimitConfig):
        options = ConcurrencyOptions(collision_strategy=limit.collision_strategy)
        limit = limit.limit
    await client.create_deployment(
        flow_id=await client.create_flow_from_name(flow.name),
        name=declaration.name,
        work_pool_name=declaration.work_pool.name,
        work_queue_name=declaration.work_pool.work_queue_name,
        job_variables=declaration.work_pool.job_variables,
        tags=declaration.tags,
        parameters=declaration.parameters,
        schedules=[schedule.for_prefect() for schedule in declaration.schedules],
        concurrency_limit=limit,
        concurrency_options=options,
        enforce_parameter_schema=declaration.enforce_parameter_schema,
        **owned,
    )
