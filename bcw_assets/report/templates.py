"""Opens the templates that lie beside a module, with the functions of `formatting` as filters."""

from pathlib import Path

import jinja2

from bcw_assets.report import formatting


def open_templates(folder: Path) -> jinja2.Environment:
    """Return the templates of a folder, in which an unknown name is an error."""
    templates = jinja2.Environment(
        autoescape=jinja2.select_autoescape(["html.j2"]),  # the card's template escapes a user's ids itself
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    filters = vars(formatting).items()
    templates.filters |= {name: call for name, call in filters if name.startswith(("format_", "escape_"))}
    return templates
