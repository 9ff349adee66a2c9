"""The papers' figures: their numbers, their pictures, and the command."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from digit_runs import SMALL, with_method
from torch import nn

import infoassign as ia
from infoassign.steps import plain, quasi_newton
from infoassign_training import pipeline
from infoassign_training.cli import run
from infoassign_training.config import Pretraining
from infoassign_training.data.augmentations import Dino
from infoassign_training.data.digits import digits
from infoassign_training.data.settings import Synthetic
from infoassign_training.data.views import normalised
from infoassign_training.engine.run import Run
from infoassign_training.figures import clusters, convergence, course, filters, gradcam, segments
from infoassign_training.figures.convergence import Compared, Convergence
from infoassign_training.figures.options import FIGURES
from infoassign_training.figures.saving import save
from infoassign_training.figures.subject import Subject
from infoassign_training.methods.build import build
from infoassign_training.methods.finished import Model
from infoassign_training.methods.settings import Imsvd
from infoassign_training.models.settings import Projector, ResNet

RANDOM = np.random.default_rng(0)
COSINES = np.tanh(RANDOM.normal(size=(96, 6)))
SHORT = Convergence(batch_size=64, batches=3, updates=30)


@pytest.fixture(scope="module")
def compared() -> Compared:
    """Both methods on a few small batches."""
    return convergence.compare(COSINES, SHORT)


@pytest.mark.parametrize("updates", [1, 4])
def test_paths_are_those_of_the_library(updates: int) -> None:
    def last(epsilon: float, strength: float, step: Any) -> Any:
        return convergence.potentials(COSINES, epsilon, strength, step, updates)[-1]

    fixed: dict[str, Any] = {"tol": 0, "acceleration": None}
    mira = ia.mira(COSINES, beta=0.5, max_sweeps=updates + 1, **fixed)
    assert np.allclose(last(0.5, 0.5, plain), mira.potential, atol=1e-12)
    swav = ia.sinkhorn(COSINES, epsilon=0.1, start="columns", max_sweeps=updates, **fixed)
    assert np.allclose(last(0.1, np.inf, plain), swav.potential, atol=1e-12)
    fast = ia.sinkhorn(COSINES, epsilon=0.1, tol=0, max_sweeps=updates + 1)
    assert np.allclose(last(0.1, np.inf, quasi_newton), fast.potential, atol=1e-12)


def test_errors_start_at_the_softmax_and_vanish(compared: Compared) -> None:
    assert all(known.converged == 1 and known.error <= 1e-12 for known in compared.known.values())
    assert [curve.name for curve in compared.curves] == [
        f"{method}, {kind}" for method in ("MIRA", "Sinkhorn") for kind in ("plain", "accelerated")
    ]
    for curve in compared.curves:
        assert len(curve.sse) == SHORT.updates + 1
        assert curve.sse[0] > 1e3 * curve.sse[-1]
    for slow, fast in (compared.curves[:2], compared.curves[2:]):
        assert slow.sse[0] == fast.sse[0]
        assert fast.sse[-1] < 1e-18
    # The modulus of eq. 7 is beta or better.
    rate = compared.curves[0].rate
    assert rate is not None
    assert rate <= SHORT.beta


def test_rates_are_those_of_the_linearised_updates() -> None:
    """Near the solution Sinkhorn's factor is the plan's second squared singular value, MIRA's beta times its own."""
    # One direction, so that one value stands out.
    scores = np.tanh(np.outer(RANDOM.normal(size=96), np.linspace(-1, 1.5, 6)) + 0.1 * RANDOM.normal(size=(96, 6)))
    whole = Convergence(batch_size=96, batches=1, updates=60, beta=0.8, temperature=0.5, epsilon=0.25)
    found = {curve.method: curve.rate for curve in convergence.compare(scores, whole).curves if not curve.accelerated}
    plans = {
        "MIRA": ia.mira(scores, beta=0.8, temperature=0.5, tol=1e-12).plan,
        "Sinkhorn": ia.sinkhorn(scores, epsilon=0.25, tol=1e-12).plan,
    }
    for method, damping in (("MIRA", 0.8), ("Sinkhorn", 1.0)):
        plan = plans[method]
        second = np.linalg.svd(plan / np.sqrt(plan.sum(axis=0)), compute_uv=False)[1] ** 2
        assert found[method] == pytest.approx(damping * second, rel=0.02)


def test_one_batch_of_all_rows_is_the_difference_to_the_solution() -> None:
    whole = Convergence(batch_size=96, batches=1, updates=30, beta=0.8, temperature=0.3)
    found = convergence.compare(COSINES, whole).curves[0]
    exact = ia.mira(COSINES, beta=0.8, temperature=0.3, tol=1e-12).plan
    third = ia.mira(COSINES, beta=0.8, temperature=0.3, tol=0, max_sweeps=4, acceleration=None).plan
    assert found.sse[3] == pytest.approx(((third - exact) ** 2).sum(), rel=1e-6)
    assert found.total_variation[3] == pytest.approx(np.abs(third - exact).sum() / 192, rel=1e-6)
    assert found.changed[3] == np.mean(third.argmax(axis=1) != exact.argmax(axis=1))


def test_who_is_faster_is_said(compared: Compared) -> None:
    said = json.loads(json.dumps(compared.to_dict()))
    assert said["mira_converges_faster"] is compared.faster is True
    assert said["curves"][0]["after"].keys() == {"1", "3", "10", "30"}
    assert said["curves"][0]["updates_to_sse"]["1e-06"] < 30


def test_few_rows_and_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="at least batch_size = 512 rows"):
        convergence.compare(COSINES, Convergence())
    with pytest.raises(ValueError, match=r"beta must be in \(0, 1\)"):
        Convergence(beta=1.0)


def test_pictures_have_labelled_axes(compared: Compared) -> None:
    for axes in convergence.draw(compared).axes:
        assert axes.get_xlabel()
        assert axes.get_ylabel()
        assert len(axes.lines) == 4


def test_a_figure_is_written_as_two_pictures_and_numbers(compared: Compared, tmp_path: Path) -> None:
    png, svg, numbers = save(tmp_path / "new" / "folder", "some", convergence.draw(compared), {"one": 1})
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in svg.read_text()
    assert json.loads(numbers.read_text()) == {"one": 1}


def test_scores_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "scores.npy", tmp_path / "drawn"
    np.save(file, COSINES)
    words = ["figures", "convergence", "--scores", str(file), "--batch-size", "64", "--batches", "2"]
    assert run(words) == 1
    assert "say with --out" in capsys.readouterr().err
    assert run([*words, "--out", str(out), "--epsilon", "0.1"]) == 0
    assert {path.name for path in out.iterdir()} == {f"convergence.{ending}" for ending in ("png", "svg", "json")}
    assert json.loads((out / "convergence.json").read_text())["settings"]["epsilon"] == 0.1
    assert str(out / "convergence.svg") in capsys.readouterr().out


def test_wrong_words_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["figures"]) == 0
    assert "convergence" in capsys.readouterr().out
    for words, said in (
        (["convergance"], "did you mean 'convergence'?"),
        (["convergence"], "--run RUN, or for convergence --scores FILE.npy"),
        (["convergence", "--run", str(tmp_path)], "holds no run"),
    ):
        assert run(["figures", *words]) == 1
        assert said in capsys.readouterr().err


def codes(number: int, size: int, sharpness: float) -> Any:
    """Return soft codes of three segments."""
    return ia.soft_discretize(RANDOM.normal(size=(number, 3 * size)) * sharpness, size)


def test_equal_views_that_are_one_hot_have_their_mass_on_the_diagonal() -> None:
    hard = np.eye(4)[RANDOM.integers(4, size=(500, 3))].reshape(500, 12)
    found = segments.joint(hard, hard, 4)
    assert found.outside == pytest.approx(0, abs=1e-12)
    assert found.matrix.shape == (12, 12)
    assert 0 < found.information < 0.05
    assert segments.joint(hard[:, :8], hard[:, [*range(4)] * 2], 4).information > 0.5
    same = segments.hardness(hard, hard, 4)
    assert same.above == {0.9: 1, 0.99: 1}
    assert same.agree == 1


def test_soft_codes_are_neither(tmp_path: Path) -> None:
    first, second = codes(200, 5, 1.0), codes(200, 5, 1.0)
    found = segments.joint(first, second, 5)
    assert found.outside > 0.5
    assert found.outside == pytest.approx(1 - 5 / 15 * float(np.einsum("ni,ni->", first, second)) / 200)
    assert found.to_dict()["diagonal"]["ideal"] == 0.2
    hardness = segments.hardness(first, second, 5)
    assert hardness.share.sum() == pytest.approx(1)
    assert hardness.above[0.99] <= hardness.above[0.9] < 0.2
    for figure in (segments.draw_joint(found), segments.draw_hardness(hardness)):
        assert figure.axes[0].get_ylabel()
        assert figure.axes[-1].get_ylabel()
    views = RANDOM.random((2, 2, 8, 8, 3))
    panels = np.reshape(segments.draw_vectors(views, first[:2], second[:2], 5).axes, (2, 3))
    for image, row in enumerate(panels):
        assert row[2].get_ylabel() == "probability"
        for view in (0, 1):
            assert np.array_equal(row[view].images[0].get_array(), views[view, image])
    assert [axes.get_xlabel() for axes in panels[-1]] == [
        "first view",
        "second view",
        "unit (lines between segments of 5)",
    ]


def test_samples_are_the_likeliest_images_of_units() -> None:
    some = codes(50, 4, 2.0)
    found = segments.samples(some, 4, segments=[2], units=3, number=5)
    assert found.units == (8, 9, 10)
    assert found.rows[1, 0] == some[:, 9].argmax()
    assert (np.diff(found.probability, axis=1) <= 0).all()
    assert found.shares[0] == pytest.approx(some[:, 8].mean())
    with pytest.raises(ValueError, match="numbered from 0 to 2"):
        segments.samples(some, 4, segments=[3])


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run of IMSVD."""
    folder = tmp_path_factory.mktemp("runs") / "imsvd"
    settings = with_method(SMALL, Imsvd(units=4))
    pipeline.pretrain("small", settings, folder)
    return folder


def test_figures_of_a_run_with_segments(segmented: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["joint-distribution", "one-hot", "two-views", "unit-samples", "grad-cam"]
    assert run(["figures", *names, "--run", str(segmented), "--images", "300"]) == 0
    written = {path.name for path in (segmented / "figures").iterdir()}
    assert written == {f"{name}.{ending}" for name in names for ending in ("png", "svg", "json")}
    assert json.loads((segmented / "figures" / "unit-samples.json").read_text())["units_of_a_segment"] == 4
    # The report has them, and starting anew deletes them.
    pipeline.report(segmented)
    page = (segmented / "report.html").read_text()
    assert page.count("<h3>") == 2 + len(names)
    assert "How near segments are to one-hot" in page
    assert {segmented / "figures" / name for name in written} <= set(Run(segmented).written)
    views = json.loads((segmented / "figures" / "two-views.json").read_text())
    assert np.shape(views["first"]) == np.shape(views["second"]) == (3, 8)
    capsys.readouterr()
    assert run(["figures", "convergence", "--run", str(segmented)]) == 1
    assert "imsvd, which makes no labels" in capsys.readouterr().err
    assert run(["figures", "unit-samples", "--run", str(segmented), "--segments", "9"]) == 1
    assert "numbered from 0 to 1" in capsys.readouterr().err


def test_all_figures_of_a_run_are_those_that_can_be_made(
    segmented: Path, finished_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_segments = {"joint-distribution", "one-hot", "two-views", "unit-samples", "grad-cam"}
    made = {segmented: of_segments | {"filters"}, finished_run.folder: FIGURES.keys() - of_segments}
    for number, (folder, expected) in enumerate(made.items()):
        out = tmp_path / str(number)
        few = ["--batch-size", "64", "--batches", "2", "--out", str(out)]
        assert run(["figures", "all", "--run", str(folder), *few]) == 0
        assert {path.stem for path in out.iterdir()} == expected
        said = capsys.readouterr().out
        # Every other one is left out, with the reason.
        assert {line.split()[2] for line in said.splitlines() if "left out" in line} == {
            f"{name}:" for name in FIGURES.keys() - expected
        }
    assert "one-hot: " in said
    assert "mira, which has no segments" in said


def test_what_goes_wrong_for_all_figures_is_no_reason_to_leave_them_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["figures", "all", "--run", str(tmp_path)]) == 1
    assert "holds no run" in capsys.readouterr().err


def test_the_views_are_those_that_were_coded(segmented: Path) -> None:
    subject = Subject(segmented, most=300, device=torch.device("cpu"))
    for codes, pictures in zip(subject.two_views.codes, subject.two_views.pictures, strict=True):
        assert codes.shape == (300, 8)
        assert pictures.shape == (3, 8, 8, 3)
        # The noise that leaves [0, 1] is cut off in the pictures, and says little.
        grey = torch.from_numpy(pictures[..., 0])[:, None]
        again = ia.soft_discretize(subject.network(grey).detach(), 4, subject.model.settings.method.temperature)
        assert np.abs(again.numpy() - codes[:3]).max() < 0.1
    # Each is a view of its own.
    assert not np.allclose(subject.two_views.pictures[0], subject.two_views.pictures[1])


def test_views_in_colour_are_shown_as_they_were_before_normalisation() -> None:
    settings = Pretraining(
        batch_size=64,
        data=Synthetic(count=20, size=16),
        augmentation=Dino(global_size=16),
        encoder=ResNet(),
        projector=Projector(hidden=(16,), projection=8),
        method=Imsvd(units=4),
        device="cpu",
    )
    subject = Subject(Path(), most=12, device=torch.device("cpu"))
    subject.model = Model(Path(), "some", settings, build(settings, images=20, classes=0).eval(), 0)
    for codes, pictures in zip(subject.two_views.codes, subject.two_views.pictures, strict=True):
        assert codes.shape == (12, 8)
        views = normalised(torch.from_numpy(pictures).permute(0, 3, 1, 2), Dino(global_size=16))
        again = ia.soft_discretize(subject.network(views).detach(), 4, settings.method.temperature)
        assert np.allclose(again.numpy(), codes[:3], atol=1e-4)


def test_other_images_than_the_run_s(segmented: Path, finished_run: Any, tmp_path: Path) -> None:
    held_out = digits()[1]
    names = ["cluster-entropy", "filters"]
    words = ["--run", str(finished_run.folder), "--out", str(tmp_path), "--data", "digits"]
    assert run(["figures", *names, *words]) == 0
    said = json.loads((tmp_path / "cluster-entropy.json").read_text())
    assert sum(said["sizes"]) == len(held_out.images)
    assert said["entropy_of_the_classes_nats"] == pytest.approx(
        float(ia.entropy(np.bincount(held_out.classes.numpy()) / len(held_out.images)))
    )
    assert run(["figures", "one-hot", "--run", str(segmented), "--out", str(tmp_path), "--data", "digits"]) == 0
    subject = Subject(segmented, most=20_000, device=torch.device("cpu"), data="digits")
    assert subject.two_views.codes[0].shape == (450, 8)


LINES = [
    {"epoch": 1, "agreement": 0.1, "pseudo_label_nmi": 0.2, "pseudo_label_purity": 0.3},
    {"epoch": 2, "agreement": 0.2},
    {"epoch": 3, "agreement": 0.3, "pseudo_label_change": 0.5, "pseudo_label_nmi_before": 0.4},
]


def test_the_course_is_drawn_where_there_is_something_to_compare() -> None:
    found = course.course(LINES)
    assert found.curves["agreement"] == ([1, 2, 3], [0.1, 0.2, 0.3])
    assert found.curves["pseudo_label_change"] == ([3], [0.5])
    axes = course.draw(found).axes
    assert [len(one.lines) for one in axes] == [2, 2, 1]
    assert all(one.get_xlabel() == "epoch" and one.get_ylabel() for one in axes)
    # Without classes there is nothing to compare with them.
    unknown = [{name: value for name, value in line.items() if name[13:] not in ("nmi", "purity")} for line in LINES]
    assert [one.get_title("left") for one in course.draw(course.course(unknown)).axes] == [
        "Labels and the labels before",
        "Labels and the network's predictions",
    ]
    with pytest.raises(ValueError, match="compares no labels"):
        course.course([{"epoch": 1, "agreement": 0.1}])


def test_figures_of_segments_need_segments(finished_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["figures", "one-hot", "--run", str(finished_run.folder), "--out", "nowhere"]) == 1
    assert "mira, which has no segments" in capsys.readouterr().err
    assert not Path("nowhere").exists()


LABELS = np.repeat([7, 2, 4, 9], [20, 20, 20, 3])
CLASSES = np.concatenate([np.zeros(20), np.arange(20) % 2, np.arange(20) % 4, np.zeros(3)]).astype(np.int64)


def test_entropies_of_clusters() -> None:
    found = clusters.entropies(LABELS, CLASSES)
    assert found.clusters.tolist() == [2, 4, 7, 9]
    assert found.entropy == pytest.approx(np.log([2, 4, 1, 1]))
    assert found.mean == pytest.approx(20 / 63 * np.log(8))
    # The information is that of the classes less what the clusters leave open.
    labels = -sum(share * np.log(share) for share in (20 / 63, 20 / 63, 20 / 63, 3 / 63))
    assert found.nmi == pytest.approx((found.overall - found.mean) / ((found.overall + labels) / 2))
    for axes in clusters.draw_entropies(found).axes:
        assert "nats" in axes.get_xlabel()
        assert axes.get_ylabel()


def test_pure_clusters_are_large_enough_and_framed_by_class() -> None:
    found = clusters.choose(LABELS, CLASSES, lowest=True, seed=0, number=2)
    assert found.clusters.tolist() == [7, 2]
    assert (LABELS[found.rows] == [[7], [2]]).all()
    assert (CLASSES[found.rows] == found.classes).all()
    assert sorted(clusters.choose(LABELS, CLASSES, lowest=False, seed=1).clusters.tolist()) == [2, 4, 7]
    black = np.zeros((2, 9, 12, 12, 3), dtype=np.float32)
    figure = clusters.draw_chosen(found, black, tuple("abcd"), "words")
    sheet = figure.axes[0].images[0].get_array()
    assert sheet is not None
    assert np.allclose(sheet[0, 0], clusters.colour_of(0, 4)[:3])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    with pytest.raises(ValueError, match="no cluster has 9 images"):
        clusters.choose(LABELS[:5], CLASSES[:5], lowest=True, seed=0)


def test_filters_are_scaled_each() -> None:
    weights = RANDOM.normal(size=(4, 2, 3, 3)).astype(np.float32)
    weights[0] = 5
    scaled = filters.scaled(weights)
    assert scaled.shape == (4, 3, 3, 3)
    assert (scaled[0] == 0).all()
    assert scaled[1:].min(axis=(1, 2, 3)).tolist() == [0] * 3
    assert scaled[1:].max(axis=(1, 2, 3)).tolist() == [1] * 3
    assert "4 filters of conv1, 2 x 3 x 3" in filters.draw(filters.Filters("conv1", weights)).axes[0].get_title("left")


def test_figures_of_a_run_with_labels(finished_run: Any, tmp_path: Path) -> None:
    names = ["convergence", "cluster-entropy", "pure-clusters", "random-clusters", "filters"]
    few = ["--batch-size", "64", "--batches", "2"]
    assert run(["figures", *names, "--run", str(finished_run.folder), "--out", str(tmp_path), *few]) == 0
    assert {path.stem for path in tmp_path.iterdir()} == set(names)
    said = json.loads((tmp_path / "convergence.json").read_text())
    assert said["labels"] == 12
    assert sum(json.loads((tmp_path / "cluster-entropy.json").read_text())["sizes"]) == 1347


def test_heat_of_a_unit_that_is_a_mean_of_maps() -> None:
    """A unit that is the mean of a map has that map, where it is positive, as its heat."""
    convolution = nn.Conv2d(1, 2, 3, padding=1)
    network = nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    images = torch.randn(3, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    name, layer = gradcam.layer_of(network, images)
    assert (name, layer) == ("0", convolution)
    found = gradcam.heat(network, layer, images, 1)
    expected = convolution(images)[:, 1].relu().detach()
    expected /= expected.amax(dim=(1, 2), keepdim=True)
    assert np.allclose(found, expected.numpy(), atol=1e-6)
    # Nothing is left behind in the network.
    assert not layer._forward_hooks
    assert all(parameter.grad is None for parameter in network.parameters())
    maps = gradcam.Maps(1, name, np.arange(3), np.ones(3, np.float32), found)
    assert len(gradcam.draw(maps, np.zeros((3, 6, 6, 3), np.float32)).axes) == 7


def test_maps_are_weighed_by_finite_differences() -> None:
    """A map's weight is what the unit gains if the whole map is raised a little, also before a ReLU in its place."""
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        rest = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 5))
        convolution = nn.Conv2d(1, 3, 3, padding=1)
    network = nn.Sequential(convolution, rest, nn.Softmax(dim=1)).double().eval()
    images = torch.randn(2, 1, 6, 6, generator=generator, dtype=torch.float64)
    unit, step = 2, 1e-6
    with torch.no_grad():
        maps = convolution(images)
        gains = []
        for raised in step * torch.eye(3, dtype=torch.float64)[:, :, None, None]:
            up, down = (network[1:](maps + sign * raised)[:, unit] for sign in (1, -1))
            gains.append((up - down) / (2 * step))
        expected = (torch.stack(gains, dim=1)[:, :, None, None] / 36 * maps).sum(dim=1).relu()
        expected /= expected.amax(dim=(1, 2), keepdim=True)
    assert np.allclose(gradcam.heat(network, convolution, images, unit), expected.numpy(), atol=1e-6)


def test_layers_without_maps_are_refused() -> None:
    images = torch.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match="makes no maps"):
        gradcam.layer_of(nn.Sequential(nn.Flatten()), images)
    with pytest.raises(ValueError, match="no layer 'conv9' makes maps; there are 0"):
        gradcam.layer_of(nn.Sequential(nn.Conv2d(1, 1, 1)), images, "conv9")
