"""Pseudo-labels of scores, features and images: what is written, and what is refused."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from digit_runs import SMALL, with_method
from image_files import write_image
from safetensors.torch import save_file

import infoassign as ia
from infoassign_training import pipeline
from infoassign_training.cli import run
from infoassign_training.commands.label import table
from infoassign_training.config import Pretraining
from infoassign_training.data import augmentations
from infoassign_training.data.digits import digits
from infoassign_training.data.settings import Folder
from infoassign_training.engine import checkpoint
from infoassign_training.engine.run import Run, Started
from infoassign_training.errors import UserError
from infoassign_training.folders import appearing
from infoassign_training.labelling import folder, tables
from infoassign_training.labelling.labels import at_potential
from infoassign_training.labelling.options import Options
from infoassign_training.labelling.pipeline import label
from infoassign_training.labelling.scoring import scores_of
from infoassign_training.methods import settings as methods
from infoassign_training.methods.build import build
from infoassign_training.methods.finished import open_model
from infoassign_training.methods.labels import read_labels
from infoassign_training.models.settings import ResNet

LOGITS = (np.random.default_rng(0).normal(size=(600, 12)) * 3).astype(np.float32)


@pytest.fixture
def logits(tmp_path: Path) -> str:
    """A file of scores."""
    np.save(tmp_path / "logits.npy", LOGITS)
    return str(tmp_path / "logits.npy")


@pytest.fixture
def labelled(tmp_path: Path) -> Callable[..., tuple[Any, dict[str, Any]]]:
    """Label and return the labels and the certificate."""

    def call(words: str, out: str = "labels", **options: Any) -> tuple[Any, dict[str, Any]]:
        said = label(words, Options(out=tmp_path / out, **options))
        found = json.loads((tmp_path / out / "certificate.json").read_text())
        assert found["made"] == said["made"]
        labels = np.load(tmp_path / out / "labels.npy")
        assert labels.dtype == np.int64
        assert labels.shape == (1, found["rows"])
        return labels[0], found

    return call


@pytest.mark.parametrize("method", ["mira", "sinkhorn"])
def test_labels_of_a_file_are_those_of_the_library_in_memory(
    method: str, logits: str, labelled: Any, tmp_path: Path
) -> None:
    labels, said = labelled(logits, method=method, soft="float32", tol=1e-6)
    direct = ia.mira(LOGITS, tol=1e-6) if method == "mira" else ia.sinkhorn(LOGITS, epsilon=1 / 3, tol=1e-6)
    assert (labels == direct.labels).all()
    assert np.abs(np.load(tmp_path / "labels" / "plan.npy") - direct.plan).max() < 1e-5
    assert np.abs(np.load(tmp_path / "labels" / "potential.npy") - direct.potential).max() < 1e-4
    assert said["made"] == "solved"
    assert said["converged"]
    assert said["objective"] == pytest.approx(direct.objective, abs=1e-5)
    assert said["mutual_information"] == pytest.approx(direct.mutual_information, abs=1e-5)
    assert said["problem"]["method"] == method
    assert len(said["input"]["sha256"]) == 64
    # What label transfer reads.
    assert (read_labels(tmp_path / "labels" / "labels.npy", sizes=[12], images=600)[0] == labels).all()


def test_the_bounds_of_an_exact_marginal_can_be_left_out(logits: str, labelled: Any) -> None:
    labels, said = labelled(logits, method="sinkhorn", bounds="never")
    assert not {"error_bound", "gap"} & set(said)
    assert said["marginal_error"] <= 1e-4
    again, more = labelled(logits, out="more", method="sinkhorn")
    assert (again == labels).all()
    assert more["error_bound"] < 1e-2
    assert labelled(logits, out="mira", bounds="never")[1]["error_bound"] <= 1e-4


def test_a_temperature_is_the_library_s(logits: str, labelled: Any, tmp_path: Path) -> None:
    labels, said = labelled(logits, beta=0.5, temperature=3.0, tol=1e-6)
    direct = ia.mira(LOGITS, beta=0.5, temperature=3.0, tol=1e-6)
    assert (labels == direct.labels).all()
    assert said["objective"] == pytest.approx(direct.objective, abs=1e-5)
    assert np.abs(np.load(tmp_path / "labels" / "potential.npy") - direct.potential).max() < 1e-4


def test_safetensors_give_what_npy_gives(logits: str, labelled: Any, tmp_path: Path) -> None:
    one, several = str(tmp_path / "one.safetensors"), str(tmp_path / "several.safetensors")
    tensor = torch.from_numpy(LOGITS)
    save_file({"logits": tensor}, one)
    save_file({"logits": tensor, "half": tensor.bfloat16(), "names": torch.arange(27).reshape(9, 3)}, several)
    labels, _ = labelled(logits, out="npy")
    assert (labelled(one, out="one")[0] == labels).all()
    assert (labelled(several, out="several", tensor="logits")[0] == labels).all()
    half, said = labelled(several, out="half", tensor="half")
    rounded = tensor.bfloat16().float().numpy()
    assert (half == ia.mira(rounded, tol=1e-4).labels).all()
    assert said["input"]["tensor"] == "half"
    with pytest.raises(UserError, match="several tensors; choose by --tensor one of half, logits, names"):
        labelled(several, out="x")
    with pytest.raises(UserError, match="no tensor 'no'"):
        labelled(several, out="x", tensor="no")
    with pytest.raises(UserError, match="real floating"):
        labelled(several, out="x", tensor="names")


def test_tables_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "PIECE", 64)
    save_file({"x": torch.from_numpy(LOGITS)}, tmp_path / "x.safetensors")
    table = tables.open_table(tmp_path / "x.safetensors")
    read = list(tables.pieces(table))
    assert len(read) == 120
    assert (np.concatenate([rows for _, rows in read]) == LOGITS).all()
    some = tables.some_rows(table, 50, seed=0)
    assert some.shape == (50, 12)
    assert (tables.some_rows(LOGITS, 50, seed=0) == some).all()
    assert (tables.some_rows(LOGITS, 600, seed=0) == LOGITS).all()
    one, other = (next(scores_of(rows, LOGITS[:5], "euclidean").chunks()) for rows in (table, LOGITS))
    assert np.allclose(one, other[: len(one)], atol=1e-4)


def test_argmax_is_said_and_is_the_softmax(logits: str, labelled: Any, tmp_path: Path) -> None:
    labels, said = labelled(logits, argmax=True, soft="float16")
    assert (labels == LOGITS.argmax(axis=1)).all()
    assert said["made"] == "argmax"
    assert "status" not in said
    plan = np.load(tmp_path / "labels" / "plan.npy")
    assert plan.dtype == np.float16
    assert np.abs(plan - ia.mira(LOGITS, beta=0).plan).max() < 1e-3
    with pytest.raises(UserError, match="made by --argmax and has no potential"):
        labelled(logits, out="more", like=tmp_path / "labels")


@pytest.mark.parametrize("method", ["mira", "sinkhorn"])
def test_rows_not_seen_are_labelled_at_the_potential(method: str, logits: str, labelled: Any, tmp_path: Path) -> None:
    labelled(logits, out="solved", method=method, temperature=2.0, tol=1e-6)
    new = LOGITS[:50] + 1
    np.save(tmp_path / "new.npy", new)
    labels, said = labelled(str(tmp_path / "new.npy"), out="new", like=tmp_path / "solved", soft="float32")
    if method == "mira":
        expected = ia.mira(LOGITS, temperature=2.0, tol=1e-6).assign_new(new)
    else:
        expected = ia.sinkhorn(LOGITS, epsilon=2 / 3, tol=1e-6).assign_new(new)
    assert np.abs(np.load(tmp_path / "new" / "plan.npy") - expected).max() < 1e-4
    assert (labels == expected.argmax(axis=1)).all()
    assert said["made"] == f"potential of {tmp_path / 'solved'}"
    np.save(tmp_path / "fewer.npy", new[:, :5])
    with pytest.raises(ValueError, match="scores for 5 labels, and the potential is of 12"):
        labelled(str(tmp_path / "fewer.npy"), out="x", like=tmp_path / "solved")


def test_a_label_that_nobody_might_use_stays_forbidden() -> None:
    scores = ia.StreamedScores(np.array([[0.0, 5.0]]))
    made = at_potential(scores, np.array([0.0, np.inf]), 1.0, 1.0)
    assert made.labels.tolist() == [0]
    with pytest.raises(ValueError, match="labels that no row might use"):
        at_potential(scores, np.array([np.inf, np.inf]), 1.0, 1.0)


def test_shares_are_honoured_and_balanced_labels_have_them(logits: str, labelled: Any, tmp_path: Path) -> None:
    labels, said = labelled(logits, method="sinkhorn", balanced=True)
    assert np.bincount(labels).tolist() == [50] * 12
    assert said["hard_labels"]["kind"] == "balanced"
    shares = np.arange(1, 13) / 78
    np.savetxt(tmp_path / "shares.txt", shares)
    given = {"method": "sinkhorn", "prior": str(tmp_path / "shares.txt")}
    labels, _ = labelled(logits, out="tail", balanced=True, **given)
    assert np.abs(np.bincount(labels) - 600 * shares).max() < 1
    for wrong, message in ((shares[:5], "expected 12 shares"), (shares * 2, "positive and sum to one")):
        np.savetxt(tmp_path / "shares.txt", wrong)
        with pytest.raises(UserError, match=message):
            labelled(logits, out="x", **given)


@pytest.mark.parametrize("metric", ["product", "cosine", "euclidean"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_features_are_scored_for_prototypes(metric: Any, dtype: Any, labelled: Any, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    features, prototypes = random.normal(size=(300, 6)).astype(dtype) + 1, random.normal(size=(5, 6)) + 1
    np.save(tmp_path / "f.npy", features)
    np.save(tmp_path / "p.npy", prototypes)
    labels, said = labelled(str(tmp_path / "f.npy"), prototypes=tmp_path / "p.npy", metric=metric, temperature=0.5)
    f, p = features.astype(float), prototypes
    if metric == "cosine":
        f, p = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (f, p))
    scores = -((f[:, None] - p) ** 2).sum(axis=2) if metric == "euclidean" else f @ p.T
    assert (labels == ia.mira(scores, temperature=0.5, tol=1e-4).labels).mean() > 0.99
    assert said["metric"] == metric
    # New rows need no prototypes to be named.
    again, _ = labelled(str(tmp_path / "f.npy"), out="again", like=tmp_path / "labels")
    assert (again == labels).mean() > 0.99


def test_more_clusters_than_rows_are_refused(labelled: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "few.npy", np.eye(4))
    with pytest.raises(UserError, match="--clusters 5 is more than the 4 rows"):
        labelled(str(tmp_path / "few.npy"), clusters=5)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("method", ["mira", "sinkhorn"])
def test_clusters_of_features_are_those_of_the_estimator(
    method: Any, metric: Any, labelled: Any, tmp_path: Path
) -> None:
    from sklearn.datasets import make_blobs

    from infoassign.estimator import InfoAssign

    features = make_blobs(400, n_features=4, centers=5, random_state=0)[0].astype(np.float32)
    np.save(tmp_path / "f.npy", features)
    labels, said = labelled(str(tmp_path / "f.npy"), clusters=5, method=method, metric=metric, soft="float32")
    model = InfoAssign(5, method=method, metric=metric, random_state=0).fit(features)
    assert (labels == model.labels_).all()
    assert np.abs(np.load(tmp_path / "labels" / "plan.npy") - model.transform(features)).max() < 1e-2
    assert said["clusters"]["rows"] == 400
    new, _ = labelled(str(tmp_path / "f.npy"), out="new", like=tmp_path / "labels")
    assert (new == labels).all()
    # On some of the rows the prototypes are about the same, and all rows are labelled.
    some, said = labelled(str(tmp_path / "f.npy"), out="some", clusters=5, method=method, metric=metric, sample=200)
    assert (len(some), said["clusters"]["rows"]) == (400, 200)


def test_images_are_labelled_by_a_run(finished_run: Any, labelled: Any, tmp_path: Path) -> None:
    """All together, where the method's own labels are those of a batch."""
    labels, said = labelled("digits", checkpoint=finished_run.folder, soft="float32", tol=1e-5)
    model = open_model(finished_run.folder / "checkpoint.pt")
    direct = model.method.label(digits()[0].images)
    assert direct is not None
    assert (labels == direct.labels.numpy()).mean() > 0.99
    assert np.abs(np.load(tmp_path / "labels" / "plan.npy") - direct.plan.numpy()).max() < 1e-2
    assert (said["model"]["recipe"], said["model"]["method"], said["input"]["images"]) == ("small", "mira", 1347)
    assert said["problem"]["epsilon"] == pytest.approx(1 / 3)
    with (tmp_path / "labels" / "labels.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["image", "label"]
    assert rows[5] == ["digits[4]", str(labels[4])]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels"]
    seen, said = labelled("digits", out="again", checkpoint=finished_run.folder, like=tmp_path / "labels")
    assert said["made"].startswith("potential of")
    assert (seen == labels).all()


def test_labels_of_a_run_can_be_learnt_by_another(finished_run: Any, labelled: Any, tmp_path: Path) -> None:
    labelled("digits", checkpoint=finished_run.folder)
    learning = methods.Transfer(heads=(12,), labels=str(tmp_path / "labels" / "labels.npy"))
    pipeline.pretrain("transfer", replace(with_method(SMALL, learning), epochs=1), tmp_path / "run")
    labels, said = labelled("digits", out="learnt", checkpoint=tmp_path / "run", argmax=True)
    assert said["model"]["method"] == "transfer"
    assert labels.max() < 12
    with pytest.raises(UserError, match="made by another model"):
        labelled("digits", out="x", checkpoint=tmp_path / "run", like=tmp_path / "labels")


def untrained(settings: Pretraining, run: Path, images: int) -> Path:
    """Write a run with initial weights."""
    run.mkdir()
    method = build(settings, images=images, classes=0)
    Started("recipe", settings, {}).write(run / "settings.json")
    checkpoint.save(Run(run).checkpoint, checkpoint.Checkpoint(0, method.state_dict(), {}, {}, {}))
    return run


def image_run(folder: Path, method: Any) -> Path:
    """Write a run with initial weights that takes pictures."""
    views = augmentations.Swav(global_size=16, local_views=0) if method.projects else augmentations.Sela(global_size=16)
    settings = replace(
        with_method(SMALL, method),
        data=Folder(root="gone"),
        augmentation=views,
        encoder=ResNet(name="resnet18", cifar_stem=True),
    )
    return untrained(settings, folder, images=50)


@pytest.mark.parametrize("method", [methods.Swav(prototypes=6, queue=0), methods.Sela(heads=(6, 4))])
def test_a_folder_of_images_is_scaled_cut_and_labelled(method: Any, labelled: Any, tmp_path: Path) -> None:
    for number in range(7):
        write_image(tmp_path / "pictures" / f"{number}.png", seed=number, height=20, width=30)
    run = image_run(tmp_path / "run", method)
    labels, said = labelled(str(tmp_path / "pictures"), checkpoint=run, batch_size=3, balanced=True)
    assert np.ptp(np.bincount(labels, minlength=6)) == 1
    assert said["problem"]["method"] == "sinkhorn"
    listed = (tmp_path / "labels" / "labels.csv").read_text().splitlines()
    assert listed[1] == f"0.png,{labels[0]}"
    with pytest.raises(UserError, match="takes no digits"):
        labelled("digits", out="x", checkpoint=run)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.deep)])
def test_an_image_that_is_broken_is_named_and_nothing_is_written(workers: int, labelled: Any, tmp_path: Path) -> None:
    write_image(tmp_path / "pictures" / "good.png", seed=0)
    (tmp_path / "pictures" / "bad.png").write_text("no image")
    run = image_run(tmp_path / "run", methods.Sela(heads=(6, 4)))
    with pytest.raises(UserError, match=r"^/.*/bad\.png cannot be decoded"):
        labelled(str(tmp_path / "pictures"), checkpoint=run, workers=workers)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures", "run"]


def test_models_without_labels_are_refused(labelled: Any, tmp_path: Path, finished_run: Any) -> None:
    settings = with_method(SMALL, methods.Vicreg())
    run = untrained(settings, tmp_path / "run", images=1)
    with pytest.raises(UserError, match="trained by vicreg, which makes no labels"):
        labelled("digits", checkpoint=run)
    with pytest.raises(UserError, match="takes the digits alone"):
        labelled("folder:.", checkpoint=finished_run.folder)
    with pytest.raises(UserError, match="holds no run"):
        labelled("digits", checkpoint=tmp_path / "nowhere")
    (run / "checkpoint.pt").unlink()
    with pytest.raises(UserError, match="there is no checkpoint"):
        labelled("digits", checkpoint=run)


def test_bad_files_are_named_and_nothing_is_written(tmp_path: Path, labelled: Any) -> None:
    with_nan = LOGITS.copy()
    with_nan[17, 3] = np.nan
    np.save(tmp_path / "nan.npy", with_nan)
    np.save(tmp_path / "good.npy", LOGITS)
    np.save(tmp_path / "integers.npy", np.arange(6).reshape(2, 3))
    np.save(tmp_path / "vector.npy", LOGITS[0])
    whole = (tmp_path / "good.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-100])
    (tmp_path / "text.npy").write_text("no")
    (tmp_path / "scores.csv").write_text("1,2")
    save_file({"x": torch.zeros(9, 3)}, tmp_path / "cut.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:-5])
    before = sorted(path.name for path in tmp_path.iterdir())
    cases: list[tuple[str, str, dict[str, Any]]] = [
        ("nan.npy", "nan at row 17, column 3", {}),
        ("nan.npy", "row 17 holds NaN or infinity", {"clusters": 3}),
        ("integers.npy", "expected real floating numbers; got int64", {}),
        ("vector.npy", r"expected a matrix with a row for every sample; got shape \(12,\)", {}),
        ("cut.npy", "was cut off", {}),
        ("text.npy", "no .npy file", {}),
        ("cut.safetensors", "was cut off", {}),
        ("scores.csv", "expected a file .npy or .safetensors", {}),
        ("nowhere.npy", "is not there", {}),
        ("good.npy", "one array, which has no name", {"tensor": "x"}),
        ("good.npy", "features have 12 columns and prototypes 3", {"prototypes": tmp_path / "p.npy"}),
    ]
    for name, message, options in cases:
        np.save(tmp_path / "p.npy", np.ones((4, 3)))
        with pytest.raises((UserError, ValueError), match=message):
            labelled(str(tmp_path / name), **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "p.npy"])


def test_a_full_disk_leaves_what_was_there(
    logits: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labelled: Any
) -> None:
    labels, _ = labelled(logits, argmax=True)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        labelled(logits, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels", "logits.npy"]
    assert (np.load(tmp_path / "labels" / "labels.npy")[0] == labels).all()


def test_overwriting_takes_nothing_that_is_not_labels(logits: str, tmp_path: Path, labelled: Any) -> None:
    labelled(logits, soft="float32")
    with pytest.raises(UserError, match=r"plan\.npy lies in .*labels, which is to be replaced"):
        labelled(str(tmp_path / "labels" / "plan.npy"), overwrite=True)
    (tmp_path / "labels" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"no labels \(thesis\.txt\)"):
        labelled(logits, overwrite=True)
    assert (tmp_path / "labels" / "thesis.txt").read_text() == "mine"


def test_labels_that_cannot_take_their_place_leave_the_earlier_ones(tmp_path: Path) -> None:
    """The disk is full, or the process interrupted, between the two renames."""
    out = tmp_path / "out"
    with appearing(out) as folder:
        (folder / "a").write_text("before")
    original, calls = Path.rename, []

    def rename(self: Path, target: Any) -> Path:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return original(self, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(OSError, match="No space"), appearing(out) as folder:
            (folder / "a").write_text("after")
    assert (out / "a").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_link_to_a_folder_stays_one(logits: str, tmp_path: Path, labelled: Any) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "labels").symlink_to(tmp_path / "far")
    labelled(logits)
    assert (tmp_path / "labels").is_symlink()
    assert (tmp_path / "far" / "labels.npy").exists()


def test_a_potential_is_of_scores_of_its_kind(logits: str, tmp_path: Path, labelled: Any) -> None:
    features = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    np.save(tmp_path / "f.npy", features)
    columns = np.load(logits).shape[1]
    labelled(str(tmp_path / "f.npy"), out="earlier", clusters=columns)
    (tmp_path / "earlier" / "prototypes.npy").unlink()
    with pytest.raises(UserError, match="was made of features, and these are scores"):
        labelled(logits, like=tmp_path / "earlier")


def test_a_certificate_by_an_earlier_potential_says_what_that_was_worth(
    logits: str, tmp_path: Path, labelled: Any
) -> None:
    _, before = labelled(logits, out="earlier", max_sweeps=1, tol=1e-9)
    assert before["status"] == "max_sweeps"
    _, said = labelled(logits, like=tmp_path / "earlier")
    assert said["earlier"]["status"] == "max_sweeps"
    assert len(said["earlier"]["potential"]["sha256"]) == 64
    assert "max_sweeps" in table(said)


def test_half_precision_is_not_rounded_again(tmp_path: Path, labelled: Any) -> None:
    cosines = np.random.default_rng(0).uniform(-1, 1, size=(400, 50)).astype(np.float16)
    np.save(tmp_path / "half.npy", cosines)
    np.save(tmp_path / "single.npy", cosines.astype(np.float32))
    likeliest, _ = labelled(str(tmp_path / "half.npy"), out="a", argmax=True, temperature=1e-5)
    assert (likeliest == cosines.argmax(axis=1)).all()
    labelled(str(tmp_path / "half.npy"), out="b", temperature=0.07)
    ours, theirs = (
        labelled(str(tmp_path / f"{name}.npy"), out=name, like=tmp_path / "b", soft="float64")
        for name in ("half", "single")
    )
    assert (ours[0] == theirs[0]).all()


def test_what_cannot_be_done_is_said_before_images_are_looked_at(
    finished_run: Any, labelled: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="--prior"):
        labelled("digits", checkpoint=finished_run.folder, prior=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="holds no labels"):
        labelled("digits", checkpoint=finished_run.folder, like=tmp_path / "nowhere")
    assert "images" not in capsys.readouterr().err


def test_numbers_that_numpy_does_not_have_are_refused(tmp_path: Path, labelled: Any) -> None:
    save_file({"a": torch.zeros(4, 3).to(torch.float8_e4m3fn)}, tmp_path / "f8.safetensors")
    save_file({"a": torch.zeros(())}, tmp_path / "one.safetensors")
    np.save(tmp_path / "long.npy", np.zeros((4, 3), dtype=np.longdouble))
    for name, said in (("f8.safetensors", "real floating"), ("one.safetensors", "matrix"), ("long.npy", "64 bits")):
        with pytest.raises(UserError, match=said):
            labelled(str(tmp_path / name))


def test_prototypes_beside_other_tensors_and_rows_without_direction_are_told(tmp_path: Path, labelled: Any) -> None:
    features = np.ones((300, 3), dtype=np.float32)
    features[250] = 0
    np.save(tmp_path / "f.npy", features)
    save_file({"a": torch.ones(2, 3), "b": torch.ones(2, 3)}, tmp_path / "two.safetensors")
    with pytest.raises(UserError, match="prototypes alone"):
        labelled(str(tmp_path / "f.npy"), prototypes=tmp_path / "two.safetensors")
    with pytest.raises(UserError, match="row 250 is zero"):
        labelled(str(tmp_path / "f.npy"), clusters=2, metric="cosine", sample=100)


def test_labels_are_overwritten_only_when_asked(logits: str, tmp_path: Path, labelled: Any) -> None:
    labelled(logits, soft="float32")
    with pytest.raises(UserError, match="already holds labels"):
        labelled(logits)
    _, said = labelled(logits, argmax=True, overwrite=True)
    assert said["made"] == "argmax"
    assert not (tmp_path / "labels" / "plan.npy").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds files that are no labels"):
        labelled(logits, out="mine", overwrite=True)
    with pytest.raises(UserError, match="is a file"):
        labelled(logits, out="logits.npy", overwrite=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": 3, "prototypes": Path("p")}, "--prototypes and --clusters exclude each other"),
        ({"argmax": True, "like": Path("p")}, "--argmax and --like exclude each other"),
        ({"argmax": True, "balanced": True}, "--balanced is of no use with --argmax"),
        ({"like": Path("p"), "temperature": 2.0}, "--temperature is of no use with --like"),
        ({"clusters": 3, "temperature": 2.0}, "--temperature is of no use with --clusters"),
        ({"clusters": 3, "metric": "product"}, "--metric product is of no use"),
        ({"clusters": 0}, "--clusters must be at least 1"),
        ({"metric": "cosine"}, "--metric is of no use without"),
        ({"workers": 2}, "--workers is of no use without --checkpoint"),
        ({"seed": 2}, "--seed is of no use without --clusters"),
        ({"checkpoint": Path("p"), "tensor": "x"}, "--tensor is of no use with --checkpoint"),
        ({"method": "sinkhorn", "beta": 0.5}, "--beta is for --method mira"),
        ({"clusters": 3, "method": "sinkhorn", "beta": 0.5}, "--beta is for --method mira"),
        ({"epsilon": 0.5}, "--epsilon is for --method sinkhorn"),
        ({"beta": 1.0}, r"--beta must be in \[0, 1\)"),
        ({"temperature": 0.0}, "--temperature must be positive"),
        ({"tol": 0.0}, "--tol must be positive"),
        ({"prior": "none"}, "--prior none: expected uniform, or a file with 12 shares"),
    ],
)
def test_options_that_do_not_go_together_are_named(
    options: dict[str, Any], message: str, logits: str, labelled: Any
) -> None:
    with pytest.raises(UserError, match=message):
        labelled(logits, **options)


def test_the_command_prints_the_certificate(logits: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "labels")
    assert run(["label", logits, "--out", out, "--method", "sinkhorn", "--balanced"]) == 0
    printed = capsys.readouterr()
    for shown in (
        "made                solved",
        "status              converged",
        "balanced; 12 in use, 50 to 50 rows each",
    ):
        assert shown in printed.out
    assert "The certified error is within tol." in printed.out
    assert f"Labels: {out}/labels.npy" in printed.out
    assert "solve" in printed.err
    assert run(["label", logits, "--out", out, "--overwrite", "--max-sweeps", "1"]) == 0
    assert "raise max_sweeps, or tol" in capsys.readouterr().out
    assert run(["label", logits, "--out", out]) == 1
    assert "already holds labels" in capsys.readouterr().err
    broken = LOGITS.copy()
    broken[2] = -np.inf
    np.save(tmp_path / "broken.npy", broken)
    assert run(["label", str(tmp_path / "broken.npy"), "--out", f"{out}2"]) == 1
    assert "broken.npy: row 2 of scores is all -inf" in capsys.readouterr().err


def test_the_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["label", "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for word in ("--clusters", "--checkpoint", "--like", "--balanced", "--bounds"):
        assert word in shown
