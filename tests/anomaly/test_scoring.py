"""Score formulas equal each reference system's formula, written out plainly in float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from adcompile.anomaly import maps, scoring
from adcompile.anomaly.presets import PRESETS, preset
from adcompile.contract import Score
from adcompile.errors import InputError, UsageError

Array = npt.NDArray[np.float32]
GRID = (4, 5)


def uniform(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def plain_softmax(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    e = np.exp(values)
    return e / e.sum()


def written_out(name: str, rows: Array, bank: Array) -> float:
    """One image's score, straight from the facts about each system."""
    squared = ((rows[:, None].astype(np.float64) - bank) ** 2).sum(-1)
    euclid = np.sqrt(squared)
    if name == "r1_host":
        return float(squared.min(axis=1).max())
    if name in {"r0", "r2"}:
        every = np.sort(euclid if name == "r0" else squared, axis=1)[:, :9]
        worst = int(every[:, 0].argmax())
        return float((1 - plain_softmax(every[worst]).max()) * every[worst, 0])
    worst = int(euclid.min(axis=1).argmax())
    member = int(euclid[worst].argmin())
    around = np.argsort(((bank.astype(np.float64) - bank[member]) ** 2).sum(1))[:9]
    return float((1 - plain_softmax(euclid[worst][around])[0]) * euclid[worst].min())


@pytest.mark.parametrize("name", sorted(PRESETS["patchcore"]))
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_preset_equals_its_system(name: str, seed: int) -> None:
    """Score of two images in one batch equals the plain formula of each image alone."""
    rows, bank = uniform(seed, 40, 6), uniform(seed + 50, 30, 6)
    found = scoring.patchcore_scores(rows, bank, GRID, preset("patchcore", name).score)
    expected = [written_out(name, part, bank) for part in (rows[:20], rows[20:])]
    assert found.scores.tolist() == pytest.approx(expected, rel=1e-5)
    assert found.maps.shape == (2, *GRID)


def test_weights_do_not_overflow() -> None:
    """Distances far above 88, where the plain exponential is infinite, give finite scores."""
    rows, bank = uniform(1, 20, 6) * 1e3, uniform(2, 30, 6) * 1e3
    for name in ("r0", "r2", "paper"):
        found = scoring.patchcore_scores(rows, bank, GRID, preset("patchcore", name).score)
        assert np.isfinite(found.scores).all()
        assert (found.scores >= 0).all()


def test_k_is_checked_against_bank_and_weighting() -> None:
    """k above the bank, or own-neighbour weighting with k 1, is refused instead of scoring OK."""
    rows, bank = uniform(1, 20, 6), uniform(2, 5, 6)
    with pytest.raises(InputError, match="fewer rows than k"):
        scoring.patchcore_scores(rows, bank, GRID, preset("patchcore", "r0").score)
    alone = Score(method="patchcore", k=1, weighting="own_neighbours")
    with pytest.raises(UsageError, match="at least 2"):
        scoring.patchcore_scores(rows, bank, GRID, alone)
    clipped = scoring.patchcore_scores(rows, bank, GRID, preset("patchcore", "anomalib").score)
    assert np.isfinite(clipped.scores).all()


def test_foreign_features_are_refused() -> None:
    """Features of another width, or with NaN, never reach a distance."""
    bank = uniform(2, 30, 6)
    score = preset("patchcore", "r0").score
    with pytest.raises(InputError, match="differ in width"):
        scoring.patchcore_scores(uniform(1, 20, 7), bank, GRID, score)
    bad = uniform(1, 20, 6)
    bad[3, 2] = np.nan
    with pytest.raises(InputError, match="not finite"):
        scoring.patchcore_scores(bad, bank, GRID, score)
    with pytest.raises(InputError, match="multiple of the grid"):
        scoring.patchcore_scores(uniform(1, 21, 6), bank, GRID, score)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 9))
def test_blocked_search_equals_brute_force(seed: int, k: int) -> None:
    """Same neighbours and distances as sorting all of them, ties to the lower index."""
    random = np.random.default_rng(seed)
    rows = random.integers(0, 3, (17, 3)).astype(np.float32)
    bank = random.integers(0, 3, (12, 3)).astype(np.float32)
    distances, _ = scoring.blocked_search(bank)(rows, k)
    every = np.sort(((rows[:, None] - bank) ** 2).sum(-1), axis=1)[:, :k]
    assert (distances == every).all()


def plain_pool(layer: Array) -> Array:
    out = np.zeros_like(layer)
    padded = np.pad(layer, ((0, 0), (0, 0), (1, 1), (1, 1)))
    for dy in range(3):
        for dx in range(3):
            out += padded[..., dy : dy + layer.shape[2], dx : dx + layer.shape[3]]
    return out / 9


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_embedding_pools_enlarges_and_concatenates(mode: maps.Upsampling) -> None:
    """Count-padded pooling; nearest repeats cells, bilinear weighs half-pixel neighbours."""
    shallow, deep = uniform(1, 2, 3, 6, 8), uniform(2, 2, 4, 3, 4)
    found = maps.embed([shallow, deep], mode)
    assert found.shape == (2, 7, 6, 8)
    assert np.allclose(found[:, :3], plain_pool(shallow), atol=1e-6)
    pooled = plain_pool(deep)
    if mode == "nearest":
        assert np.allclose(found[:, 3:], pooled.repeat(2, 2).repeat(2, 3), atol=1e-6)
    else:
        inner = 0.75 * pooled[..., 0, :] + 0.25 * pooled[..., 1, :]
        along = 0.75 * inner[..., 1] + 0.25 * inner[..., 2]
        assert np.allclose(found[:, 3:, 1, 3], along, atol=1e-6)
        assert np.allclose(found[:, 3:, 0, 0], pooled[..., 0, 0], atol=1e-6)


def test_rows_go_image_by_image_and_row_major() -> None:
    """Row p of image n is the embedding at cell (p // w, p % w)."""
    embedding = uniform(3, 2, 5, 3, 4)
    rows = maps.patch_rows(embedding)
    assert rows.shape == (24, 5)
    assert (rows[12 + 7] == embedding[1, :, 1, 3]).all()


@pytest.mark.parametrize(
    ("border", "scipy_mode"), [("reflect", "mirror"), ("symmetric", "reflect")]
)
def test_blur_equals_scipy(border: maps.Border, scipy_mode: str) -> None:
    """Both borders at sigma 4 (33 taps) equal SciPy's, also on maps smaller than the kernel."""
    for shape in ((40, 56), (20, 11)):
        heat = uniform(4, *shape)
        expected = gaussian_filter(heat.astype(np.float64), 4.0, mode=scipy_mode)
        assert np.allclose(maps.blur_map(heat, 4.0, border), expected, atol=1e-6)
    assert maps.gaussian_taps(4.0).size == 33


def test_matrices_pad_enlarge_and_blur_like_the_steps() -> None:
    """One pair of matrices equals zero padding, then resizing, then blurring."""
    heat = uniform(5, 1, 6, 7)
    rows, columns = maps.upsample_blur_matrices((6, 7), (32, 40), "bilinear", 2.0, pad=2)
    padded = np.pad(heat, ((0, 0), (2, 2), (2, 2)))
    steps = maps.blur_map(maps.resize_map(padded, (32, 40), "bilinear"), 2.0)
    assert np.allclose(rows @ heat @ columns, steps, atol=1e-6)


def test_finish_maps_follows_the_contract() -> None:
    """No upsampling keeps the grid; r0 repeats cells; anomalib's map is smooth."""
    heat = uniform(6, 1, 4, 4)
    assert scoring.finish_maps(heat, preset("patchcore", "r1_host").score, (32, 32)).shape == (
        1,
        4,
        4,
    )
    repeated = scoring.finish_maps(heat, preset("patchcore", "r0").score, (32, 32))
    assert (repeated == heat.repeat(8, 1).repeat(8, 2)).all()
    smooth = scoring.finish_maps(heat, preset("patchcore", "anomalib").score, (32, 32))
    expected = gaussian_filter(repeated[0].astype(np.float64), 4.0, mode="mirror")
    assert np.allclose(smooth[0], expected, atol=1e-6)


@pytest.mark.parametrize("square_root", [True, False])
def test_mahalanobis(square_root: bool) -> None:
    """The quadratic form per patch, rooted or not; another shape of statistics is refused."""
    embedding, mean, half = uniform(1, 2, 3, 2, 2), uniform(2, 3, 4), uniform(3, 4, 3, 3)
    inverse = half @ half.transpose(0, 2, 1)
    found = scoring.mahalanobis_map(embedding, mean, inverse, square_root=square_root)
    gap = embedding.reshape(2, 3, 4) - mean
    form = np.einsum("ncp,pcd,ndp->np", gap, inverse, gap).reshape(2, 2, 2)
    assert np.allclose(found, np.sqrt(form) if square_root else form, rtol=1e-4)
    with pytest.raises(InputError, match="differ in shape"):
        scoring.mahalanobis_map(embedding, mean[:2], inverse, square_root=square_root)


def test_efficientad_map_and_score() -> None:
    """Two mean squared errors, padded, enlarged, quantile-scaled, averaged; score is the max."""
    teacher, student, auto = uniform(1, 1, 2, 4, 4), uniform(2, 1, 4, 4, 4), uniform(3, 1, 2, 4, 4)
    quantiles = scoring.Quantiles(0.1, 0.5, 0.2, 0.9)
    found = scoring.efficientad_scores(teacher, student, auto, quantiles, (24, 24))
    total = np.zeros((24, 24))
    for a, b, low, high in ((teacher, student[:, :2], 0.1, 0.5), (auto, student[:, 2:], 0.2, 0.9)):
        error = np.pad(((a - b) ** 2).mean(1)[0], 4)
        large = maps.resize_map(error[None].astype(np.float32), (24, 24), "bilinear")[0]
        total += 0.5 * 0.1 * (large - low) / (high - low)
    assert np.allclose(found.maps[0], total, atol=1e-6)
    assert found.scores[0] == found.maps.max()
    empty = scoring.Quantiles(0.5, 0.5, 0.2, 0.9)
    with pytest.raises(InputError, match="quantile"):
        scoring.efficientad_scores(teacher, student, auto, empty, (24, 24))


def test_vae_score_is_mean_squared_error() -> None:
    """The image score is the mean squared error over all values of the image."""
    image, back = uniform(1, 2, 3, 4, 4), uniform(2, 2, 3, 4, 4)
    found = scoring.vae_scores(image, back)
    assert np.allclose(found.scores, ((image - back) ** 2).reshape(2, -1).mean(1))


def test_presets_are_named_and_resizable() -> None:
    """Unknown names list the known ones; another side keeps the 256:224 crop proportion."""
    with pytest.raises(UsageError, match="no scoring preset") as caught:
        preset("patchcore", "best")
    assert "r1_host" in caught.value.fix
    small = preset("patchcore", "anomalib", side=112).preprocess
    assert (small.size, small.crop, small.resize_to) == ((112, 112), (112, 112), (128, 128))
    with pytest.raises(UsageError, match="no method"):
        preset("cnn")
