"""A prediction: from a request's form to the model's opinion of each image."""

from dataclasses import replace

from fastapi import Request

from skinlesion.data.metadata import FACTS
from skinlesion.deploy.manifest import Manifest
from skinlesion.deploy.runtime import Facts
from skinlesion.deploy.service.deadline import Deadline
from skinlesion.deploy.service.fields import EFFECTS, PREDICT_FIELDS, choice, facts_of, risk_of
from skinlesion.deploy.service.form import read_form
from skinlesion.deploy.service.model import Opinion
from skinlesion.deploy.service.schemas import Prediction, image_answer
from skinlesion.deploy.service.state import AppState
from skinlesion.inference.conformal import prediction_sets


async def predict(desk: AppState, request: Request) -> Prediction:
    """Answer a prediction request.

    Raises:
        RequestError: What is wrong with it, or 503 where it has to come again.
    """
    patience = Deadline(desk.limits.timeout)
    with desk.line.places(1) as take:  # before the body is read: so many bodies are in memory at most
        async with patience.with_client():
            form = await read_form(request, PREDICT_FIELDS, desk.limits)
        about = desk.model.about
        facts, risk = facts_of(form.fields, about), risk_of(form.fields, about)
        effects = choice(form.fields, EFFECTS, ("true", "false")) == "true"
        asked = [facts, *({**facts, fact: None} for fact in _known(facts) if effects)]
        desk.refuse_endless(len(form.images) * len(asked))
        take(len(form.images) * len(asked) - 1)
        async with patience.with_model():
            images = await desk.decode(form.images, desk.model.prepare)
            opinions = await desk.line.judge(
                [image for image in images for _ in asked], [known for _ in images for known in asked]
            )
    grouped = [opinions[start : start + len(asked)] for start in range(0, len(opinions), len(asked))]
    desk.measures.novel(sum(bool(own.novel) for own, *_ in grouped))
    answers = [
        image_answer(
            at_risk(own, about, risk),
            desk.model,
            risk=risk,
            without=dict(zip(_known(facts), others, strict=True)) if effects else None,
        )
        for own, *others in grouped
    ]
    return Prediction(bundle=about.version, note=about.note, facts=dict(facts), images=answers)


def at_risk(opinion: Opinion, about: Manifest, risk: float | None) -> Opinion:
    """The opinion with its prediction set at one of the bundle's risks."""
    fitted = next((each for each in about.conformal or [] if each["alpha"] == risk), None)
    if fitted is None:
        return opinion
    return replace(opinion, prediction_set=prediction_sets(opinion.probabilities[None], fitted)[0])


def _known(facts: Facts) -> list[str]:
    return [fact for fact in FACTS if facts[fact] is not None]
