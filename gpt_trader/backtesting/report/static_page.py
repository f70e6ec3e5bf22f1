"""Pages without scripts, in the report's look: their style is inline, and their policy allows that and nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup


def static_template(name: str, filters: Mapping[str, Callable[..., Any]]) -> Template:
    """Return the template `NAME.html.j2` of `assets/`, with its `style` (the report's, `NAME.css`) and `policy`."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, auto_reload=False
    )
    environment.filters.update(filters)
    style = asset("report.css") + asset(f"{name}.css")
    environment.globals.update(
        style=Markup(style),  # noqa: S704  our own files: nothing of what is shown is in them
        policy=f"default-src 'none'; style-src {digest(style)}; base-uri 'none'; form-action 'none'",
    )
    return environment.from_string(asset(f"{name}.html.j2"))


def asset(name: str) -> str:
    """Return a text of `assets/`."""
    return resources.files(__package__).joinpath("assets", name).read_text("utf-8")


def digest(text: str) -> str:
    """Return an inline part's hash as a Content-Security-Policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
