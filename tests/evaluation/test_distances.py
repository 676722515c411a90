"""The Frechet distance has its closed forms; folders of images are measured and remembered."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm
from scipy.stats import special_ortho_group

from janusflow.evaluation import features
from janusflow.evaluation.frechet import frechet, root
from janusflow.scenes.shapes import render
from janusflow.scenes.world import scene

metrics = pytest.importorskip("torchmetrics")


def gaussian(rng, size, rank=None):
    factor = rng.normal(size=(size, rank or size))
    return rng.normal(size=size), factor @ factor.T


@pytest.mark.parametrize("size", [1, 3, 40])
def test_equal_covariances_leave_the_distance_of_the_means(size):
    rng = np.random.default_rng(size)
    (mean, covariance), other = gaussian(rng, size), rng.normal(size=size)
    expected = ((mean - other) ** 2).sum()
    assert frechet(mean, covariance, other, covariance) == pytest.approx(expected, abs=1e-9)
    assert frechet(mean, covariance, mean, covariance) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("size", [2, 7, 60])
def test_covariances_that_commute_differ_by_their_deviations(size):
    rng = np.random.default_rng(size)
    turn = special_ortho_group.rvs(size, random_state=rng)
    a, b = rng.uniform(0, 5, (2, size))
    one, two = (turn * a**2) @ turn.T, (turn * b**2) @ turn.T
    zero = np.zeros(size)
    assert frechet(zero, one, zero, two) == pytest.approx(((a - b) ** 2).sum())


def test_two_by_two_covariances_that_do_not_commute_have_a_closed_form():
    """tr (C1 C2)^1/2 = sqrt(tr C1 C2 + 2 sqrt(det C1 C2)) of a 2 x 2 product."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        (m, one), (n, two) = gaussian(rng, 2), gaussian(rng, 2)
        product = one @ two
        shared = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
        expected = ((m - n) ** 2).sum() + np.trace(one + two) - 2 * shared
        assert frechet(m, one, n, two) == pytest.approx(expected)


def test_a_linear_map_between_gaussians_costs_what_it_moves():
    """Where B = T A T with T symmetric and positive, T is the optimal map: the distance is
    tr (I - T) A (I - T), though A and B do not commute."""
    rng = np.random.default_rng(4)
    zero = np.zeros(12)
    for _ in range(5):
        a, t = gaussian(rng, 12)[1], root(gaussian(rng, 12)[1])
        move = np.eye(12) - t
        expected = np.trace(move @ a @ move)
        assert frechet(zero, a, zero, t @ a @ t) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("rank", [3, 30])
def test_it_is_symmetric_and_agrees_with_the_matrix_root_also_without_full_rank(rank):
    rng = np.random.default_rng(rank)
    (m, one), (n, two) = gaussian(rng, 20, rank), gaussian(rng, 20, rank)
    shared = np.trace(sqrtm(one @ two + 1e-12 * np.eye(20))).real
    expected = ((m - n) ** 2).sum() + np.trace(one + two) - 2 * shared
    assert frechet(m, one, n, two) == pytest.approx(expected, rel=1e-4)
    assert frechet(m, one, n, two) == pytest.approx(frechet(n, two, m, one))


def test_statistics_of_features_give_torchmetrics_distance():
    from torchmetrics.image.fid import FrechetInceptionDistance

    from janusflow.evaluation.tasks.distances import Given, statistics

    a, b = torch.randn(200, 6), torch.randn(150, 6) * 1.5 + 0.3
    (m, one), (n, two) = statistics(a, b)
    np.testing.assert_allclose(one, np.cov(a.numpy().T), rtol=1e-5)
    metric = FrechetInceptionDistance(feature=Given(6)).set_dtype(torch.float64)
    metric.update(b.double(), real=True)
    metric.update(a.double(), real=False)
    assert frechet(m, one, n, two) == pytest.approx(float(metric.compute()), rel=1e-6)


def test_the_kernel_distance_is_unbiased_and_repeats_itself():
    from janusflow.evaluation.tasks.distances import kernel

    torch.manual_seed(1)
    same = [kernel(torch.randn(300, 4), torch.randn(300, 4))[0] for _ in range(12)]
    assert abs(np.mean(same)) < 3 * np.std(same) / 12**0.5 + 1e-3
    apart = torch.randn(300, 4) + 1
    assert kernel(apart, torch.randn(300, 4))[0] > 0.1
    assert kernel(apart, apart.flip(0)) == kernel(apart, apart.flip(0))


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("JANUSFLOW_CACHE", str(tmp_path / "cache"))
    for name, split in (("real", "train"), ("fake", "test")):
        (tmp_path / name / "part").mkdir(parents=True)
        for i in range(6):
            picture = Image.fromarray(render(scene(split, i).objects))
            picture.save(tmp_path / name / ("part" if i % 2 else ".") / f"{i}.png")
    return tmp_path


def evaluate(janusflow, tiny_folder, here, *more, task="fid", out="out"):
    words = ["--task", task, "--model", tiny_folder, "--device", "cpu", "-o", here / out]
    return janusflow("evaluate", *words, "--reference", here / "real", "--no-figures", *more)


def test_folders_are_measured_the_reference_once(folders, tiny_folder, janusflow, monkeypatch):
    import json

    given = ("--images", folders / "fake")
    code, said, error = evaluate(janusflow, tiny_folder, folders, *given)
    assert code == 0, error
    assert "fid" in said and "no interval" in said
    (kept,) = (folders / "cache").iterdir()
    seen, extract = [], features.extract
    monkeypatch.setattr(features, "extract", lambda *a: seen.append(a[1]) or extract(*a))
    assert evaluate(janusflow, tiny_folder, folders, *given, task="kid", out="kid")[0] == 0
    assert [path.name for found in seen for path in found].count("0.png") == 1  # not of real
    assert list((folders / "cache").iterdir()) == [kept]
    same = ("--images", folders / "real")
    assert evaluate(janusflow, tiny_folder, folders, *same, out="same")[0] == 0
    scores = [
        json.loads((folders / name / "report.json").read_text())["scores"]["real"]["overall"]
        for name in ("out", "same")
    ]
    values = [entry["scores"]["fid"]["score"] for entry in scores]
    assert values[1] == pytest.approx(0, abs=1e-4) and values[0] > 10 * values[1] + 1e-3
    assert janusflow("evaluate", "--rescore", folders / "out")[0] == 0


def test_images_of_others_are_described_by_their_own_text(folders, tiny_folder, janusflow):
    """Never by the model and sampler of the plan, which did not generate them."""
    import json

    from janusflow.pipelines.image_io import save

    given = ("--images", folders / "fake")
    assert evaluate(janusflow, tiny_folder, folders, *given)[0] == 0
    told = json.loads((folders / "out" / "report.json").read_text())["protocol"]
    assert {told[name] for name in ("model", "sampler", "steps", "fingerprint")} == {"unknown"}
    for path in (folders / "fake").rglob("*.png"):
        save(Image.open(path), {"model": "mine", "steps": 7 + path.stem.count("0")}, path)
    assert evaluate(janusflow, tiny_folder, folders, *given, out="told")[0] == 0
    told = json.loads((folders / "told" / "report.json").read_text())["protocol"]
    assert told["model"] == "mine" and told["steps"] == "2 different: 8, 7"


def test_a_fid_of_few_images_is_marked(folders, tiny_folder, janusflow):
    said = evaluate(janusflow, tiny_folder, folders, "--images", folders / "fake")[1]
    assert said.startswith("FID OF 6 IMAGES IN 48 CHANNELS")
    assert "**FID OF 6 IMAGES" in (folders / "out" / "report.md").read_text()


def test_pictures_of_prompts_are_made_and_measured(folders, tiny_folder, janusflow):
    (folders / "prompts.txt").write_text("a red circle\ntwo stars\n")
    given = ("--prompts", folders / "prompts.txt", "--seeds", 2, "--steps", 1)
    code, said, error = evaluate(janusflow, tiny_folder, folders, *given)
    assert code == 0, error
    assert len(list((folders / "out" / "pictures").iterdir())) == 4
    again = evaluate(janusflow, tiny_folder, folders, *given)[1]
    assert [x for x in again.splitlines() if x.startswith("overall")] == [
        x for x in said.splitlines() if x.startswith("overall")
    ]
    (folders / "mjhq.json").write_text('{"a1": {"category": "x", "prompt": "a ring"}}')
    given = ("--prompts", folders / "mjhq.json", "--seeds", 2, "--steps", 1)
    assert evaluate(janusflow, tiny_folder, folders, *given, out="mjhq")[0] == 0
    assert (folders / "mjhq" / "pictures" / "a1-1.png").exists()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--images", "nowhere"], "is not a folder"),
        (["--images", "empty"], "holds 0 images"),
        (["--images", "mixed"], "images of one size"),
        (["--images", "broken"], "is not a complete image"),
        ([], "give either --images FOLDER, or --prompts FILE"),
        (["--images", "fake", "--features", "weights.pth"], "Inception"),
        (["--prompts", "bad.json"], "is not a MJHQ"),
    ],
)
def test_folders_that_cannot_be_measured_are_one_sentence(
    folders, tiny_folder, janusflow, given, sentence
):
    for name in ("empty", "mixed", "broken"):
        (folders / name).mkdir()
    for i, side in enumerate((64, 64, 96)):
        Image.new("RGB", (side, side)).save(folders / "mixed" / f"{i}.png")
        (folders / "broken" / f"{i}.png").write_bytes(b"no image")
    (folders / "bad.json").write_text('{"a": {}}')
    given = [given[0], folders / given[1], *given[2:]] if given else []
    code, _, said = evaluate(janusflow, tiny_folder, folders, *given)
    assert code == 2 and sentence in said and len(said.strip().splitlines()) == 1, said
