"""The API's reference as a plain page, made from its OpenAPI description."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from html import escape
from typing import Any

from ucadi.labels import NOTICE
from ucadi.pages import html


def reference_page(document: Mapping[str, Any]) -> str:
    """The page of an OpenAPI 3.1 description: each path and method with its parameters, body and answers."""
    info = document["info"]
    described = {
        (path, method): {**operation, "parameters": [*methods.get("parameters", []), *operation.get("parameters", [])]}
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method != "parameters"
    }
    answers = [set(operation["responses"]) for operation in described.values()]
    common = set.intersection(*answers)
    first = next(iter(described.values()))["responses"]
    return html.document(
        info["title"],
        ['<link rel="icon" href="/static/icon.svg"><link rel="stylesheet" href="/static/page.css">'],
        [
            f'<aside class="notice" aria-label="Notice">{NOTICE}</aside>',
            '<main class="prose">',
            f"<h1>{escape(info['title'])}</h1>",
            *(f"<p>{escape(part)}</p>" for part in info["description"].split("\n\n")),
            '<p><a href="/api/openapi.json">openapi.json</a> describes the same for programs. '
            '<a href="/">Back to the page</a></p>',
            "<p>Any of them may answer:</p>",
            _answers({status: answer for status, answer in first.items() if status in common}),
            *(_operation(path, method, operation, common) for (path, method), operation in described.items()),
            "<h2>What comes back</h2>",
            *(_schema(name, schema) for name, schema in document["components"]["schemas"].items()),
            "</main>",
        ],
    )


def _operation(path: str, method: str, operation: Mapping[str, Any], common: Set[str]) -> str:
    parts = [
        f"<section><h2><code>{method.upper()} {escape(path)}</code></h2>",
        f"<p>{escape(operation['summary'])}.</p>",
    ]
    if "description" in operation:
        parts.append(f"<p>{escape(operation['description'])}</p>")
    if "x-curl" in operation:
        parts.append(f"<pre><code>{escape(operation['x-curl'])}</code></pre>")
    if operation["parameters"]:
        rows = [(p["name"], f"{p['in']}, {_kind(p['schema'])}", p["description"]) for p in operation["parameters"]]
        parts.append(html.table(("parameter", "kind", "meaning"), rows, code=True))
    parts.append(_answers({s: answer for s, answer in operation["responses"].items() if s not in common}))
    return "\n".join([*parts, "</section>"])


def _answers(answers: Mapping[str, Mapping[str, Any]]) -> str:
    return html.table(("status", "meaning"), ((s, answer["description"]) for s, answer in answers.items()), code=True)


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    rows = [(field, _kind(value), value.get("description", "")) for field, value in schema["properties"].items()]
    return f"<section><h3>{escape(name)}</h3>{html.table(('field', 'kind', 'meaning'), rows, code=True)}</section>"


def _kind(value: Mapping[str, Any]) -> str:
    if "enum" in value:
        return ", ".join(map(str, value["enum"]))
    if "$ref" in value:
        return str(value["$ref"]).rpartition("/")[2]
    kind = value.get("type", "")
    return " or ".join(kind) if isinstance(kind, list) else str(kind) or json.dumps(value)
