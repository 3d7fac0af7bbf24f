"""Two populations: distances by hand, missing data, and the figure."""

import numpy as np
import pandas as pd
import pytest

from skinlesion.data.image_statistics import STATISTICS
from skinlesion.plots import audit as figures
from skinlesion.studies.external.populations import MEASURES, Population, compare_populations


def population(name: str, brightness: list[float], ages: list[float], diagnoses: dict[str, int]) -> Population:
    statistics = np.full((len(brightness), len(STATISTICS)), 0.5, np.float32)
    statistics[:, STATISTICS.index("brightness")] = brightness
    statistics[:, :2] = 400, 300
    facts = {"lesion_id": ["a"] * len(ages), "age": ages, "sex": "male", "localization": "back"}
    return Population(name, diagnoses, pd.DataFrame(facts), statistics)


def test_distances_by_hand() -> None:
    first = population("training", [0.1, 0.2, 0.3, 0.4], [10, 20, np.nan, 40], {"nv": 3, "mel": 1})
    second = population("others", [0.3, 0.4], [50, 60], {"nv": 1, "bcc": 1})
    found = compare_populations(first, second)
    apart = found.apart
    assert apart["diagnoses"] == pytest.approx((0.25 + 0.25 + 0.5) / 2)
    assert apart["brightness"] == pytest.approx(0.5)  # half of the first lie below all of the second
    assert apart["age"] == 1
    assert apart["sex"] == apart["localization"] == apart["aspect"] == apart["red"] == 0
    described = found.populations["training"].to_dict()
    assert described["diagnoses"]["mel"] == {"images": 1, "share": 0.25}
    assert described["age"]["known"] == 3
    assert described["age"]["median"] == 20
    assert described["aspect"]["mean"] == pytest.approx(4 / 3)
    assert described["lesions"] == 1


def test_missing_data_are_none_and_drawn_so() -> None:
    first = Population("training", {"nv": 2}, None, None)
    second = population("others", [0.3], [np.nan], {"nv": 1})
    found = compare_populations(first, second)
    assert found.apart["diagnoses"] == 0
    assert all(found.apart[name] is None for name in (*MEASURES, "sex", "localization"))
    assert found.populations["others"].facts["age"] is None
    titles = [axes.get_title() for axes in figures.compare_populations(first, second, found.apart).axes]
    assert "age: no distance available" in titles
    assert "diagnoses: distance 0.00" in titles
