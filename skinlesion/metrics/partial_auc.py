"""The area under the part of a ROC curve above a sensitivity, as a function of how often each lesion counts."""

import numpy as np

from skinlesion.metrics.auroc import OneClass
from skinlesion.metrics.classification import Floats, ratio


def partial_auc(each: OneClass, counts: Floats, *, sensitivity: float) -> Floats:
    """Area under the ROC curve from where it reaches a sensitivity to its end, as the ISIC challenges define it.

    The curve is a polyline through a point for each different score; where it passes the sensitivity between two
    points, the place is interpolated. The area is not normalised: a perfect ranking has 1, chance (1 - s**2) / 2.

    Args:
        each: The images of the table, sorted by one diagnosis.
        counts: (L, R) how often each lesion counts in each resample.
        sensitivity: Above 0, up to 1.

    Returns:
        (R,); NaN without images of the diagnosis, or without others.
    """
    own, reached = each.own @ counts, each.reached @ counts  # (T, R): steps up and to the right at each score
    tied = np.zeros_like(own) if each.tied is None else each.tied @ counts
    height = np.cumsum(own, axis=0)
    before = height - own
    positives, negatives = own.sum(axis=0), each.others @ counts
    reaches = ratio(height, positives) >= sensitivity
    beyond = ratio(before, positives) >= sensitivity  # the whole step lies above
    steps = (reached - tied) * before + tied * (before + height) / 2  # straight right, then aslant where scores tie
    area = np.where(beyond, steps, 0).sum(axis=0) + (negatives - reached.sum(axis=0)) * positives
    if each.tied is not None:
        level = sensitivity * positives
        left = 1 - ratio(level - before, own)  # the share of the slanting step that lies above
        area += np.where(reaches & ~beyond, tied * left * (level + height) / 2, 0).sum(axis=0)
    return ratio(area, positives * negatives)
