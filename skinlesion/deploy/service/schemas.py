"""The answers of the service, as documented in its OpenAPI description."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, Field

from skinlesion.config.deploy import LimitsConfig
from skinlesion.data.metadata import CATEGORY, FactSpec
from skinlesion.deploy.manifest import Manifest
from skinlesion.deploy.service.queue import Floats, ImagePrediction
from skinlesion.inference.conformal import prediction_sets
from skinlesion.taxonomy import HAM10000, Taxonomy

Probabilities = dict[str, float]


class DiagnosisName(BaseModel):
    """A diagnosis of the model."""

    code: str
    name: str
    category: str = Field(description="benign, premalignant, malignant, or unknown")


class MemberAnswer(BaseModel):
    """The answer of one member of the ensemble."""

    name: str
    predicted: str
    probabilities: Probabilities


class Novelty(BaseModel):
    """Whether the image looks like the model's training images."""

    flag: bool = Field(description="true: it is unlike the training images, and the probabilities mean nothing")
    score: float = Field(description="the higher, the less alike")


class FactEffect(BaseModel):
    """The answer without one fact about the patient."""

    fact: str
    without: Probabilities = Field(description="calibrated probabilities if this fact were not known")


class ImageAnswer(BaseModel):
    """The answer of the ensemble for one image."""

    predicted: str = Field(description="code of the diagnosis that the members vote for, or of the balanced decision")
    name: str
    category: str
    probabilities: Probabilities = Field(description="calibrated, by code; they sum to 1")
    uncalibrated: Probabilities = Field(description="the mean of the members, corrected by a specialist if any")
    members: list[MemberAnswer]
    agreement: float = Field(
        description="share of the members whose most probable diagnosis is the predicted one", ge=0, le=1
    )
    prediction_set: list[str] | None = Field(
        description="codes that cannot be ruled out at `risk`, most probable first; null: the bundle has no thresholds"
    )
    risk: float | None = Field(description="share of images whose set may lack the actual diagnosis")
    out_of_distribution: Novelty | None = Field(description="null: the bundle has no statistics of its training images")
    effects: list[FactEffect] | None = Field(description="of each known fact, if `effects` was asked for")


class Prediction(BaseModel):
    """The answer to a prediction request."""

    bundle: str = Field(description="version of the bundle")
    note: str
    facts: dict[str, float | str | None] = Field(description="as understood; null: not known")
    images: list[ImageAnswer] = Field(description="in the order of the request")


class FactCard(BaseModel):
    """A fact about the patient or the lesion that the model knows."""

    name: str
    kind: str = Field(description="number or category")
    unit: str = Field(description="of a number; empty without one")
    low: float | None = Field(description="least number that is taken; null: any")
    high: float | None = Field(description="largest number that is taken; null: any")
    categories: list[str] = Field(description="of a category")


class ModelCard(BaseModel):
    """The bundle that answers, and the limits of the service."""

    bundle: str
    format: str
    precision: str
    note: str
    licence: str
    diagnoses: list[DiagnosisName]
    examples: list[str] = Field(description="codes of diagnoses with a synthetic image, examples/CODE.jpg")
    members: list[str]
    input_sizes: list[tuple[int, int]] = Field(description="(height, width) of the members' inputs in pixels")
    facts: list[FactCard] = Field(description="in the order of a form")
    risks: list[float] = Field(description="at which prediction sets can be asked for; the first is the default")
    operating_points: Any
    limits: dict[str, float]


class Health(BaseModel):
    """Whether the service is up."""

    status: str


def image_answer(
    prediction: ImagePrediction, about: Manifest, *, risk: float | None, without: Mapping[str, ImagePrediction] | None
) -> ImageAnswer:
    """The answer for one image.

    Args:
        prediction: Prediction with all known facts.
        about: The bundle's members and thresholds.
        risk: Error rate of the prediction set, one of the bundle's; None: no set.
        without: Predictions for the same image, by the fact that was left out; None: not asked for.
    """
    taxonomy = about.diagnoses
    top = taxonomy.diagnoses[prediction.predicted]

    def by_code(probabilities: Floats) -> Probabilities:
        return {code: round(float(p), 6) for code, p in zip(taxonomy.codes, probabilities, strict=True)}

    members = [
        MemberAnswer(name=member.name, predicted=taxonomy.codes[int(own.argmax())], probabilities=by_code(own))
        for member, own in zip(about.members, prediction.members, strict=True)
    ]
    return ImageAnswer(
        predicted=top.code,
        name=top.name,
        category=top.category,
        probabilities=by_code(prediction.probabilities),
        uncalibrated=by_code(prediction.uncalibrated),
        members=members,
        agreement=sum(member.predicted == top.code for member in members) / len(members),
        prediction_set=prediction_set(prediction.probabilities, about, risk),
        risk=risk,
        out_of_distribution=None
        if prediction.ood is None or prediction.ood_score is None
        else Novelty(flag=prediction.ood, score=prediction.ood_score),
        effects=None
        if without is None
        else [FactEffect(fact=fact, without=by_code(each.probabilities)) for fact, each in without.items()],
    )


def prediction_set(probabilities: Floats, about: Manifest, risk: float | None) -> list[str] | None:
    """Codes that cannot be ruled out at one of the bundle's risks, most probable first; None: without thresholds."""
    fitted = next((entry for entry in about.conformal or [] if entry["alpha"] == risk), None)
    if fitted is None:
        return None
    (included,) = prediction_sets(probabilities[None], fitted)
    return [about.diagnoses.codes[k] for k in (-probabilities).argsort(kind="stable") if included[k]]


def risks(about: Manifest) -> list[float]:
    """The risks at which the bundle has prediction sets; the first is the default."""
    return [float(fitted["alpha"]) for fitted in about.conformal or []]


def fact_card(fact: FactSpec) -> FactCard:
    """The description of a fact."""
    words = list(fact.categories) if fact.kind == CATEGORY else []
    return FactCard(name=fact.name, kind=fact.kind, unit=fact.unit, low=fact.low, high=fact.high, categories=words)


def examples_of(taxonomy: Taxonomy) -> dict[str, str]:
    """The diagnosis of HAM10000 that is painted as an example of each diagnosis, as far as there is one."""
    found: dict[str, str] = {}
    for each in HAM10000.diagnoses:
        found.setdefault(taxonomy.meaning(each.name) or "", each.code)
    return {code: found[code] for code in taxonomy.codes if code in found}


def model_card(about: Manifest, limits: LimitsConfig) -> ModelCard:
    """The description of a bundle and of the service's limits."""
    return ModelCard(
        bundle=about.version,
        format=about.format,
        precision=about.precision,
        note=about.note,
        licence=about.licence,
        diagnoses=[DiagnosisName(code=d.code, name=d.name, category=d.category) for d in about.diagnoses.diagnoses],
        examples=list(examples_of(about.diagnoses)),
        members=[member.name for member in about.members],
        input_sizes=about.sizes,
        facts=[fact_card(fact) for fact in about.encoder.facts],
        risks=risks(about),
        operating_points=about.operating_points,
        limits=asdict(limits),
    )
