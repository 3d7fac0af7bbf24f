"""The service under twice the load that it can carry: admitted requests are answered, and memory stays flat."""

import sys

import pytest
from service_browser import SERVER, TESTS
from service_doubles import coloured, encoded

from benchmarks.load import measure

pytestmark = pytest.mark.exhaustive


def test_twice_the_load() -> None:
    code = SERVER.format(tests=str(TESTS), token=None, seconds=0.01).replace("print(", 'print("http://127.0.0.1:%d" % ')
    found = measure([sys.executable, "-c", code], encoded(coloured(size=(450, 600)), "JPEG"), seconds=60)
    for part in (found, found["large_images"], found["small_beside_large"], found["small_beside_idle"]):
        assert not part["other"], "nothing but answers and refusals: also no connection that is reset"
        assert part["refused_without_retry_after"] == 0
    assert found["large_images"]["answered"] > 1
    assert found["large_images"]["answered_s"]["longest"] < 20, "the time that a request may take"
    assert found["large_images"]["refused_s"].get("longest", 0) < 20
    assert found["log_lines_of_idle"] == 1
    assert found["answered"] > 0.5 * found["carried_per_s"] * found["seconds"]
    assert found["refused"] > 0.1 * found["answered"], "it was more than could be carried"
    assert found["answered_s"]["longest"] < 20, "the time that a request may take"
    memory = found["memory_mib"]
    assert memory["highest"] < 1.1 * memory["after_a_quarter"] + 10
    assert found["answers_afterwards"]
    assert found["exit_status"] == 0
