"""What the service says, as documented in its OpenAPI description."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from skinlesion.data.metadata import FACTS
from skinlesion.deploy.service.model import Floats, Model, Opinion
from skinlesion.taxonomy import CODES, DIAGNOSES

Probabilities = dict[str, float]


class DiagnosisName(BaseModel):
    """A diagnosis that the model tells apart."""

    code: str
    name: str
    category: str = Field(description="malignant or benign; actinic keratosis counts as malignant")


class MemberAnswer(BaseModel):
    """What one member of the ensemble says."""

    name: str
    predicted: str
    probabilities: Probabilities


class Novelty(BaseModel):
    """Whether the image looks like those that the model was trained on."""

    flag: bool = Field(description="true: it does not look like dermoscopy; the probabilities mean nothing then")
    score: float = Field(description="higher is less alike")


class FactEffect(BaseModel):
    """The answer without one fact about the patient."""

    fact: str
    without: Probabilities = Field(description="calibrated probabilities if this fact were not known")


class ImageAnswer(BaseModel):
    """What the ensemble says of one image."""

    predicted: str = Field(description="code of the likeliest diagnosis")
    name: str
    category: str
    probabilities: Probabilities = Field(description="calibrated, by code; they sum to 1")
    uncalibrated: Probabilities = Field(description="the mean of the members")
    members: list[MemberAnswer]
    agreement: float = Field(description="share of the members whose likeliest diagnosis is this one", ge=0, le=1)
    prediction_set: list[str] | None = Field(
        description="codes that cannot be ruled out at `risk`, likeliest first; null: the bundle has no thresholds"
    )
    risk: float | None = Field(description="share of images whose set may lack the actual diagnosis")
    out_of_distribution: Novelty | None = Field(description="null: the bundle has no statistics of its training images")
    effects: list[FactEffect] | None = Field(description="of each known fact, where `effects` was asked for")


class Prediction(BaseModel):
    """The answer to a prediction request."""

    bundle: str = Field(description="version of the bundle")
    note: str
    facts: dict[str, float | str | None] = Field(description="as understood; null: not known")
    images: list[ImageAnswer] = Field(description="in the order of the request")


class ModelCard(BaseModel):
    """What answers here."""

    bundle: str
    format: str
    precision: str
    note: str
    licence: str
    diagnoses: list[DiagnosisName]
    members: list[str]
    input_sizes: list[tuple[int, int]] = Field(description="(height, width) in pixels that members read")
    sexes: list[str]
    localizations: list[str]
    risks: list[float] = Field(description="at which prediction sets can be asked for; the first is the default")
    operating_points: Any
    limits: dict[str, float]


class Health(BaseModel):
    """Whether the service is there."""

    status: str


def image_answer(
    opinion: Opinion,
    model: Model,
    *,
    risk: float | None,
    without: Mapping[str, Opinion] | None,
) -> ImageAnswer:
    """Put an opinion into words.

    Args:
        opinion: Of the image with all facts.
        model: Names its members.
        risk: Of the prediction set.
        without: Opinions of the same image, by the fact that was left out.
    """
    likeliest = DIAGNOSES[int(opinion.probabilities.argmax())]
    members = [
        MemberAnswer(name=about.name, predicted=DIAGNOSES[int(own.argmax())].code, probabilities=by_code(own))
        for about, own in zip(model.about.members, opinion.members, strict=True)
    ]
    agreeing = sum(member.predicted == likeliest.code for member in members)
    return ImageAnswer(
        predicted=likeliest.code,
        name=likeliest.name,
        category=likeliest.category,
        probabilities=by_code(opinion.probabilities),
        uncalibrated=by_code(opinion.uncalibrated),
        members=members,
        agreement=agreeing / len(members),
        prediction_set=_set(opinion),
        risk=None if opinion.prediction_set is None else risk,
        out_of_distribution=None
        if opinion.novel is None or opinion.novelty is None
        else Novelty(flag=opinion.novel, score=opinion.novelty),
        effects=None
        if without is None
        else [FactEffect(fact=fact, without=by_code(without[fact].probabilities)) for fact in FACTS if fact in without],
    )


def by_code(probabilities: Floats) -> Probabilities:
    """Seven probabilities by code, with six decimals."""
    return {code: round(float(p), 6) for code, p in zip(CODES, probabilities, strict=True)}


def _set(opinion: Opinion) -> list[str] | None:
    if opinion.prediction_set is None:
        return None
    order = (-opinion.probabilities).argsort(kind="stable")
    return [DIAGNOSES[k].code for k in order if opinion.prediction_set[k]]
