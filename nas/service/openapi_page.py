"""The API as a page, from its own OpenAPI description, without anything loaded from elsewhere."""

from __future__ import annotations

from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code { font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
section { border-top: 1px solid #8886; padding: .75rem 0; }
.method { display: inline-block; min-width: 3.2rem; font-weight: 700; }
table { border-collapse: collapse; } td { padding: .1rem .9rem .1rem 0; vertical-align: top; }
"""


def render(description: dict[str, Any]) -> str:
    """An HTML page of every operation: method, path, what it does and its parameters."""
    parts = [
        _operation(method, path, operation, description)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]
    title = escape(description["info"]["title"])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f'<body><h1>{title}</h1><p>For machines: <a href="/api/openapi.json">openapi.json</a>. '
        f"In Python: <code>nas.client.Client</code>.</p>{''.join(parts)}</body></html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any], description: dict[str, Any]) -> str:
    rows = [
        (parameter["name"], parameter["in"], parameter.get("description", ""))
        for parameter in operation.get("parameters", [])
    ]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if "$ref" in body:
        schema = description["components"]["schemas"][body["$ref"].rpartition("/")[2]]
        rows += [(name, "body", _type(part)) for name, part in schema.get("properties", {}).items()]
    cells = "".join(
        f"<tr><td><code>{escape(n)}</code></td><td>{where}</td><td>{escape(d)}</td></tr>" for n, where, d in rows
    )
    return (
        f'<section><p><span class="method">{method.upper()}</span> <code>{escape(path)}</code></p>'
        f"<p>{escape(operation.get('description', ''))}</p><table>{cells}</table></section>"
    )


def _type(part: dict[str, Any]) -> str:
    kinds = [option.get("type", "") for option in part.get("anyOf", [part])]
    default = f", default {part['default']}" if "default" in part else ""
    return " or ".join(kind for kind in kinds if kind) + default
