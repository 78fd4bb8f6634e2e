"""The templates of our HTML pages: each page is one file that needs nothing from elsewhere."""

from __future__ import annotations

import jinja2

from tasks.core.plain_text import plain
from tasks.core.units import duration_text


def template(name: str) -> jinja2.Template:
    """Give a template; texts are escaped as they come in, and lose what a terminal or reader could take for more than text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tasks.adapters.outbox"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        finalize=lambda value: plain(value) if type(value) is str else value,
    )
    environment.filters["duration"] = duration_text
    return environment.get_template(name)
