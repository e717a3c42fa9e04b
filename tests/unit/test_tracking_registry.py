"""Bundles as versions of one registered model: one per content, aliases that follow what is live; the gate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.registry import (
    FIGURES,
    ROOT,
    aliases,
    empty_registry,
    other_bundles,
    promoter,
    register,
    three_versions,
)
from support.tiny_bundle import tiny_bundle_folder

from timbrel.cli import main
from timbrel.errors import BundleError
from timbrel.library import champion
from timbrel.library.bundle import Bundle
from timbrel.library.manifest import read_manifest
from timbrel.params import Threshold
from timbrel.settings import Settings, variable
from timbrel.tracking.figures import figures_of
from timbrel.tracking.promotion import compare
from timbrel.tracking.registry import MODEL, Known, Registry, Version
from timbrel.tracking.store import open_store

HIGHER = Threshold(name="search.top1", better="higher", tolerance=0.01)
LOWER = Threshold(name="error", better="lower", tolerance=1.0)

REGISTERS = """
import sys
from pathlib import Path
from timbrel.tracking.registry import Known, Registry
registry = Registry.open(Path(sys.argv[1]))
for bundle in sys.argv[2:]:
    print(registry.register(Path(bundle), Known(figures={}, settings={}))[0].number)
"""


def test_a_bundle_is_one_version_however_often_it_is_registered(tmp_path: Path) -> None:
    registry = empty_registry(tmp_path)
    client, experiment = open_store(tmp_path)
    run = client.create_run(experiment, tags={"mlflow.parentRunId": "whole"}).info.run_id
    known = Known(figures=FIGURES, settings={"seed": 1}, run=run, tags={"timbrel.dvc_lock": "ab"})
    version, fresh = registry.register(tiny_bundle_folder(), known)
    assert (version.number, fresh, version.aliases) == (1, True, ("candidate",))
    assert (version.figures, version.settings) == (FIGURES, {"seed": 1})
    assert Bundle.open(version.folder).id == version.bundle
    entry = client.get_model_version(MODEL, "1")
    tags = entry.tags
    assert (entry.run_id, tags["timbrel.pipeline_run"], tags["timbrel.dvc_lock"]) == (run, "whole", "ab")
    assert json.loads(tags["timbrel.dimensions"])["stage1"] == 16
    again, fresh = registry.register(tiny_bundle_folder(), known)
    assert (again, fresh) == (version, False)
    other = register(registry, other_bundles()[0])
    assert aliases(registry) == {"candidate": other.bundle}
    # What two versions share is on the disk once.
    shared = "models/codec_encoder.onnx"
    assert (other.folder / shared).samefile(version.folder / shared)


def test_two_processes_make_one_version(tmp_path: Path) -> None:
    registry = empty_registry(tmp_path)
    bundles = [str(tiny_bundle_folder()), str(other_bundles()[0])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    program = [sys.executable, "-c", REGISTERS, str(tmp_path)]
    both = [
        subprocess.Popen([*program, *order], env=environment, stdout=subprocess.PIPE, text=True)
        for order in (bundles, bundles[::-1])
    ]
    said = [process.communicate()[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0] == said[1][::-1]
    assert sorted(version.number for version in registry.versions()) == [1, 2]


def test_versions_are_found_by_number_alias_and_id(tmp_path: Path) -> None:
    registry = empty_registry(tmp_path)
    version = register(registry, tiny_bundle_folder())
    for name in ("1", "candidate", version.bundle, version.bundle[:6]):
        assert registry.find(name).bundle == version.bundle
    for name in ("2", "champion", version.bundle[:5], "zzzzzz"):
        with pytest.raises(BundleError, match="no version is called"):
            registry.find(name)


def test_aliases_and_changes_follow_what_is_live_even_into_an_empty_store(tmp_path: Path) -> None:
    first, second, third = three_versions(tmp_path)
    registry = Registry.open(tmp_path)
    assert aliases(registry) == {"candidate": third.bundle}
    promoting = promoter(registry, tmp_path)
    promoting.promote(None, (HIGHER,))
    assert aliases(registry) == {"champion": third.bundle}
    promoting.promote("1", (HIGHER,))
    assert aliases(registry) == {"champion": first.bundle, "previous": third.bundle}
    promoting.promote("2", (HIGHER,))
    promoting.roll_back("because")
    wanted = {"champion": first.bundle, "previous": second.bundle}
    assert aliases(registry) == wanted
    changes = registry.find("1").changes
    assert [(change.number, change.kind, change.reason) for change in changes] == [
        (2, "promotion", ""), (4, "rollback", "because"),
    ]  # fmt: skip
    # The database is lost: what is live is known again, with its figures.
    registry = empty_registry(tmp_path / "anew")
    registry.follow(tmp_path / "live")
    assert aliases(registry) == wanted
    assert registry.find("champion").figures == FIGURES


def test_a_rollback_needs_no_registry_and_no_third_bundle(tmp_path: Path) -> None:
    first, second, third = three_versions(tmp_path)
    registry = Registry.open(tmp_path)
    promoting = promoter(registry, tmp_path)
    with pytest.raises(BundleError, match="no champion was there before"):
        promoting.roll_back()
    promoting.promote("1", (HIGHER,))
    promoting.promote("2", (HIGHER,))
    replace(promoting, registry=None).roll_back()
    live = champion.read(tmp_path / "live")
    assert live is not None
    assert (live.champion, live.previous) == (first.bundle, second.bundle)
    registry.follow(tmp_path / "live")
    assert aliases(registry) == {
        "candidate": third.bundle,
        "champion": first.bundle,
        "previous": second.bundle,
    }


def test_a_worse_bundle_is_refused_figure_by_figure_and_forced_on_record(tmp_path: Path) -> None:
    registry = empty_registry(tmp_path)
    register(registry, tiny_bundle_folder(), search_top1=0.95, search_top10=1.0)
    promoting = promoter(registry, tmp_path)
    assert "is the champion" in promoting.promote(
        None, (HIGHER,)
    )  # the first has nothing to be compared with
    worse = register(registry, other_bundles()[0], search_top1=0.9)
    thresholds = (HIGHER, Threshold(name="search.top10", better="higher", tolerance=0.0))
    with pytest.raises(BundleError) as refused:
        promoting.promote(None, thresholds)
    assert refused.value.message == (
        f"{worse.title} is not promoted: search.top1 is 0.9, the champion's 0.95 (at least 0.94 is asked for); "
        "search.top10 is not known of it (champion: 1); `--force --reason TEXT` promotes it anyway"
    )
    promoting.promote(None, thresholds, force=True, reason="for the ears")
    (change,) = registry.find("champion").changes
    assert (change.forced, change.reason, len(change.worse)) == (True, "for the ears", 2)
    assert change.figures == {"search.top1": 0.9}
    assert change.who.count("@") == 1


@pytest.mark.parametrize(
    ("new", "old", "said"),
    [
        ({"search.top1": 0.94}, {"search.top1": 0.95}, []),
        ({"search.top1": 0.93}, {"search.top1": 0.95}, ["search.top1 is 0.93"]),
        ({"error": 3.0}, {"error": 2.0}, []),
        ({"error": 3.1}, {"error": 2.0}, ["error is 3.1"]),
        ({"error": 0.1}, {"error": 2.0}, []),
        ({"error": 0.1}, {}, []),
        ({}, {"error": 2.0}, ["error is not known of it"]),
        ({}, {}, ["none of its figures is known"]),
    ],
)
def test_a_figure_may_be_worse_by_its_tolerance(
    new: dict[str, float], old: dict[str, float], said: list[str]
) -> None:
    found = compare(_version(new), _version(old), (HIGHER, LOWER))
    assert [sentence[: len(start)] for sentence, start in zip(found, said, strict=True)] == said


def test_figures_that_were_measured_otherwise_are_no_comparison() -> None:
    new, old = (
        _version({"error": 1.0}, {"evaluation.seed": 2}),
        _version({"error": 1.0}, {"evaluation.seed": 1}),
    )
    assert compare(new, old, (LOWER,)) == ["its figures were measured in another way (evaluation.seed 1 → 2)"]


def _version(figures: dict[str, float], settings: dict[str, object] | None = None) -> Version:
    return Version(
        number=1, bundle="0" * 64, folder=Path(), figures=figures, settings=settings or {}, aliases=(), revision="",
        registered=0, changes=(),
    )  # fmt: skip


def test_reports_of_another_bundle_are_not_its_figures(tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    (tmp_path / "search.json").write_text('{"bundle": "aa"}')
    (tmp_path / "stages/evaluate.json").write_text('{"metrics": {"search.top1": 0.5, "search.nan": null}}')
    (tmp_path / "stages/pgesam.json").write_text('{"metrics": {"heldout.lsd_db.vae": 6}}')
    retrieval = {
        "bundle": "bb",
        "top1": 0.9,
        "queries": 3,
        "stages": {"stage1": {"top1": 0.8}, "two_stage": {}},
    }
    (tmp_path / "retrieval.json").write_text(json.dumps({"instruments": retrieval}))
    assert figures_of(tmp_path, "aa") == {"search.top1": 0.5, "pgesam.heldout.lsd_db.vae": 6.0}
    assert figures_of(tmp_path, "bb") == {"retrieval.top1": 0.9, "retrieval.stage1.top1": 0.8}
    assert figures_of(tmp_path / "none", "aa") == {}


def test_every_threshold_is_a_figure_that_is_measured_here() -> None:
    """Of the bundle in Git, where its reports are."""
    from timbrel.params import load

    names = {threshold.name for threshold in load(ROOT / "params.yaml").promotion.thresholds}
    measured: set[str] = set()
    for report, inner in (("search.json", ()), ("retrieval.json", ("instruments",))):
        content = json.loads((ROOT / "reports" / report).read_text())
        for name in inner:
            content = content[name]
        measured |= set(figures_of(ROOT / "reports", content["bundle"]))
    assert names <= measured


def test_the_commands_without_a_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = three_versions(tmp_path)
    pulled = tmp_path / "pulled"

    for name in Settings.model_fields:
        monkeypatch.delenv(variable(name), raising=False)
    monkeypatch.setenv("TIMBREL_REGISTRY", str(tmp_path))
    monkeypatch.setenv("TIMBREL_STATE", str(tmp_path / "state"))

    def run(*arguments: object) -> tuple[int, str, str]:
        done = CliRunner().invoke(main, ["bundle", *map(str, arguments)])
        return done.exit_code, done.stdout, done.stderr.splitlines()[-1] if done.stderr else ""

    assert run("promote", 1)[:2] == (0, f"bundle {first.bundle[:12]} is the champion\n")
    code, listed, _ = run("list")
    rows = [line.split() for line in listed.splitlines()]
    assert (code, rows[0][:3], rows[0][-2:]) == (
        0,
        ["version", "bundle", "alias"],
        ["search.top1", "search.top10"],
    )
    assert [(row[0], row[1], row[2]) for row in rows[1:]] == [
        ("3", third.bundle[:12], "candidate"), ("2", second.bundle[:12], "-"), ("1", first.bundle[:12], "champion"),
    ]  # fmt: skip
    assert run("promote", 2, "--force") == (
        2, "", "timbrel: --force needs --reason TEXT, which is kept with the promotion",
    )  # fmt: skip
    assert run("pull", 2, pulled)[0] == 0
    assert read_manifest(pulled / "manifest.json").id == second.bundle
    assert run("verify", pulled)[1].startswith(
        f"bundle {second.bundle[:12]} in {pulled} is whole and answers: 14"
    )
    (pulled / "models" / "generator.onnx").write_bytes(b"nonsense")
    code, _, said = run("verify", pulled)
    assert (code, "does not match its hash" in said) == (2, True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "song.wav").write_bytes(b"")
    assert "is there and is no bundle" in run("pull", 2, tmp_path / "mine")[2]
    code, compared, _ = run("diff", 1, 2)
    assert code == 0
    assert "figures: the same" in compared
    assert "generator" in compared
    assert "library: 0 patches added, 0 removed" in compared
