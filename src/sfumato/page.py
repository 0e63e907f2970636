# SPDX-License-Identifier: Apache-2.0
"""The library's templates, filled in: whatever a value says is escaped."""

from __future__ import annotations

import jinja2

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("sfumato"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: object) -> str:
    """Fill in a template.

    Args:
        template: name of its file in `templates`.
        values: what the template asks for, by name.

    Returns:
        The text; every value is escaped, unless the template says that it is markup.
    """
    return _TEMPLATES.get_template(template).render(**values)
