"""Whatever the API's own description allows, and what it does not, is answered without an error of the server's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from studies import make_run, make_trials, write_study

from nas.service.app import create_api
from nas.service.service import Service

OPERATIONS = [
    (method, path, mode)
    for path, methods in create_api(Service.open("nowhere")).openapi()["paths"].items()
    for method, operation in methods.items()
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or operation.keys() & {"parameters", "requestBody"}  # else nothing can be wrong
    if not path.endswith("/events")  # it answers until its client goes away: tests/test_nas_service_api.py reads it
]
KNOWN = {"run": "0", "study": "0", "number": 1}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[schemathesis.BaseSchema]:
    root = tmp_path_factory.mktemp("root")
    run = make_run(root / "0")
    (run.path / "checkpoint.safetensors").unlink()  # so that a search that is started ends at once
    write_study(run, "0", make_trials(20, failed=(3,)), 20)
    app = create_api(Service.open(root))
    yield schemathesis.openapi.from_asgi("/api/openapi.json", app)
    for job in app.state.service.jobs.list():
        app.state.service.jobs.stop(job["id"])


@pytest.mark.parametrize(("method", "path", "mode"), OPERATIONS)
def test_no_request_is_an_error_of_the_server(
    api: schemathesis.BaseSchema, method: str, path: str, mode: GenerationMode
) -> None:
    operation = api[path][method]
    starts = path.endswith(("/studies", "/resume", "/export")) and method == "post"

    @settings(
        max_examples=8 if starts else 30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: schemathesis.Case) -> None:
        for name, value in KNOWN.items():
            if name in case.path_parameters and mode is GenerationMode.POSITIVE:
                case.path_parameters[name] = value  # so as to get further than to a run that is not there
        case.validate_response(case.call(), checks=[not_a_server_error])

    check()
