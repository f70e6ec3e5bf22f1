"""Settings of one engine: defaults < `config.yaml` in its home < environment `GPT_TRADER_*` < options.

`GPT_TRADER_HOME` (default `~/.gpt-trader`) holds everything an engine owns; two homes are two engines.
Light on purpose: the CLI reads settings on every call.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator

from gpt_trader.adapters.names import source_name
from gpt_trader.alerts import AlertRules, Severity
from gpt_trader.quality import Policy
from gpt_trader.validation import validated

ENV_PREFIX: Final = "GPT_TRADER_"

#: Environment names that are ours but no settings: they choose the home, a credential, or a test's fault; PART marks
#: the processes of a part (`cli.engine.orphans`).
_NOT_SETTINGS: Final = frozenset({"HOME", "SHARED", "API_KEY", "SERVER", "CRASH_AT", "OUTPUT", "PART"})


@dataclass(frozen=True)
class Home:
    """Where everything of one engine lives. Nothing is created by asking for a path.

    Parts on machines apart have a home each; `shared` is the folder that these have in common (a network's file
    system): bars, results, strategies, and the keys by which each knows the others' callers.
    """

    root: Path
    shared: Path | None = None

    @property
    def common(self) -> Path:
        """The folder of what machines apart share; the home itself, where nothing says otherwise."""
        return self.shared or self.root

    @property
    def config(self) -> Path:
        """The user's settings file."""
        return self.root / "config.yaml"

    @property
    def key(self) -> Path:
        """The local API key, mode 0600, written when the engine starts."""
        return self.common / "key"

    @property
    def account_keys(self) -> Path:
        """The keys that sign access tokens and seal accounts' secrets, mode 0600 (`api.accounts.secrets_file`)."""
        return self.common / "account-keys.json"

    @property
    def logins(self) -> Path:
        """The CLI's logins to servers, mode 0600 (`cli.client.logins`)."""
        return self.root / "logins.json"

    @property
    def credentials(self) -> Path:
        """Keys of data vendors, mode 0600 (`gpt_trader.credentials`)."""
        return self.root / "credentials.yaml"

    @property
    def engine(self) -> Path:
        """Addresses and pids of the running engine (JSON)."""
        return self.root / "engine.json"

    def api_origin(self) -> str | None:
        """Return the address of the running engine's API, None where no engine has written one down."""
        try:
            found = json.loads(self.engine.read_text(encoding="utf-8"))["api_url"]
        except (OSError, ValueError, KeyError, TypeError):  # no engine, or a record of another version
            return None
        return str(found) if found else None

    @property
    def lake(self) -> Path:
        """Parquet files and manifests."""
        return self.common / "lake"

    @property
    def cache(self) -> Path:
        """What was computed from the lake and can be computed again."""
        return self.root / "cache"

    @property
    def runs(self) -> Path:
        """One folder a run: series, report, picture."""
        return self.common / "runs"

    @property
    def strategies(self) -> Path:
        """Users' strategy files by content hash."""
        return self.common / "strategies"

    @property
    def logs(self) -> Path:
        """One log file a part."""
        return self.root / "logs"

    @property
    def state(self) -> Path:
        """Short-lived files of the running engine: ready marks, locks."""
        return self.root / "state"

    @property
    def prefect(self) -> Path:
        """Prefect's own home."""
        return self.root / "prefect"

    @property
    def database(self) -> Path:
        """The embedded PostgreSQL's folder (unless we run as root, see storage.postgres)."""
        return self.root / "database"


def home() -> Home:
    """Return the engine's home, from `GPT_TRADER_HOME` (default `~/.gpt-trader`) and `GPT_TRADER_SHARED`."""
    root, shared = (_folder(name) for name in ("HOME", "SHARED"))
    return Home(root or Path.home() / ".gpt-trader", shared)


def _folder(name: str) -> Path | None:
    chosen = os.environ.get(f"{ENV_PREFIX}{name}", "").strip()
    return Path(chosen).expanduser().absolute() if chosen else None


def _rate(value: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]{0,8} ?/ ?(second|minute|hour|day)s?", value):
        raise ValueError("is no rate: give a number and a time, e.g. 100/minute")
    return value


RateLimit = Annotated[str, AfterValidator(_rate)]


class Settings(BaseModel):
    """Every setting with its default. Unknown names are refused, with the nearest known one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    api_host: str = Field(default="127.0.0.1", description="Address the API binds.")
    api_port: int = Field(default=8000, ge=0, le=65535, description="0: any free port.")
    prefect_port: int = Field(default=4200, ge=0, le=65535, description="0: any free port.")
    prefect_host: str = Field(
        default="127.0.0.1",
        description="Address Prefect binds; beyond this machine PREFECT_SERVER_API_AUTH_STRING must be set.",
    )
    database_host: str | None = Field(
        default=None,
        description="Address where the embedded PostgreSQL listens (port 5432); default: a socket of this machine's.",
    )
    database_url: SecretStr | None = Field(
        default=None, description="postgresql://user:password@host/name; default: the embedded PostgreSQL."
    )
    prefect_database_url: SecretStr | None = Field(
        default=None, description="Prefect's database; default: `prefect` on the same server."
    )
    prefect_api_url: str | None = Field(
        default=None, description="A Prefect server elsewhere; default: the engine's own."
    )
    default_source: str = Field(
        default="sample",
        description="Where a symbol that the lake lacks is ingested from: sample, csv, yahoo, alpaca, ccxt:VENUE.",
    )
    source_urls: dict[str, str] = Field(
        default_factory=dict,
        description='Base URLs of sources that are not the vendor\'s own (a mirror), as {"yahoo": "http://…"}.',
    )
    quality: Policy = Field(
        default_factory=Policy,
        description='What findings in bars lead to, as {"rules": {"ohlc": "quarantine", "gaps": "block"}}; '
        "every rule only warns by default.",
    )
    worker_limit: int = Field(default=4, ge=1, le=256, description="Runs at the same time.")
    worker_poll_seconds: float = Field(
        default=0.1, ge=0.02, le=60, description="How often a busy worker asks for runs."
    )
    optimize_runner: Literal["threads", "processes", "dask"] = Field(
        default="threads",
        description="What computes an optimization's trials: threads suit the strategies that come with it, "
        "processes and dask those whose Python code takes the time.",
    )
    optimize_workers: int | None = Field(
        default=None, ge=1, le=256, description="How many of these at once; default: one a core."
    )
    dask_address: str | None = Field(
        default=None,
        description="Scheduler of the Dask cluster, as tcp://127.0.0.1:8786; default: a cluster on this machine "
        "for each run.",
    )
    keep_events_days: float = Field(
        default=90, ge=1, description="Days that a run's events can be followed again; its result stays."
    )
    keep_snapshots_days: float = Field(
        default=90,
        ge=0,
        le=36_500,
        description="Days that `data collect` leaves a replaced snapshot; one that a run read stays.",
    )
    cache_limit_mb: float = Field(
        default=2048, ge=1, description="Size of the cache of matrices; what was used longest ago goes first."
    )
    rate_limit: RateLimit = Field(
        default="100/minute", description="Requests of one principal (user, key, or address without one)."
    )
    rate_limit_local: RateLimit = Field(
        default="6000/minute", description="The same for this machine's own user (the local key)."
    )
    rate_limits: dict[str, RateLimit] = Field(
        default_factory=dict,
        description='Limits of single routes, as {"GET /api/v1/market/bars/{symbol}": "600/minute"}.',
    )
    rate_limit_storage: SecretStr | None = Field(
        default=None,
        description="redis://host:port/0, which several APIs behind one address share; default: memory.",
    )
    registration: bool = Field(
        default=False, description="Whether anybody may register an account (role viewer) over the API."
    )
    access_token_minutes: float = Field(
        default=30, gt=0, le=1440, description="Minutes that an access token is good for."
    )
    refresh_token_days: float = Field(
        default=7, gt=0, le=365, description="Days that a login lasts without being used."
    )
    reset_outbox: Path | None = Field(
        default=None,
        description="Folder where a forgotten password leaves a reset token, for a mailer to deliver; default: an "
        "administrator hands it out.",
    )
    keep_audit_days: float = Field(
        default=365, ge=1, description="Days that an entry of the audit log is kept."
    )
    alerts: AlertRules = Field(
        default_factory=AlertRules,
        description='When trading sessions raise alerts, as {"drawdown": 0.1, "repeat_seconds": 600}.',
    )
    alert_channels: SecretStr | None = Field(
        default=None,
        description="Where alerts are sent: URLs as Apprise has them (tgram://…, slack://…, mailto://…, json://…), "
        "separated by blanks; default: nowhere, they are only kept.",
    )
    alert_severity: Severity = Field(default="warning", description="The mildest alert that is sent.")
    cors_origins: tuple[str, ...] = Field(
        default=(), description="Origins of web pages that may call the API, as https://desk.example."
    )
    public_hosts: tuple[str, ...] = Field(
        default=(), description="Names by which a reverse proxy in front is called, as trader.example."
    )
    trusted_proxies: tuple[str, ...] = Field(
        default=(), description="Addresses of reverse proxies whose X-Forwarded-For is believed."
    )
    tls_certificate: Path | None = Field(default=None, description="PEM file; with it the API speaks TLS.")
    tls_key: Path | None = Field(default=None, description="PEM file of the certificate's key.")
    open_report: bool = Field(default=False, description="Open the report in a browser after a backtest.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe line that the parts log."
    )

    @field_validator("default_source")
    @classmethod
    def _a_source(cls, value: str) -> str:
        return source_name(value)

    @field_validator("dask_address")
    @classmethod
    def _a_scheduler(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"(tcp|tls)://[^/\s]+:[0-9]{1,5}", value):
            raise ValueError("is no address of a Dask scheduler: give tcp://HOST:PORT or tls://HOST:PORT")
        return value

    @field_validator("source_urls")
    @classmethod
    def _no_key_in_the_clear(cls, value: dict[str, str]) -> dict[str, str]:
        for name, url in value.items():
            parts = urlsplit(url)
            if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
                raise ValueError(
                    f"{name}: only this machine is asked without TLS; give an address with https://"
                )
        return value

    @field_validator("cors_origins", "public_hosts", "trusted_proxies", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:  # noqa: ANN401 - whatever was given
        """Read the commas that an environment variable separates by."""
        if not isinstance(value, str):
            return value
        return tuple(part.strip() for part in value.split(",") if part.strip())

    @field_validator("source_urls", "quality", "rate_limits", "alerts", mode="before")
    @classmethod
    def _from_the_environment(cls, value: Any) -> Any:  # noqa: ANN401 - whatever was given
        """Read the JSON that an environment variable holds."""
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError('is not a JSON object like {"name": "value"}') from None

    def plain(self, name: str) -> Any:  # noqa: ANN401 - whatever the setting holds
        """Return a setting's value; of a mapping with fields of its own, what was given of it, JSON-ready."""
        value = getattr(self, name)
        return value.model_dump(mode="json", exclude_unset=True) if isinstance(value, BaseModel) else value

    def check_prefect_guarded(self, environ: Mapping[str, str]) -> None:
        """Raise Refused where Prefect would be open to other machines without a password."""
        guarded = environ.get("PREFECT_SERVER_API_AUTH_STRING", "").strip()
        if self.prefect_host in ("127.0.0.1", "::1", "localhost") or guarded:
            return
        from gpt_trader.errors import Problem, Refused

        message = "opens Prefect to other machines, and nothing guards it"
        allowed = "127.0.0.1, or set PREFECT_SERVER_API_AUTH_STRING to user:password"
        raise Refused.of(Problem("prefect_host", self.prefect_host, message, allowed))

    #: Was the port chosen by the user (then a taken one is an error) or may we take the next free one?
    def chosen(self, name: str) -> bool:
        """Return whether the setting was given by file, environment or option."""
        return name in self.model_fields_set


def read_config(path: Path) -> dict[str, Any]:
    """Return the settings file as a mapping ({} if there is none); raise Refused if it is not one."""
    if not path.exists():
        return {}
    import yaml

    from gpt_trader.errors import Refused

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Refused(f"{path} is not valid YAML: {error}") from None
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise Refused(f"{path} must be a mapping of setting to value, e.g. `api_port: 8010`")
    return content


def read_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the settings found in the environment, by field name; names that are no setting are refused."""
    return {
        name.removeprefix(ENV_PREFIX).lower(): value
        for name, value in environ.items()
        if name.startswith(ENV_PREFIX)
        and name.removeprefix(ENV_PREFIX) not in _NOT_SETTINGS
        and not name.removeprefix(ENV_PREFIX).startswith(("TEST_", "CREDENTIAL_"))
    }


def load_settings(
    options: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Return the merged settings; raise Refused naming each unknown or invalid one.

    A part of a running engine has them all in its environment and does not read the file: a change of it counts from
    the next start on, and a mistake in it fails no run meanwhile.
    """
    environ = os.environ if environ is None else environ
    merged: dict[str, Any] = {} if f"{ENV_PREFIX}PART" in environ else read_config(home().config)
    merged |= read_environment(environ)
    merged |= {name: value for name, value in (options or {}).items() if value is not None}
    return validated(Settings, merged)
