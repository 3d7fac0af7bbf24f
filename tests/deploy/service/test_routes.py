"""The answers, errors, headers, metrics and logs of the service, over HTTP."""

import json
import logging
import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from conftest import CODES
from fastapi.testclient import TestClient
from PIL import Image as PillowImage
from service_doubles import RedModel, coloured, encoded, limits, manifest

from skinlesion.data.image_io import fit
from skinlesion.deploy.service.app import build
from skinlesion.inference.inputs import check_facts


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(build(RedModel(), limits())) as client:
        yield client


def files(*contents: bytes, name: str = "image") -> list[tuple[str, tuple[str, bytes, str]]]:
    return [(name, ("photo.jpg", content, "image/jpeg")) for content in contents]


GOOD = encoded(coloured(200))


def problem(response: Any, status: int, *said: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == status
    assert {"type", "title", "detail"} <= set(body)
    for part in said:
        assert part in response.text


def test_predict_returns_the_models_probabilities(client: TestClient) -> None:
    answer = client.post("/v1/predict", files=files(GOOD, encoded(coloured(0, 10, 10))), data={"age": "70"}).json()
    red, dark = answer["images"]
    assert red["probabilities"]["mel"] == pytest.approx(0.8 * 200 / 255 + 0.1, abs=1e-6)
    assert sum(red["probabilities"].values()) == pytest.approx(1)
    assert (red["predicted"], red["name"], red["category"]) == ("mel", "melanoma", "malignant")
    assert red["uncalibrated"]["mel"] == pytest.approx(100 / 255, abs=1e-6)
    assert [member["predicted"] for member in red["members"]] == ["mel", "nv"]
    assert red["agreement"] == 0.5
    assert (dark["predicted"], dark["agreement"]) == ("nv", 1.0)
    assert red["prediction_set"] == ["mel", "nv"]
    assert dark["prediction_set"] == ["nv", "mel"], "0.9 for the nevus leaves a tenth, which is the risk"
    assert red["risk"] == 0.1
    assert red["out_of_distribution"] == {"flag": False, "score": 185.0}
    assert red["effects"] is None
    assert answer["facts"] == {"age": 70.0, "sex": None, "localization": None}
    assert answer["bundle"] == manifest().version
    assert "not a medical device" in answer["note"]


def test_the_effect_of_each_known_fact(client: TestClient) -> None:
    fields = {"age": "70", "sex": "female", "localization": "unknown", "effects": "true"}
    (image,) = client.post("/v1/predict", files=files(GOOD), data=fields).json()["images"]
    effects = {effect["fact"]: effect["without"]["mel"] for effect in image["effects"]}
    assert set(effects) == {"age", "sex"}, "a place that is not known has no effect"
    assert image["probabilities"]["mel"] - effects["age"] == pytest.approx(0.1, abs=1e-6)
    assert image["probabilities"]["mel"] == effects["sex"]
    (image,) = client.post("/v1/predict", files=files(GOOD), data={"effects": "true"}).json()["images"]
    assert image["effects"] == []
    (image,) = client.post("/v1/predict", files=files(GOOD), data={"age": "3", "effects": "false"}).json()["images"]
    assert image["effects"] is None


def test_prediction_set_at_a_chosen_risk(client: TestClient) -> None:
    image = files(encoded(coloured(40)))  # melanoma 0.125: in the set at 0.1, not at 0.2
    (at_first,) = client.post("/v1/predict", files=image).json()["images"]
    (at_second,) = client.post("/v1/predict", files=image, data={"risk": "0.2"}).json()["images"]
    assert (at_first["prediction_set"], at_second["prediction_set"]) == (["nv", "mel"], ["nv"])
    assert at_second["risk"] == 0.2
    problem(client.post("/v1/predict", files=image, data={"risk": "0.3"}), 422, "one of 0.1, 0.2")


def test_images_unlike_the_training_images_are_flagged_and_counted(client: TestClient) -> None:
    (image,) = client.post("/v1/predict", files=files(encoded(coloured(9, 9, 0)))).json()["images"]
    assert image["out_of_distribution"] == {"flag": True, "score": 255.0}
    assert re.search(r"skinlesion_out_of_distribution_images_total 1\.0", client.get("/metrics").text)


def test_explains_with_a_picture_of_the_images_shape(client: TestClient) -> None:
    image = coloured(40, 40, 40, (60, 100))
    image[40:, 80:] = (250, 40, 40)
    answer = client.post("/v1/explain", files=files(encoded(image)), data={"layer": "map", "diagnosis": "mel"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-diagnosis"] == "mel"
    expected = 0.8 * fit(image, (48, 64))[..., 0].mean() / 255
    assert float(answer.headers["x-probability"]) == pytest.approx(expected, abs=0.01)
    assert float(answer.headers["x-largest-effect"]) > 0.01
    layer = np.asarray(PillowImage.open(BytesIO(answer.content)))
    assert layer.shape == (60, 100, 4)
    assert layer[50, 90, 3] > 100 > layer[10, 10, 3], "the red corner supports melanoma"
    over = client.post("/v1/explain", files=files(encoded(image)))
    assert over.headers["x-diagnosis"] == "nv", "default: the most probable"
    assert np.asarray(PillowImage.open(BytesIO(over.content))).shape == (60, 100, 3)
    problem(client.post("/v1/explain", files=files(GOOD, GOOD)), 422, "one image a request")


EXIF = PillowImage.Exif()
EXIF[0x0112] = 6
EXIF[0x010F] = "secret maker"


def test_exif_turns_the_image_and_is_dropped(client: TestClient) -> None:
    data = encoded(coloured(200, size=(40, 80)), "JPEG", exif=EXIF)
    answer = client.post("/v1/explain", files=files(data))
    picture = PillowImage.open(BytesIO(answer.content))
    assert picture.size == (40, 80), "a quarter turn"
    assert not picture.getexif()
    assert b"secret" not in answer.content


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"age": "-1"}, "age=-1: expected years from 0 to 120"),
        ({"age": "121"}, "age"),
        ({"age": "inf"}, "age"),
        ({"age": "1_0"}, "age"),
        ({"age": "forty"}, "age"),
        ({"sex": "x"}, "sex=x: not known to the model; expected one of female, male, unknown"),
        ({"localization": "elbow"}, "one of back, face, unknown"),
        ({"effects": "yes"}, "one of true, false"),
        ({"risk": "2"}, "risk"),
        ({"agee": "3"}, "unknown field 'agee'; did you mean 'age'?"),
        ({"diagnosis": "mel"}, "unknown field 'diagnosis'"),
        ({"age": ["3", "4"]}, "given twice"),
    ],
)
def test_invalid_fields_are_named(client: TestClient, fields: dict[str, Any], said: str) -> None:
    response = client.post("/v1/predict", files=files(GOOD), data=fields)
    problem(response, 422)
    assert said in response.json()["detail"]


@pytest.mark.parametrize(
    ("fields", "facts"),
    [
        ({"sex": "F", "localization": " BACK "}, {"sex": "female", "localization": "back"}),
        ({"age": "", "sex": "", "localization": ""}, {}),
        ({"age": "unknown", "sex": "NA", "localization": "None"}, {}),
        ({"age": " 5e1"}, {"age": 50.0}),
    ],
)
def test_facts_are_spelt_as_on_the_command_line(
    client: TestClient, fields: dict[str, str], facts: dict[str, Any]
) -> None:
    answer = client.post("/v1/predict", files=files(GOOD), data=fields)
    assert answer.status_code == 200, answer.text
    assert answer.json()["facts"] == {"age": None, "sex": None, "localization": None, **facts}
    check_facts(manifest().encoder, {name: text for name, text in fields.items() if name != "age"})


def test_head_is_answered_as_get(client: TestClient) -> None:
    for path in ("/healthz", "/readyz", "/", "/v1/model", "/metrics", "/openapi.json", "/assets/page.js"):
        answer = client.head(path)
        assert (answer.status_code, answer.content) == (200, b""), path
    assert client.head("/v1/predict").status_code == 405
    assert client.head("/nowhere").status_code == 404


def test_nobody_is_sent_to_a_host_that_he_named(client: TestClient) -> None:
    for path in ("/v1/model/", "/healthz/", "/v1/predict/", "/assets/"):
        answer = client.get(path, headers={"Host": "evil.example"}, follow_redirects=False)
        problem(answer, 404)
        assert "evil" not in str(answer.headers)


def test_wrong_forms_are_refused(client: TestClient) -> None:
    problem(client.post("/v1/predict", json={"image": 1}), 415, "multipart/form-data")
    problem(client.post("/v1/predict"), 415, "multipart/form-data")
    problem(client.post("/v1/predict", files={"age": (None, "3")}), 422, "no image")
    problem(client.post("/v1/predict", files={"image": (None, "text")}), 422, "has text; send a file")
    problem(client.post("/v1/predict", files=files(GOOD, name="photo")), 422, "send files as 'image' only")
    problem(client.post("/v1/predict", files=files(*[GOOD] * 5)), 422, "more than 4 images")
    problem(client.post("/v1/predict", files=files(*[GOOD] * 9)), 422, "more than 4 images")
    problem(client.post("/v1/predict", files=files(GOOD, b"GIF89a")), 415, '"image":2')
    headers = {"content-type": "multipart/form-data"}
    problem(client.post("/v1/predict", content=b"x", headers=headers), 400, "boundary")
    headers = {"content-type": "multipart/form-data; boundary=x"}
    for body in (b"--x\r\n\r\n", b"--y--", b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--", b"\0" * 100):
        problem(
            client.post("/v1/predict", content=body, headers=headers),
            400 if b"x" in body or body[:1] in b"-\0" else 422,
        )
    problem(client.get("/v1/predict"), 405, "Allow")
    problem(client.get("/v2/predict"), 404, "/openapi.json")


def test_too_many_bytes_are_refused_during_the_upload(client: TestClient) -> None:
    problem(client.post("/v1/predict", files=files(bytes(2**20 + 1))), 413, "1 MiB")
    problem(client.post("/v1/predict", files=files(*[bytes(2**20)] * 2)), 413, "2 MiB")
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for _ in range(10_000):
            read += 2**16
            yield bytes(2**16)

    headers = {"content-type": "multipart/form-data; boundary=x"}
    problem(client.post("/v1/predict", content=endless(), headers=headers), 413, "2 MiB")


def test_nothing_is_written_to_disk(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of more than Starlette's own limit of one MiB stays in memory."""
    rolled: list[object] = []
    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", rolled.append)
    with TestClient(build(RedModel(), limits(image_mib=8, request_mib=16, megapixels=4))) as roomy:
        noise = np.random.default_rng(1).integers(0, 256, (1000, 1500, 3), dtype=np.uint8)
        data = encoded(noise, "BMP")
        assert len(data) > 4 * 2**20
        assert roomy.post("/v1/predict", files=files(data)).status_code == 200
    assert not rolled


def test_the_log_has_nothing_of_the_patient(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with TestClient(build(RedModel(), limits())) as client:
        client.post("/v1/predict?age=77", files=files(GOOD), data={"age": "77", "sex": "female"})
        client.post("/v1/predict", files=files(b"secret"), data={"localization": "secret"})
    assert "POST /v1/predict 200" in caplog.text
    own = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith(("skinlesion", "uvicorn", "fastapi")))
    for word in ("77", "female", "photo.jpg", "secret", "testclient"):
        assert word not in own


def test_a_failing_model_gives_500_and_is_not_ready() -> None:
    model = RedModel()
    with TestClient(build(model, limits())) as client:
        assert client.get("/readyz").json() == {"status": "ready"}
        model.fails = True
        problem(client.post("/v1/predict", files=files(GOOD)), 500, "see the service's log")
        problem(client.get("/readyz"), 503)
        assert client.get("/healthz").json() == {"status": "ok"}
        model.fails = False
        assert client.post("/v1/predict", files=files(GOOD)).status_code == 200
        assert client.get("/readyz").status_code == 200


def test_a_slow_model_gives_503() -> None:
    model = RedModel()
    with TestClient(build(model, limits(timeout=0.3))) as client:
        model.seconds = 2.0
        answer = client.post("/v1/predict", files=files(GOOD))
        problem(answer, 503, "no answer within 0.3 s")
        assert int(answer.headers["retry-after"]) >= 1


def test_requests_beyond_the_timeout_are_refused_at_once() -> None:
    model = RedModel(seconds=0.05)
    with TestClient(build(model, limits(timeout=0.2))) as client:
        problem(client.post("/v1/explain", files=files(GOOD)), 422, "limits.timeout")
        data = {"age": "3", "effects": "true"}
        problem(client.post("/v1/predict", files=files(GOOD, GOOD, GOOD), data=data), 422, "limits.timeout")


def test_a_token_is_required() -> None:
    with TestClient(build(RedModel(), limits(), token="open sesame")) as client:
        for path in ("/v1/model", "/metrics"):
            problem(client.get(path), 401, "Authorization")
            problem(client.get(path, headers={"Authorization": "Bearer open sesam"}), 401, "wrong token")
            problem(client.get(path, headers={"Authorization": "Basic open sesame"}), 401)
            assert client.get(path, headers={"Authorization": "Bearer open sesame"}).status_code == 200
        answer = client.post("/v1/predict", files=files(GOOD))
        problem(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
        for path in ("/", "/healthz", "/readyz", "/openapi.json"):
            assert client.get(path).status_code == 200
        assert "HTTPBearer" in client.get("/openapi.json").json()["components"]["securitySchemes"]


def test_a_bundle_without_extras() -> None:
    class Plain(RedModel):
        def predict_prepared(self, images: Any, facts: Any) -> Any:
            return replace(super().predict_prepared(images, facts), uncalibrated=None, ood_score=None, ood=None)

    with TestClient(build(Plain(manifest(conformal=None)), limits())) as client:
        (image,) = client.post("/v1/predict", files=files(GOOD)).json()["images"]
        assert image["prediction_set"] is image["risk"] is image["out_of_distribution"] is None
        assert image["uncalibrated"] == image["probabilities"]
        assert client.get("/v1/model").json()["risks"] == []
        answer = client.post("/v1/predict", files=files(GOOD), data={"risk": "0.1"})
        problem(answer, 422, "this bundle has no prediction sets")


def test_images_wait_at_the_members_input_sizes() -> None:
    predicted: list[Any] = []

    class Watching(RedModel):
        def predict_prepared(self, images: Any, facts: Any) -> Any:
            predicted.extend(images)
            return super().predict_prepared(images, facts)

    with TestClient(build(Watching(manifest(sizes=((24, 32), (48, 64)))), limits())) as client:
        assert client.post("/v1/predict", files=files(encoded(coloured(size=(300, 400))))).status_code == 200
    assert [image.shape for image in predicted[-1]] == [(24, 32, 3), (48, 64, 3)]


def test_the_model_card(client: TestClient) -> None:
    card = client.get("/v1/model").json()
    assert [diagnosis["code"] for diagnosis in card["diagnoses"]] == list(CODES)
    age, sex, localization = card["facts"]
    assert age == {"name": "age", "kind": "number", "unit": "years", "low": 0, "high": 120, "categories": []}
    assert (sex["name"], sex["categories"]) == ("sex", ["female", "male", "unknown"])
    assert (localization["name"], localization["unit"]) == ("localization", "")
    assert card["risks"] == [0.1, 0.2]
    assert card["limits"]["images"] == 4
    assert card["input_sizes"] == [[48, 64]]


def test_counts_for_prometheus(client: TestClient) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    client.get("/v1/no/such/place")
    client.request("BREW", "/v1/model")
    text = client.get("/metrics").text
    series = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    routes = {dict(key[1:]).get("route") for key in series if key[0] == "skinlesion_requests_total"}
    assert "/v1/predict" in routes
    assert "unmatched" in routes
    assert not any("no/such" in str(route) for route in routes)
    assert series[("skinlesion_bundle_info", ("precision", "fp32"), ("version", manifest().version))] == 1
    assert series[("skinlesion_waiting_images",)] == 0
    assert series[("skinlesion_batch_images_count",)] >= 1
    assert ("process_resident_memory_bytes",) in series


def test_the_page_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/")
    assert "Research use only, not a medical device" in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for address in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert client.get(f"/{address}").status_code == 200
        assert not address.startswith(("http", "//")), "nothing comes from elsewhere"
    assert client.get("/assets/result.js").headers["content-type"].startswith("text/javascript")
    for address in ("/assets/../app.py", "/assets/%2e%2e/app.py", "/assets/none", "/examples/none.jpg"):
        problem(client.get(address), 404)
    example = PillowImage.open(BytesIO(client.get("/examples/mel.jpg").content))
    assert example.size == (450, 338)
    assert "http" not in json.dumps([line for line in page.text.splitlines() if "script" in line])
