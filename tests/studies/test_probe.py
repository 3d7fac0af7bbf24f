"""`probe`: embeddings, classifiers and folds against timm, scikit-learn and numpy; label errors; nearest cases."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from conftest import composed
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, log_loss
from sklearn.preprocessing import StandardScaler

from skinlesion.commands.compare import run as compare
from skinlesion.commands.explain import run as explain
from skinlesion.commands.probe import run
from skinlesion.config.data import SplitConfig
from skinlesion.config.inference import CompareConfig
from skinlesion.config.studies import ExplainConfig, ProbeConfig
from skinlesion.config.train import TrainConfig
from skinlesion.data.image_io import decode, read
from skinlesion.data.readers import read_data
from skinlesion.data.treatment import Treatment
from skinlesion.errors import CheckpointError, ConfigError, DataError
from skinlesion.inference.predictions import Predictions
from skinlesion.studies.probe.cases import Cases
from skinlesion.studies.probe.classifiers import NEIGHBOURS, PENALTIES, Sample, Task, logistic, nearest_neighbours
from skinlesion.studies.probe.embedding import Embedders, directions
from skinlesion.studies.probe.label_errors import label_errors, likely_errors
from skinlesion.studies.probe.study import cross_validate, splits_of
from skinlesion.taxonomy import HAM10000
from skinlesion.training.checkpoint import load_model

NETWORKS = ("test_resnet", "test_vit")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config(synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> ProbeConfig:
    """A finished probe of two small networks with random weights, in three folds."""
    folder = tmp_path_factory.mktemp("probe")
    places = (f"data.root={synthetic_root}", f"data.cache_dir={folder / 'cache'}", f"out={folder / 'out'}")
    networks = (f"backbones=[{','.join(NETWORKS)}]", "pretrained=false", "image_size=[32,32]")
    made = composed("probe", ProbeConfig, *places, *networks, "split.folds=3", "resamples=100", "interval=percentile")
    run(made)
    return made


def tables(config: ProbeConfig) -> dict[str, Predictions]:
    return {name: Predictions.read(Path(config.out) / name / "predictions_test.csv") for name in config.classifiers}


def test_every_image_is_judged_once_by_each_classifier(config: ProbeConfig) -> None:
    frame = read_data(config.data)
    for table in tables(config).values():
        assert table.image_id.tolist() == sorted(frame["image_id"])
        assert table.actual.tolist() == frame.sort_values("image_id")["diagnosis"].tolist()
    folds = splits_of(frame, config.split)
    assert len(folds) == 3
    for fold in folds:
        assert fold.groupby("lesion_id")["split"].nunique().max() == 1


def test_images_of_a_patient_are_judged_in_one_fold_and_resampled_together(config: ProbeConfig) -> None:
    frame = read_data(config.data)
    patients = [f"P{each // 3}" for each in frame["lesion_id"].astype("category").cat.codes]
    frame = frame.assign(patient_id=patients, group_id=patients)
    splits = splits_of(frame, config.split)
    for fold in splits:
        parts = fold.set_index("image_id")["split"]
        assert parts.groupby(frame.set_index("image_id")["group_id"]).nunique().max() == 1
    settings = {"classifiers": ["knn"], "facts": False, "alpha": 0.5, "seed": 1}
    table = cross_validate(frame, np.random.default_rng(0).normal(size=(len(frame), 4)), splits, **settings)["knn"]
    assert table.group_id.tolist() == frame.set_index("image_id").loc[table.image_id, "group_id"].tolist()
    assert table.groups == len({*patients})


def test_numbers_are_those_of_the_tables(config: ProbeConfig, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads((Path(config.out) / "probe.json").read_text())["metrics"]
    for name, table in tables(config).items():
        expected = f1_score(table.actual.tolist(), table.predicted.tolist(), average="macro")
        assert found[name]["macro_f1"]["value"] == pytest.approx(expected)
        assert found[name]["macro_f1"]["low"] < expected < found[name]["macro_f1"]["high"]
    paths = ",".join(str(Path(config.out) / name / "predictions_test.csv") for name in ("logistic", "knn"))
    compare(composed("compare", CompareConfig, f"tables=[{paths}]", "resamples=100", "interval=percentile"))
    assert f"{found['knn']['accuracy']['value']:.3f}" in capsys.readouterr().out


def test_embeddings_are_those_of_timm(config: ProbeConfig) -> None:
    frame = read_data(config.data).head(3)
    embedders = Embedders.load(NETWORKS, pretrained=False, image_size=[32, 32], device=CPU)
    found = embedders.embed_frame(frame, cache_dir=Path(config.data.cache_dir))
    parts = []
    for name, each in zip(NETWORKS, embedders.each, strict=True):
        net = timm.create_model(name, num_classes=0).eval()
        net.load_state_dict(each.vectors.__self__.net.state_dict())
        pixels = np.stack([decode(Path(path), (32, 32)) for path in frame["path"]]) / 255
        scaled = (pixels - net.pretrained_cfg["mean"]) / net.pretrained_cfg["std"]
        with torch.no_grad():
            output = net.forward_features(torch.from_numpy(scaled).permute(0, 3, 1, 2).float())
        parts.append(
            output.mean(dim=(2, 3)) if output.ndim == 4 else torch.cat([output[:, 0], output[:, 1:].mean(1)], 1)
        )
    np.testing.assert_allclose(found, torch.cat(parts, dim=1).numpy(), rtol=1e-3, atol=1e-4)
    again = embedders.embed_frame(frame, cache_dir=Path(config.data.cache_dir))
    assert np.array_equal(again, found)


def test_hairs_are_painted_over_before_images_are_embedded(config: ProbeConfig) -> None:
    frame = read_data(config.data).head(12)
    keep, remove = (
        Embedders.load(NETWORKS[:1], pretrained=False, image_size=[64, 64], treatment=Treatment(hair), device=CPU)
        for hair in ("keep", "remove")
    )
    pixels = np.stack([decode(Path(path), (64, 64), Treatment("remove")) for path in frame["path"]])
    expected = keep.each[0].embed(pixels, CPU)
    found = remove.embed_frame(frame, cache_dir=Path(config.data.cache_dir))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    plain = keep.embed_frame(frame, cache_dir=Path(config.data.cache_dir))
    (hairy, *_) = np.flatnonzero(np.abs(plain - expected).max(axis=1) > 1e-3)
    image = read(Path(frame["path"].iloc[hairy]))
    np.testing.assert_allclose(remove.directions(image), directions(expected, [expected.shape[1]])[hairy], atol=1e-5)


def sample(count: int, seed: int) -> Sample:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, count)
    return Sample((rng.normal(size=(count, 6)) + np.eye(3, 6)[y] * 1.5).astype(np.float32), y)


TASK = Task.of(sample(200, 1), sample(80, 2), classes=3, alpha=0.5, seed=1)


def test_logistic_regression_is_scikit_learns() -> None:
    weights, x = TASK.weights, sample(50, 3).x

    def fitted(part: Sample, penalty: float) -> LogisticRegression:
        return LogisticRegression(C=penalty, max_iter=1000, tol=1e-6).fit(part.x, part.y, sample_weight=weights[part.y])

    losses = {C: log_loss(TASK.val.y, fitted(TASK.train, C).predict_proba(TASK.val.x)) for C in PENALTIES}
    both = TASK.train.joined(TASK.val)
    expected = fitted(both, min(losses, key=losses.__getitem__)).predict_proba(x)
    np.testing.assert_allclose(logistic(TASK, x), expected, atol=2e-3)


def test_neighbours_vote_by_cosine() -> None:
    x = sample(20, 4).x

    def votes(train: Sample, k: int, rows: np.ndarray) -> np.ndarray:
        unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (rows, train.x)]
        nearest = np.argsort(-(unit[0] @ unit[1].T), axis=1)[:, :k]
        counts = np.stack([(train.y[nearest] == label).sum(axis=1) for label in range(3)], axis=1) * TASK.weights
        return (counts + 1 / 3) / (counts + 1 / 3).sum(axis=1, keepdims=True)

    losses = [log_loss(TASK.val.y, votes(TASK.train, k, TASK.val.x)) for k in NEIGHBOURS]
    expected = votes(TASK.train.joined(TASK.val), NEIGHBOURS[int(np.argmin(losses))], x)
    np.testing.assert_allclose(nearest_neighbours(TASK, x), expected, atol=1e-6)


def test_a_fold_by_hand(config: ProbeConfig) -> None:
    """Features are standardised, and facts encoded, by the training part alone."""
    frame = read_data(config.data)
    made = replace(config, facts=False)
    embedders = Embedders.load(NETWORKS, pretrained=False, image_size=[32, 32], device=CPU)
    vectors = embedders.embed_frame(frame, cache_dir=Path(config.data.cache_dir))
    (split, *_) = splits_of(frame, config.split)
    part = frame["image_id"].map(dict(zip(split["image_id"], split["split"], strict=True))).to_numpy()
    x = StandardScaler().fit(vectors[part == "train"]).transform(vectors)
    y = HAM10000.indices(frame["diagnosis"].tolist())
    samples = {name: Sample(x[part == name].astype(np.float32), y[part == name]) for name in ("train", "val", "test")}
    task = Task.of(samples["train"], samples["val"], classes=7, alpha=made.alpha, seed=1)
    options = {"classifiers": ["logistic"], "facts": False, "alpha": made.alpha, "seed": 1}
    found = cross_validate(frame, vectors, [split], **options)["logistic"]
    assert found.image_id.tolist() == frame["image_id"][part == "test"].tolist()
    np.testing.assert_allclose(found.probabilities, logistic(task, samples["test"].x), atol=2e-3)


def test_folds_of_a_file(config: ProbeConfig, tmp_path: Path) -> None:
    frame = read_data(config.data)
    folds = splits_of(frame, config.split)
    tested = pd.concat([fold[fold["split"] == "test"].assign(fold=k) for k, fold in enumerate(folds)])
    tested[["image_id", "fold"]].to_csv(tmp_path / "folds.csv", index=False)
    options = SplitConfig("file", 1, 5, 0, 0.125, None, str(tmp_path / "folds.csv"))
    again = splits_of(frame, options)
    for first, second in zip(folds, again, strict=True):
        assert set(first.loc[first["split"] == "test", "image_id"]) == set(
            second.loc[second["split"] == "test", "image_id"]
        )
    assert len(splits_of(frame, replace(options, policy="published"))) == 1


def test_a_checkpoint_is_judged_on_its_own_test_part_alone(
    trained: TrainConfig, config: ProbeConfig, tmp_path: Path
) -> None:
    places = (f"data.root={trained.data.root}", f"data.cache_dir={trained.data.cache_dir}", f"out={tmp_path}")
    given = (*places, f"backbones=[{trained.out}]", "classifiers=[logistic]", "resamples=100", "interval=percentile")
    with pytest.raises(DataError, match=r"was trained on \d+ lesions? of the test part.*split\.csv"):
        run(composed("probe", ProbeConfig, *given))
    run(composed("probe", ProbeConfig, *given, "split.policy=published"))
    table = Predictions.read(tmp_path / "logistic" / "predictions_test.csv")
    assert set(table.image_id) == set(load_model(Path(trained.out)).split["test"])


def test_one_weight_file_for_two_networks_is_refused(config: ProbeConfig, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").touch()
    with pytest.raises(ConfigError, match="one file for 2 networks"):
        Embedders.load(NETWORKS, pretrained=str(tmp_path / "w.safetensors"), image_size=None, device=CPU)
    with pytest.raises(CheckpointError, match=r"the weights of test_resnet there as test_resnet\.safetensors"):
        Embedders.load(NETWORKS, pretrained=str(tmp_path), image_size=None, device=CPU)


# Likely label errors


def test_the_confident_joint_by_hand() -> None:
    values = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.1, 0.9], [0.4, 0.6], [0.55, 0.45]])
    labels = np.array([0, 0, 0, 1, 1, 1])
    # thresholds: (0.9 + 0.7 + 0.2) / 3 = 0.6 of class 0, (0.9 + 0.6 + 0.45) / 3 = 0.65 of class 1
    assert likely_errors(values, labels).tolist() == [0, 0, 1, 1, 1, 1]


def test_likely_errors_are_cleanlabs() -> None:
    cleanlab = pytest.importorskip("cleanlab.filter", reason="cleanlab is not installed")
    rng = np.random.default_rng(0)
    labels = rng.choice(4, size=500, p=[0.6, 0.2, 0.15, 0.05])
    values = rng.dirichlet(np.full(4, 0.6), size=500) + 0.8 * np.eye(4)[np.where(rng.random(500) < 0.1, 0, labels)]
    values /= values.sum(axis=1, keepdims=True)
    expected = cleanlab.find_label_issues(labels, values, filter_by="confident_learning", n_jobs=1)
    assert np.array_equal(likely_errors(values, labels) != labels, expected)
    assert 5 < expected.sum() < 150


def test_planted_errors_come_first() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 7, 300)
    values = np.full((300, 7), 0.02) + 0.86 * np.eye(7)[truth]
    labels = truth.copy()
    labels[:9] = (truth[:9] + 1) % 7
    ids = [f"ISIC_{k:07d}" for k in range(300)]
    table = Predictions.build(ids, probabilities=values, actual=[HAM10000.codes[k] for k in labels])
    found = label_errors(table, pd.DataFrame({"image_id": ids, "dx_type": "consensus"}))
    assert sorted(found["image_id"]) == ids[:9]
    assert found["suggested"].tolist() == [HAM10000.codes[truth[ids.index(image)]] for image in found["image_id"]]
    assert (found["probability"] < found["probability_suggested"]).all()


def test_label_errors_are_written(config: ProbeConfig) -> None:
    found = pd.read_csv(Path(config.out) / "label_errors.csv")
    vote = Predictions.soft_vote(list(tables(config).values()))
    predicted = dict(zip(vote.image_id, vote.predicted, strict=True))
    assert len(found) > 0
    assert all(predicted[image] != code for image, code in zip(found["image_id"], found["diagnosis"], strict=True))


# Nearest cases


def test_directions_average_the_cosines_of_networks() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(5, 7)).astype(np.float32)
    found = directions(vectors, [3, 4])
    cosine = [
        float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        for a, b in ((vectors[0, :3], vectors[1, :3]), (vectors[0, 3:], vectors[1, 3:]))
    ]
    assert found[0] @ found[1] == pytest.approx(np.mean(cosine), abs=1e-6)


def test_explain_names_the_five_nearest_training_images(
    config: ProbeConfig, trained: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = read_data(config.data).set_index("image_id")
    trained_on = load_model(Path(trained.out)).split["train"]
    image = trained_on[0]
    given = (f"checkpoint={trained.out}", f"image={frame.loc[image, 'path']}", f"cases={config.out}", f"out={tmp_path}")
    explain(composed("explain", ExplainConfig, *given))
    (numbers,) = tmp_path.glob("*.json")
    found = json.loads(numbers.read_text())["nearest"]

    cases = Cases.read(Path(config.out))
    embedders = cases.embedders(CPU)
    vectors = embedders.embed_frame(frame.reset_index(), cache_dir=Path(config.data.cache_dir))
    units = [
        part / np.linalg.norm(part, axis=1, keepdims=True) for part in np.split(vectors, [embedders.widths[0]], axis=1)
    ]
    row = [*frame.index].index(image)
    cosines = pd.Series(np.mean([part @ part[row] for part in units], axis=0), frame.index)
    expected = cosines[[each for each in trained_on if each != image]].nlargest(5)
    assert [each["image_id"] for each in found] == expected.index.tolist()
    assert [each["similarity"] for each in found] == pytest.approx(expected.tolist(), abs=2e-3)
    for each in found:
        assert (each["diagnosis"], each["dx_type"]) == tuple(frame.loc[each["image_id"], ["diagnosis", "dx_type"]])
    printed = capsys.readouterr().out
    assert all(each["image_id"] in printed for each in found)
    assert (tmp_path / f"{image}.nearest.png").stat().st_size > 5000


def test_cases_of_other_weights_are_refused(config: ProbeConfig, tmp_path: Path) -> None:
    cases = Cases.read(Path(config.out))
    changed = replace(cases, recipe={**cases.recipe, "digests": ["0" * 64, "1" * 64]})
    changed.write(tmp_path / "cases.npz")
    with pytest.raises(CheckpointError, match="test_resnet has other weights"):
        Cases.read(tmp_path).embedders(CPU)
    with pytest.raises(CheckpointError, match="`skinlesion probe` writes it"):
        Cases.read(tmp_path / "nowhere")
