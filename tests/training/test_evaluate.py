"""Every protocol from a checkpoint and files on disk to a file of results, in one process."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import digit_runs
import image_files
import numpy as np
import pytest
import torch
import torchvision
from evaluations import DATA, SMALL, checkpoint_of, evaluated, on
from sklearn.decomposition import PCA

from infoassign_training import pipeline
from infoassign_training.cli import run
from infoassign_training.data.benchmark_layouts import TRANSFER
from infoassign_training.data.benchmarks import open_benchmark
from infoassign_training.data.digits import digits
from infoassign_training.data.images import ArrayImages
from infoassign_training.errors import UserError
from infoassign_training.evaluation import results
from infoassign_training.evaluation import run as evaluating
from infoassign_training.evaluation.clusters import agreement
from infoassign_training.evaluation.metrics import top
from infoassign_training.evaluation.presets import PROTOCOLS
from infoassign_training.evaluation.protocols import principal
from infoassign_training.evaluation.run import evaluate
from infoassign_training.evaluation.settings import Clusters, Knn, Linear, Logistic
from infoassign_training.methods import settings as methods
from infoassign_training.methods.finished import open_model
from infoassign_training.methods.method import Parts
from infoassign_training.models.alexnet import AlexNet


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of a residual network and of an AlexNet, neither trained."""
    return checkpoint_of(tmp_path_factory.mktemp("weights"))


@pytest.mark.parametrize("protocol", SMALL)
def test_every_protocol_runs_end_to_end(
    protocol: str, weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = DATA[protocol]
    root = tmp_path / "data"
    root.mkdir()
    image_files.lay_out(name, root, monkeypatch)
    found = evaluated(protocol, weights, f"{name}:{root}", tmp_path / "out")
    assert all(0 <= value <= 1 for value in found.results.values())
    (path,) = (tmp_path / "out").glob("*.json")
    saved = json.loads(path.read_text())
    assert saved["results"] == dict(found.results)
    assert saved["checkpoint"]["sha256"] == results.read(path)["checkpoint"]["sha256"]
    assert len(saved["checkpoint"]["sha256"]) == len(saved["protocol_sha256"]) == 64
    assert saved["seed"] == 0
    assert protocol in (tmp_path / "out" / results.TABLE).read_text()


@pytest.mark.parametrize("name", TRANSFER)
def test_the_transfer_sets_are_scored_by_their_own_metrics(
    name: str, weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_files.lay_out(name, tmp_path, monkeypatch, **({"per_batch": 20} if name == "cifar100" else {}))
    found = evaluated("transfer", weights, f"{name}:{tmp_path}", tmp_path / "out")
    metric = {"voc2007": "11-point-map"}.get(name, "mean-per-class")
    top_1 = ("cars", "cifar10", "cifar100", "dtd", "food101", "sun397")
    assert next(iter(found.results)) == found.data["metric"] == ("top-1" if name in top_1 else metric)
    assert found.chosen["C"] in SMALL["transfer"].strengths  # type: ignore[union-attr]


def test_knn_is_what_the_runs_own_evaluation_says(finished_run: Any, tmp_path: Path) -> None:
    found = on("knn", Knn(), finished_run.folder, "digits", tmp_path)
    assert found.results["top-1"] == pytest.approx(finished_run.scores["features"]["knn"])
    assert found.data["train"] == 1347
    assert found.data["test"] == 450


def test_label_subsets_say_how_they_were_drawn(finished_run: Any, tmp_path: Path) -> None:
    found = on("knn-10", PROTOCOLS["knn-10"].settings, finished_run.folder, "digits", tmp_path)
    assert "136 images, 0.1 of every class, drawn with seed 0" in found.notes[0]
    other = on("knn-10", replace(PROTOCOLS["knn-10"].settings, seed=1), finished_run.folder, "digits", tmp_path)
    assert other.results != found.results
    assert {path.name for path in tmp_path.glob("*.json")} == {"knn-10-digits.json", "knn-10-digits-seed1.json"}


def test_settings_that_are_not_the_protocols_are_told(finished_run: Any, tmp_path: Path) -> None:
    """A row that says knn is knn as it is published, whatever the seed."""
    found = on("knn", Knn(temperature=0.5, seed=2), finished_run.folder, "digits", tmp_path)
    assert found.protocol == "knn*"
    assert found.notes[0] == "not as knn has it: temperature 0.5"
    other = on("knn", Knn(seed=2), finished_run.folder, "digits", tmp_path)
    assert other.protocol == "knn"
    assert len(list(tmp_path.glob("*.json"))) == 2


def test_principal_components_are_scikit_learns() -> None:
    random = np.random.default_rng(0)
    bank, queries = random.normal(size=(40, 6)) @ random.normal(size=(6, 6)), random.normal(size=(9, 6))
    theirs = PCA(3).fit(bank)
    ours = principal(torch.from_numpy(bank), torch.from_numpy(queries), 3)
    for found, expected in zip(ours, (theirs.transform(bank), theirs.transform(queries)), strict=True):
        # But for their order and signs, of which cosines know nothing.
        np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-8)
    with pytest.raises(ValueError, match="at most 6"):
        principal(torch.from_numpy(bank), torch.from_numpy(queries), 7)


def test_official_validation_images_choose_the_rate(weights: dict[str, Path], tmp_path: Path) -> None:
    image_files.write_parts(tmp_path / "data", "train", "val", "test")
    chosen = replace(SMALL["linear-mira"], batch_size=2)
    found = on("linear-mira", chosen, weights["resnet"], str(tmp_path / "data"), tmp_path / "out")
    assert "the rate was chosen on the 6 validation images" in found.notes
    assert found.data["name"] == "data"


def test_only_the_classes_of_a_list_take_part(weights: dict[str, Path], tmp_path: Path) -> None:
    """ImageNet-100 and its like, also where something is trained."""
    image_files.write_imagenet(tmp_path / "data")
    listed = tmp_path / "two.txt"
    listed.write_text("\n".join(image_files.CLASSES[1:]))
    chosen = replace(SMALL["linear-music"], class_list=str(listed))
    found = on("linear-music", chosen, weights["resnet"], f"imagenet:{tmp_path / 'data'}", tmp_path / "out")
    assert (found.data["classes"], found.data["train"], found.data["test"]) == (2, 8, 8)
    assert any("2 classes in two.txt" in note for note in found.notes)


def test_a_list_of_images_is_followed(weights: dict[str, Path], tmp_path: Path) -> None:
    image_files.write_imagenet(tmp_path / "data")
    listed = tmp_path / "some.txt"
    listed.write_text("".join(f"{name}_1.JPEG\n" for name in image_files.CLASSES))
    chosen = Knn(labelled_list=str(listed), crop=32, neighbours=(1,))
    found = on("knn", chosen, weights["resnet"], f"imagenet:{tmp_path / 'data'}", tmp_path / "out")
    assert "labels of the 3 images in some.txt" in found.notes
    # The images of the test part are those of the training part; of each class one of four is known.
    assert found.results["top-1"] >= 0.25


def test_the_rate_that_is_chosen_is_the_best_on_the_held_out_images(finished_run: Any, tmp_path: Path) -> None:
    """A rate with which nothing is learnt is not chosen."""
    chosen = Linear(epochs=2, batch_size=128, learning_rates=(1e-6, 0.5), held_out=0.1)
    found = on("linear", chosen, finished_run.folder, "digits", tmp_path / "a")
    assert found.chosen["base learning rate"] == 0.5
    by = {name: value for name, value in found.chosen.items() if name.startswith("top-1")}
    assert by["top-1 at base learning rate 0.5"] > by["top-1 at base learning rate 1e-06"]
    assert found.results["top-1"] > 0.3
    assert "135 training images" in found.notes[0]


@pytest.mark.parametrize(
    "chosen",
    [
        Linear(epochs=1, batch_size=128, learning_rates=(0.05, 0.5), held_out=0.1),
        Logistic(strengths=(1e-4, 1e-2), max_iterations=30),
    ],
    ids=lambda chosen: chosen.kind,
)
def test_the_test_images_have_no_say_in_a_choice(chosen: Linear | Logistic, finished_run: Any, tmp_path: Path) -> None:
    """With the classes of the test images turned over, the score is another and the choice is the same to the bit."""
    plain = on(chosen.kind, chosen, finished_run.folder, "digits", tmp_path / "plain")
    benchmark = open_benchmark("digits")
    assert isinstance(benchmark.test, ArrayImages)
    assert benchmark.test.classes is not None
    turned = replace(benchmark, test=replace(benchmark.test, classes=(benchmark.test.classes + 1) % 10))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluating, "open_benchmark", lambda *_, **__: turned)
        other = on(chosen.kind, chosen, finished_run.folder, "digits", tmp_path / "turned")
    assert other.chosen == plain.chosen
    assert other.results["top-1"] < plain.results["top-1"]


def test_linear_probes_are_trained_as_if_alone(finished_run: Any, tmp_path: Path) -> None:
    """One of three rates, chosen on a part, ends as it does with that rate alone."""
    together = Linear(epochs=1, batch_size=128, learning_rates=(0.1, 0.2, 0.4))
    found = on("linear", together, finished_run.folder, "digits", tmp_path / "a")
    alone = replace(together, learning_rates=(float(found.chosen["base learning rate"]),))
    assert on("linear", alone, finished_run.folder, "digits", tmp_path / "b").results == found.results


def test_the_layers_of_an_alexnet_give_the_sizes_of_the_paper() -> None:
    from infoassign_training.evaluation.probing import layer_sizes

    assert layer_sizes(AlexNet("large")) == [9600, 9216, 9600, 9600, 9216]
    with pytest.raises(ValueError, match="AlexNet alone"):
        layer_sizes(torchvision.models.resnet18())


def test_absorbing_the_normalisation_changes_no_layer() -> None:
    """SeLa, app. A.1: the convolutions take it in; in evaluation mode the maps are the same."""
    torch.manual_seed(0)
    network = AlexNet("small")
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(layer.weight)
            torch.nn.init.normal_(layer.bias)
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2.0)
    network.eval()
    images = torch.randn(1, 3, 224, 224)
    layers, absorbed = list(network.features), []
    for layer, after in zip(layers, [*layers[1:], None], strict=True):
        if isinstance(layer, torch.nn.Conv2d):
            assert isinstance(after, torch.nn.BatchNorm2d)
            absorbed.append(torch.nn.utils.fuse_conv_bn_eval(layer, after))
        elif not isinstance(layer, torch.nn.BatchNorm2d):
            absorbed.append(layer)
    maps = []
    with torch.no_grad():
        expected = network.maps(images)
        for layer in absorbed:
            images = layer(images)
            if isinstance(layer, torch.nn.ReLU):
                maps.append(images.clone())
    for ours, theirs in zip(expected, maps, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_training_goes_on_where_it_was_cut_off(finished_run: Any, tmp_path: Path) -> None:
    chosen = Linear(epochs=2, batch_size=128, learning_rates=(0.1,))
    whole = on("linear", chosen, finished_run.folder, "digits", tmp_path / "whole")
    out = tmp_path / "cut"
    from infoassign_training.engine import pretrain

    with pytest.MonkeyPatch.context() as patch:
        original, calls = pretrain.backward, []

        def backward(*arguments: Any, **named: Any) -> Any:
            calls.append(None)
            if len(calls) > 12:
                raise KeyboardInterrupt
            return original(*arguments, **named)

        patch.setattr(pretrain, "backward", backward)
        with pytest.raises(KeyboardInterrupt):
            on("linear", chosen, finished_run.folder, "digits", out)
    assert not list(out.glob("*.json"))
    with pytest.raises(UserError, match="--resume"):
        on("linear", chosen, finished_run.folder, "digits", out)
    assert on("linear", chosen, finished_run.folder, "digits", out, resume=True).results == whole.results


def test_training_does_not_go_on_with_other_images(weights: dict[str, Path], tmp_path: Path) -> None:
    """Begun on one folder, and its result lost: another folder of the same name is not what was trained on."""
    for place, count in (("a", 4), ("b", 5)):
        image_files.write_imagenet(tmp_path / place / "data", per_class=count)
    out = tmp_path / "out"
    on("linear-music", SMALL["linear-music"], weights["resnet"], str(tmp_path / "a" / "data"), out)
    next(out.glob("*.json")).unlink()
    with pytest.raises(UserError, match=r"data\.sha256 was"):
        on("linear-music", SMALL["linear-music"], weights["resnet"], str(tmp_path / "b" / "data"), out, resume=True)
    # The same images elsewhere will do.
    (tmp_path / "a").rename(tmp_path / "c")
    on("linear-music", SMALL["linear-music"], weights["resnet"], str(tmp_path / "c" / "data"), out, resume=True)


def test_what_is_begun_anew_can_be_gone_on_with(finished_run: Any, tmp_path: Path) -> None:
    from infoassign_training.engine import pretrain

    chosen = Linear(epochs=1, batch_size=128, learning_rates=(0.1,))
    found = on("linear", chosen, finished_run.folder, "digits", tmp_path)

    def cut_off(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain, "backward", cut_off)
        with pytest.raises(KeyboardInterrupt):
            on("linear", chosen, finished_run.folder, "digits", tmp_path, overwrite=True)
    assert on("linear", chosen, finished_run.folder, "digits", tmp_path, resume=True).results == found.results


def test_results_are_not_overwritten_unasked(finished_run: Any, tmp_path: Path) -> None:
    on("knn", Knn(), finished_run.folder, "digits", tmp_path)
    with pytest.raises(UserError, match="--overwrite"):
        on("knn", Knn(), finished_run.folder, "digits", tmp_path)
    on("knn", Knn(), finished_run.folder, "digits", tmp_path, overwrite=True)


def test_going_on_leaves_results_as_they_are(finished_run: Any, tmp_path: Path) -> None:
    found = on("knn", Knn(), finished_run.folder, "digits", tmp_path)
    (path,) = tmp_path.glob("*.json")
    before = path.stat().st_mtime_ns
    assert on("knn", Knn(), finished_run.folder, "digits", tmp_path, resume=True).results == found.results
    assert path.stat().st_mtime_ns == before
    on("mine", Knn(), finished_run.folder, "digits", tmp_path)
    with pytest.raises(UserError, match="another protocol"):
        on("mine", Knn(temperature=0.5), finished_run.folder, "digits", tmp_path, resume=True)


def test_a_damaged_file_among_results_is_named_and_stops_nothing(finished_run: Any, tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("{")
    on("knn", Knn(), finished_run.folder, "digits", tmp_path)
    text = (tmp_path / results.TABLE).read_text()
    assert "| knn" in text
    assert "old.json is no result" in text


def test_features_that_are_not_finite_name_the_image(weights: dict[str, Path], tmp_path: Path) -> None:
    """An encoder that overflows on one image."""
    state = torch.load(weights["resnet"], weights_only=True)
    state["conv1.weight"] *= 1e38
    state["bn1.running_var"] *= 0
    broken = tmp_path / "broken.pth"
    torch.save(state, broken)
    image_files.write_imagenet(tmp_path / "data")
    with pytest.raises(UserError, match=r"not finite, of n01440764"):
        on("knn", Knn(crop=32), broken, f"imagenet:{tmp_path / 'data'}", tmp_path / "out")


def test_ten_crops_average_what_one_network_says_of_each() -> None:
    """Written out for two images: five crops and their mirror images, probabilities averaged."""
    from infoassign_training.evaluation.probing import Tuned, Tuning

    parts = Parts(torch.nn.Identity(), torch.nn.Identity(), 3, 3, 2, 4)
    logits = torch.randn(20, 4)
    expected = torch.stack([logits[:10].softmax(1).mean(0), logits[10:].softmax(1).mean(0)])
    torch.testing.assert_close(Tuned(parts, Tuning()).averaged(logits.view(2, 10, 4)), expected)


def test_the_command_says_what_it_found(finished_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--checkpoint", str(finished_run.folder), "--data", "digits", "--out", str(tmp_path / "out")]
    assert run(["evaluate", "knn", *options]) == 0
    printed = capsys.readouterr().out
    assert "| knn      | digits |" in printed
    assert str(tmp_path / "out" / results.TABLE) in printed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["knm", "--checkpoint", "x", "--data", "digits"], "did you mean 'knn'"),
        (["knn", "--checkpoint", "nowhere", "--data", "digits"], "nowhere"),
        (["knn", "--checkpoint", "RUN", "--data", "imagnet:/x"], "did you mean imagenet"),
        (["knn", "--checkpoint", "RUN", "--data", "imagenet:/nowhere"], "WHERE/train/n01440764"),
        (["knn", "--checkpoint", "RUN", "--data", "digits", "--at-once", "0"], "--at-once must be positive"),
        (["layers", "--checkpoint", "RUN", "--data", "digits"], "AlexNet alone"),
        (["voc07-svm", "--checkpoint", "RUN", "--data", "digits"], "several classes"),
        (["knn", "--checkpoint", "RUN", "--data", "digits", "--resume", "--overwrite"], "exclude each other"),
        (["semi-10", "--checkpoint", "RUN", "--data", "digits"], "batch-size"),
        (["clusters", "--checkpoint", "RUN", "--data", "digits", "--weights", "teacher"], "leave --weights out"),
        (["knn", "--checkpoint", "RUN", "--data", "digits", "digits"], "the same name"),
        (["knn", "--checkpoint", "RUN", "--data", "digits", "nonsense"], "no benchmark and no folder 'nonsense'"),
        (["knn", "--checkpoint", "RUN", "--data"], "name a data set"),
    ],
)
def test_what_is_slightly_wrong_is_told(
    words: list[str], said: str, finished_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(finished_run.folder) if word == "RUN" else word for word in words]
    assert run(["evaluate", *given, "--out", str(tmp_path / "out")]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["mira", "sela", "deepcluster"])
def test_labels_of_a_model_are_compared_with_classes(kind: str, tmp_path: Path) -> None:
    """As the model itself labels the held-out digits; of several heads one that is drawn, the same each time."""
    chosen = {
        "mira": methods.Mira(prototypes=12),
        "sela": methods.Sela(heads=(12, 5)),
        "deepcluster": methods.DeepCluster(clusters=5),
    }[kind]
    settings = digit_runs.with_method(replace(digit_runs.SMALL, epochs=1), chosen)
    pipeline.pretrain(f"small-{kind}", settings, tmp_path / "run")
    found = on("clusters", Clusters(), tmp_path / "run", "digits", tmp_path / "out")
    _, held_out = digits()
    method = open_model(tmp_path / "run").method
    heads = [logits.argmax(dim=1).numpy() for logits in method.logits(held_out.images)]
    drawn = [agreement(held_out.classes.numpy(), labels) for labels in heads]
    assert dict(found.results) in drawn
    assert ("drawn with seed 0" in found.notes[0]) == (len(heads) > 1)


def test_what_learnt_the_labels_of_another_is_evaluated_as_any_other(tmp_path: Path) -> None:
    """Label transfer from end to end: one run finds labels, another learns them."""
    first = digit_runs.with_method(replace(digit_runs.SMALL, epochs=1), methods.Sela(heads=(12, 5)))
    pipeline.pretrain("first", first, tmp_path / "first")
    labels = str(tmp_path / "first" / "labels.npy")
    second = digit_runs.with_method(first, methods.Transfer(labels=labels, heads=(12, 5)))
    pipeline.pretrain("second", second, tmp_path / "second")
    for protocol, chosen in (("knn", Knn()), ("clusters", Clusters())):
        found = on(protocol, chosen, tmp_path / "second", "digits", tmp_path / "out")
        assert "run second" in found.checkpoint["origin"]
        assert all(0 <= value <= 1 for value in found.results.values())


def test_one_command_evaluates_on_several_sets(
    weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CIFAR-10 and CIFAR-100, as for encoders of imbalanced images (SeLa, table 8)."""
    for name in ("cifar10", "cifar100"):
        image_files.lay_out(name, tmp_path, monkeypatch)
    sets = [f"{name}:{tmp_path}" for name in ("cifar10", "cifar100")]
    found = evaluate("knn-sela", SMALL["knn-sela"], weights["resnet"], sets, tmp_path / "out", device="cpu")
    assert [result.data["name"] for result in found] == ["cifar10", "cifar100"]
    assert (tmp_path / "out" / results.TABLE).read_text().count("knn-sela*") == 4


def test_clusters_of_others_weights_need_k_means(weights: dict[str, Path], tmp_path: Path) -> None:
    image_files.write_imagenet(tmp_path / "data")
    with pytest.raises(UserError, match="clusters-k-means"):
        on("clusters", Clusters(), weights["resnet"], f"imagenet:{tmp_path / 'data'}", tmp_path / "out")


def test_values_out_of_range_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(["evaluate", "knn", "--checkpoint", "x", "--data", "digits", "--protocol.neighbours", "0"])
    assert "protocol.neighbours must be positive" in capsys.readouterr().err


@pytest.mark.parametrize("protocol", ["knn", "linear-mira", "semi-10", "clusters-k-means"])
def test_several_classes_an_image_are_for_other_protocols(
    protocol: str, weights: dict[str, Path], tmp_path: Path
) -> None:
    image_files.write_voc(tmp_path)
    with pytest.raises(UserError, match="voc07-svm, voc07-fc6-8, voc07-all and transfer"):
        evaluated(protocol, weights, f"voc2007:{tmp_path}", tmp_path / "out")


def test_encoders_of_digits_are_for_digits(weights: dict[str, Path], finished_run: Any, tmp_path: Path) -> None:
    image_files.write_imagenet(tmp_path / "data")
    for checkpoint, words in ((finished_run.folder, f"imagenet:{tmp_path / 'data'}"), (weights["resnet"], "digits")):
        with pytest.raises(UserError, match="8 x 8 digits"):
            on("knn", Knn(), checkpoint, words, tmp_path / "out")


def test_the_folder_of_a_run_is_not_for_results(finished_run: Any) -> None:
    with pytest.raises(UserError, match="is a run's folder"):
        on("knn", Knn(), finished_run.folder, "digits", finished_run.folder)


def test_pixels_of_digits_reach_the_encoder_as_they_were(finished_run: Any) -> None:
    from infoassign_training.data.digits import digit_images, grey

    train, _ = digits()
    source = digit_images(train)
    for index in (0, 7, 1346):
        torch.testing.assert_close(grey(source.image(index)), train.images[index], rtol=0, atol=0)


def test_predictions_that_are_right_score_one() -> None:
    classes = np.arange(6) % 3
    assert top(np.eye(3)[classes], classes) == 1
