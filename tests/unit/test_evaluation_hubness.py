"""k-occurrences by hand, and of a small bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from support.tiny_bundle import bundle_parts, tiny_bundle_folder

from timbrel.cli import main
from timbrel.evaluation import hubness
from timbrel.library.bundle import Bundle
from timbrel.library.hubness import save_scales


def test_figures_by_hand() -> None:
    # Mean 2, deviations -2, -2, 0, 4: variance 6, third moment (-8 - 8 + 64) / 4 = 12.
    found = hubness.figures(np.array([0, 0, 2, 6]))
    assert found == {"orphans": 0.5, "skewness": pytest.approx(12 / 6**1.5), "largest": 6.0}
    assert hubness.figures(np.array([3, 3]))["skewness"] == 0.0


def test_each_label_is_shown_once_by_its_best() -> None:
    order = np.array([0.3, 0.1, 0.2, 0.05, 0.4])
    labels = np.array([7, 7, 8, 9, 8])
    assert hubness.hits(order, labels, 2).tolist() == [3, 1]
    assert hubness.hits(order, labels, 10).tolist() == [3, 1, 2]


def test_a_library_is_searched_with_itself(tmp_path: Path) -> None:
    bundle = Bundle.open(tiny_bundle_folder())
    plain = hubness.measure(bundle)
    assert plain["search"] == plain["cosine"]
    # 14 patches of 5 renders each, 70 lists: no figure can be larger.
    assert 0 < plain["cosine"]["renders"]["largest"] <= 70
    assert 0 <= plain["cosine"]["patches"]["orphans"] < 1

    parts = bundle_parts(tiny_bundle_folder().with_name("bundle.parts"))
    index = Path(shutil.copytree(parts["index"], tmp_path / "index"))
    # One patch is measured so generously that it stands in every list that the gate lets it into.
    hub = bundle.patch_of[0]
    save_scales(index, np.where(bundle.patch_of == hub, 1e6, 1.0))
    Bundle.build(tmp_path / "bundle", **(parts | {"index": index})).close()
    report = tmp_path / "retrieval.json"
    arguments = ["evaluate", "hubness", "--bundle", str(tmp_path / "bundle"), "-o", str(report)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    found = json.loads(report.read_text())["hubness"]
    assert found["cosine"]["patches"] == pytest.approx(plain["cosine"]["patches"], abs=1e-4)
    assert found["search"]["patches"]["largest"] == 65.0
