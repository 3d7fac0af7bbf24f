"""Thousands of mutated uploads: each gets an answer or a reason, never a failure of the service."""

import random
from collections.abc import Iterator

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image as PillowImage
from service_doubles import RedModel, encoded, limits

from skinlesion.deploy.service.app import build
from skinlesion.deploy.service.errors import RequestError
from skinlesion.deploy.service.uploads import decode_upload

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::RuntimeWarning:PIL"),
]

FILES, FORMS = 6000, 2000
LIMITS = limits(megapixels=0.05)
PICTURE = np.random.default_rng(1).integers(0, 256, (24, 32, 3), dtype=np.uint8)
SEEDS = [
    encoded(PICTURE, "JPEG"),
    encoded(PICTURE, "JPEG", progressive=True, exif=b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"),
    encoded(PICTURE, "PNG"),
    encoded(PICTURE, "PNG", optimize=True),
    encoded(PillowImage.fromarray(PICTURE).quantize(16), "PNG"),
    encoded(PillowImage.fromarray(PICTURE).quantize(200), "PNG", transparency=3),
    encoded(PICTURE, "WEBP"),
    encoded(PICTURE, "WEBP", lossless=True),
    encoded(PICTURE, "BMP"),
    encoded(PICTURE, "GIF"),
    encoded(PICTURE, "TIFF"),
]
HEAD = b'--x\r\nContent-Disposition: form-data; name="age"\r\n\r\n44\r\n'
FORM = HEAD + b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + SEEDS[0] + b"\r\n--x--\r\n"


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A few changes, as damage or malice would make them: bytes set, cut, doubled, moved, lengths enlarged."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not changed:
            break
        at = rng.randrange(min(len(changed), 120) if rng.random() < 0.6 else len(changed))  # headers, mostly
        length = rng.choice((1, 2, 4, 30))
        match rng.randrange(6):
            case 0:
                changed[at] = rng.randrange(256)
            case 1:
                changed[at : at + length] = bytes(rng.choice((0, 255)) for _ in range(length))
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = changed[at : at + 40 * length]
            case 4:
                changed[at:at] = rng.randbytes(length)
            case 5:
                changed = changed[: max(1, at)]
    return bytes(changed) or b"\0"


def read_or_refused(data: bytes) -> str:
    try:
        image = decode_upload(data, LIMITS)
    except RequestError as problem:
        return "refused" if 400 <= problem.status < 500 else "failed"
    sound = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    return "read" if sound else "failed"


def test_mutated_files_are_read_or_refused() -> None:
    rng = random.Random(1)
    outcomes = {"read": 0, "refused": 0, "failed": 0}
    for _ in range(FILES):
        data = mutated(rng.choice(SEEDS), rng)
        found = read_or_refused(data)
        outcomes[found] += 1
    assert outcomes["failed"] == 0
    assert min(outcomes["read"], outcomes["refused"]) > FILES / 20, f"{outcomes}: both kinds must be tried"


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(build(RedModel(), LIMITS)) as client:
        yield client


def test_mutated_requests_are_answered_or_refused(client: TestClient) -> None:
    """Form and file together; the service answers a sound request afterwards."""
    rng = random.Random(2)
    statuses: dict[int, int] = {}
    for _ in range(FORMS):
        kind = rng.choice(("multipart/form-data; boundary=x", "multipart/form-data; boundary=x; charset=utf-7"))
        answer = client.post("/v1/predict", content=mutated(FORM, rng), headers={"content-type": kind})
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
        assert answer.status_code < 500, answer.text
        if answer.status_code != 200:
            assert answer.headers["content-type"] == "application/problem+json"
    assert {200, 400, 422} <= set(statuses), statuses
    sound = client.post("/v1/predict", content=FORM, headers={"content-type": "multipart/form-data; boundary=x"})
    assert sound.status_code == 200
    assert client.get("/readyz").status_code == 200
