"""The service keeps to its own OpenAPI description: schemathesis makes requests from it and finds nothing."""

from typing import Any

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from schemathesis import Case, HookContext
from service_doubles import RedModel, encoded, limits

from skinlesion.data.metadata import UNKNOWN, normalize_words
from skinlesion.deploy.service.app import build

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(1)
IMAGES = [
    encoded(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8), kind)
    for height, width, kind in ((48, 64, "PNG"), (20, 16, "JPEG"), (30, 30, "WEBP"), (64, 17, "BMP"))
]
# What the description cannot say of a file, that it is an image, is said here.
schemathesis.openapi.format("binary", st.sampled_from(IMAGES))

app = build(RedModel(), limits())
schema = schemathesis.openapi.from_asgi("/openapi.json", app)


@schema.hook
def filter_body(context: HookContext, body: Any) -> bool:
    """Leave out a text field with a list of one value, which a form sends like the value, or of none: like no field."""
    fields = getattr(body, "body", body)  # schemathesis wraps forms whose parts have content types
    if not isinstance(fields, dict):
        return True
    return not any(isinstance(value, list) and len(value) <= 1 for name, value in fields.items() if name != "image")


@schema.parametrize()
@settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), phases=(Phase.explicit, Phase.generate)
)
def test_keeps_to_its_description(case: Case) -> None:
    if not has_unknown_fact(case.body):
        case.call_and_validate()


def has_unknown_fact(body: Any) -> bool:
    """Whether a fact is null, "" or the like: these are taken for unknown, as the description says in words."""
    fields = getattr(body, "body", body)
    given = fields.items() if isinstance(fields, dict) else ()
    return UNKNOWN in normalize_words(
        value for name, value in given if name in ("age", "sex", "localization") and value != UNKNOWN
    )


def test_the_description_is_complete() -> None:
    description = app.openapi()
    paths = description["paths"]
    assert set(paths) == {"/v1/model", "/v1/predict", "/v1/explain", "/healthz", "/readyz", "/metrics"}
    for path, methods in paths.items():
        for method in methods.values():
            assert method["summary"], path
            assert "200" in method["responses"]
            for status, response in method["responses"].items():
                if int(status) >= 400:
                    assert "application/problem+json" in response["content"], (path, status)
    fields = paths["/v1/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert set(fields) == {"image", "age", "sex", "localization", "effects", "risk"}
