"""Agreement with ratings, on values worked out by hand and on a small folder of sounds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from click.testing import CliRunner

from timbrel.cli import main
from timbrel.errors import DataError
from timbrel.evaluation.ratings import agreement, read_rated


def square(ab: float, ac: float, bc: float) -> np.ndarray:
    return np.array([[0.0, ab, ac], [ab, 0.0, bc], [ac, bc, 0.0]])


def test_what_agrees_is_perfect_whatever_its_scale() -> None:
    ratings = square(1.0, 5.0, 9.0)
    figures = agreement(ratings * 0.01 + 3.0, ratings)
    assert figures["mae"] == pytest.approx([0.0] * 3, abs=1e-12)
    for name in ("ndcg", "spearman", "kendall", "triplet"):
        assert figures[name] == pytest.approx([1.0] * 3), name


def test_figures_by_hand() -> None:
    """Ratings ab 0, ac .5, bc 1 and distances ab 0, ac 1, bc .25: c's two neighbours stand in the wrong order."""
    figures = agreement(square(2.0, 6.0, 3.0), square(0.0, 0.5, 1.0))
    assert figures["mae"] == pytest.approx([0.0, 0.5, 0.75])
    # a: b before c, as rated. b: a before c, as rated. c: b (rated 1) before a (.5).
    assert figures["spearman"] == pytest.approx([1.0, 1.0, -1.0])
    assert figures["kendall"] == pytest.approx([1.0, 1.0, -1.0])
    assert figures["triplet"] == pytest.approx([1.0, 1.0, 0.0])
    # c's relevances are .5 for a and 0 for b; a stands second, worth 1 / log2(3).
    assert figures["ndcg"] == pytest.approx([1.0, 1.0, 1.0 / np.log2(3.0)])


def test_pairs_rated_nearly_alike_ask_no_triplet() -> None:
    """a's b and c are rated .45 and .5: that they stand the other way round does not count."""
    ratings = np.array([[0, 0.45, 0.5, 1], [0.45, 0, 0, 0.2], [0.5, 0, 0, 0.2], [1, 0.2, 0.2, 0]])
    distances = ratings.copy()
    distances[0, 1] = distances[1, 0] = 0.55
    assert agreement(distances, ratings)["triplet"] == pytest.approx([1.0] * 4)
    assert agreement(distances, ratings)["spearman"][0] == pytest.approx(0.5)


def test_alike_is_nothing_to_compare() -> None:
    with pytest.raises(DataError, match="alike"):
        agreement(square(1.0, 2.0, 3.0), square(1.0, 1.0, 1.0))


def write_folder(folder: Path) -> None:
    """Three sounds: a and b have many partials, c one; ratings say so."""
    sounds = folder / "sounds" / "three"
    sounds.mkdir(parents=True)
    time = np.arange(48_000) / 24_000
    for name, partials in (("a", 12), ("b", 10), ("c", 1)):
        sound = sum(np.sin(2 * np.pi * 261.6 * n * time) / n for n in range(1, partials + 1))
        soundfile.write(sounds / f"{name}.aiff", 0.3 * sound / np.abs(sound).max(), 24_000, subtype="PCM_16")
    (folder / "true_dissim").mkdir()
    np.savetxt(folder / "true_dissim" / "three.txt", square(0.1, 0.9, 0.8))


def test_a_folder_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path)
    monkeypatch.setenv("TIMBREL_WEIGHTS", str(tmp_path / "none"))
    report = tmp_path / "retrieval.json"
    done = CliRunner().invoke(main, ["evaluate", "ratings", str(tmp_path), "-o", str(report)])
    assert done.exit_code == 0, done.output
    found = json.loads(report.read_text())["ratings"]
    assert set(found["by_encoder"]) == {"stage1", "stage2", "mfcc", "mel", "codec"}
    for name in ("stage2", "mfcc", "mel"):
        figures = found["by_encoder"][name]["cosine"]
        assert figures["triplet"] == 1.0, name
        assert figures["mae"] < 0.2, name
    assert found["spearman"] == found["by_encoder"]["stage2"]["cosine"]["spearman"]
    assert (found["sounds"], found["datasets"]) == (3, ["three"])


def test_folders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="sounds/ and true_dissim/"):
        read_rated(tmp_path)
    write_folder(tmp_path)
    before = read_rated(tmp_path)[0].clips
    assert before.shape == (3, 72_000)
    # The same sound at another rate is heard the same.
    third = tmp_path / "sounds" / "three" / "c.aiff"
    sound, _ = soundfile.read(third)
    soundfile.write(third, soxr.resample(sound, 24_000, 48_000), 48_000, subtype="PCM_16")
    np.testing.assert_allclose(read_rated(tmp_path)[0].clips[2, :40_000], before[2, :40_000], atol=5e-3)
    (tmp_path / "sounds" / "three" / "c.aiff").unlink()
    with pytest.raises(DataError, match="holds 2 sounds"):
        read_rated(tmp_path)
    (tmp_path / "true_dissim" / "three.txt").write_text("a b\nc d\n")
    with pytest.raises(DataError, match="not a matrix"):
        read_rated(tmp_path)
