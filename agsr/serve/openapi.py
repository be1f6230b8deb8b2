"""The OpenAPI document, from the same table of parameters that parses requests."""

from __future__ import annotations

from typing import Any

from agsr._version import __version__
from agsr.serve.job import Hint, State
from agsr.serve.options import MEDIA_TYPES
from agsr.serve.parameters import PARAMETERS, Parameter
from agsr.serve.problems import MEDIA_TYPE, Problem
from agsr.serve.settings import ServeSettings

_JSON = "application/json"

_JOB = {
    "id": "Xq3vJ0kT4n6mB1sZcR8yWd2u",
    "state": "running",
    "progress": 0.42,
    "seconds_left": 3.1,
    "position": None,
    "created": "2026-01-31T12:00:00Z",
    "expires": None,
    "input": {"name": "cat.jpg", "width": 640, "height": 480},
    "warnings": [],
    "hint": None,
    "problem": None,
    "result": None,
    "links": {
        "self": "/v1/jobs/Xq3vJ0kT4n6mB1sZcR8yWd2u",
        "events": "/v1/jobs/Xq3vJ0kT4n6mB1sZcR8yWd2u/events",
    },
}
"""Example of a job."""

_PROBLEMS = {
    "400": Problem(400, "bad_option", "scale is '99'; expected a number above 0 to 16"),
    "401": Problem(401, "wrong_token", "this server needs its token: Authorization: Bearer TOKEN"),
    "413": Problem(413, "too_large", "the picture has 20000x20000 pixels; at most 67108864 are …"),
    "422": Problem(422, "unusable_file", "cat.jpg: damaged or truncated (2000 bytes)"),
    "429": Problem(429, "queue_full", "16 files are waiting already; try again later"),
    "503": Problem(503, "stopping", "the server is stopping"),
}
"""Example of each error."""


def openapi(settings: ServeSettings) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of a server.

    >>> sorted(openapi(ServeSettings())["paths"])[:2]
    ['/healthz', '/metrics']
    """
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "agsr",
            "version": __version__,
            "summary": "Upscale pictures and videos.",
            "license": {"name": "Apache-2.0"},
        },
        "servers": [{"url": settings.root_path or "/"}],
        "paths": _paths(settings),
        "components": {"schemas": _schemas()},
    }
    if settings.token is not None:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def _paths(settings: ServeSettings) -> dict[str, Any]:
    job_id = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    job = _answer("The job.", _JSON, "#/components/schemas/Job", _JOB)
    return {
        "/v1/upscale": {
            "post": {
                "summary": "Upscale a picture; the answer is the file that `agsr infer` writes.",
                "parameters": _parameters(settings, of_video=False),
                "requestBody": _body("image/*"),
                "responses": {"200": _picture()} | _errors("400", "401", "413", "422", "429"),
            }
        },
        "/v1/jobs": {
            "post": {
                "summary": "Queue a picture or a video.",
                "parameters": _parameters(settings, of_video=True),
                "requestBody": _body("image/*", "video/*"),
                "responses": {"202": job} | _errors("400", "401", "413", "422", "429", "503"),
            }
        },
        "/v1/jobs/{id}": {
            "parameters": [job_id],
            "get": {"summary": "Report a job.", "responses": {"200": job}},
            "delete": {
                "summary": "Cancel a job, or remove one that is finished.",
                "responses": {"204": {"description": "Done."}},
            },
        },
        "/v1/jobs/{id}/events": {
            "parameters": [job_id],
            "get": {
                "summary": "Report progress as server-sent events, named after the state.",
                "responses": {"200": _answer("Events.", "text/event-stream")},
            },
        },
        "/v1/jobs/{id}/result": {
            "parameters": [job_id],
            "get": {
                "summary": "Get the result, or a range of it.",
                "responses": {"200": _picture(), "206": {"description": "A range of it."}},
            },
        },
        "/v1/models": _get("List weights and limits.", _JSON),
        "/healthz": _get("Answer while the process lives.", _JSON),
        "/readyz": _get("Answer 200 when the network has warmed up.", _JSON),
        "/metrics": _get("Report metrics for Prometheus.", "text/plain"),
    }


def _parameters(settings: ServeSettings, of_video: bool) -> list[dict[str, Any]]:
    return [_parameter(p, settings) for p in PARAMETERS if of_video or not p.video]


def _parameter(parameter: Parameter, settings: ServeSettings) -> dict[str, Any]:
    schema = parameter.schema
    if parameter.name == "weights":
        schema |= {"enum": list(settings.names), "default": settings.default_name}
    described = {"name": parameter.name, "in": "query", "description": parameter.text}
    example = {} if parameter.example is None else {"example": parameter.example}
    if parameter.name == "weights":
        example = {"example": settings.default_name}
    return described | example | {"schema": schema}


def _body(*kinds: str) -> dict[str, Any]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    form = {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}}
    content = dict.fromkeys(kinds, binary)
    return {"required": True, "content": content | {"multipart/form-data": {"schema": form}}}


def _picture() -> dict[str, Any]:
    kinds = sorted(kind for kind in MEDIA_TYPES.values() if kind.startswith("image/"))
    return {
        "description": "The result.",
        "headers": {
            "Agsr-Warning": {
                "description": "What was lost or changed; one header per message.",
                "schema": {"type": "string"},
                "example": "cat.png: composited on white, since JPEG has no alpha",
            },
            "Agsr-Hint": {
                "description": "Other weights that suit the input better.",
                "schema": {"type": "string"},
                "example": Hint("cat.jpg", "psnr", "JPEG, quality 40").text,
            },
        },
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds},
    }


def _answer(text: str, kind: str, schema: str = "", example: Any = None) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": {"$ref": schema}} if schema else {}
    if example is not None:
        content["example"] = example
    return {"description": text, "content": {kind: content}}


def _errors(*statuses: str) -> dict[str, Any]:
    schema = "#/components/schemas/Problem"
    return {
        status: _answer(problem.content["title"], MEDIA_TYPE, schema, problem.content)
        for status, problem in _PROBLEMS.items()
        if status in statuses
    }


def _get(text: str, kind: str) -> dict[str, Any]:
    return {"get": {"summary": text, "responses": {"200": _answer("The answer.", kind)}}}


def _job_schema() -> dict[str, Any]:
    kinds: dict[str, Any] = {
        "id": {"type": "string"},
        "state": {"enum": [state.value for state in State]},
        "progress": {"type": "number", "minimum": 0, "maximum": 1},
        "seconds_left": {"type": ["number", "null"]},
        "position": {"type": ["integer", "null"], "description": "In the queue, from 1."},
        "created": {"type": "string", "format": "date-time"},
        "expires": {"type": ["string", "null"], "format": "date-time"},
        "input": {"type": "object"},
        "warnings": {"type": "array", "items": {"type": "string"}},
        "hint": {"oneOf": [{"$ref": "#/components/schemas/Hint"}, {"type": "null"}]},
        "problem": {"oneOf": [{"$ref": "#/components/schemas/Problem"}, {"type": "null"}]},
        "result": {"type": ["object", "null"]},
        "links": {"type": "object"},
    }
    return {"type": "object", "required": ["id", "state", "progress"], "properties": kinds}


def _schemas() -> dict[str, Any]:
    problem = _texts("type", "title", "detail", "code")
    problem["properties"]["status"] = {"type": "integer"}
    hint = _texts("code", "weights", "text")
    return {"Job": _job_schema(), "Problem": problem, "Hint": hint}


def _texts(*names: str) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"type": "string"} for name in names}}
