"""The load benchmark and the soak, each for some seconds over the tiny bundle: that they run, and what they look at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.tiny_bundle import tiny_bundle_folder

from timbrel.serving.triton_files import find_wheel

ROOT = Path(__file__).resolve().parents[2]
needs_triton = pytest.mark.skipif(
    find_wheel()[0] is None, reason=f"Triton cannot run here: {find_wheel()[1]}"
)


def _report(script: str, output: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, ROOT / "benchmarks" / script, *arguments]
    command += ["--bundle", tiny_bundle_folder(), "--output", output]
    done = subprocess.run(command, env={**os.environ, "MPLBACKEND": "agg"}, capture_output=True, text=True)
    assert output.exists(), done.stderr[-4000:]
    report: dict[str, Any] = json.loads(output.read_text())
    return report


@needs_triton
def test_the_load_benchmark_measures_every_way(tmp_path: Path) -> None:
    output = tmp_path / "serving.json"
    report = _report("serving.py", output, "--rounds", "1", "--seconds", "0.4", "--clients", "1", "2")
    ways = {"triton http", "triton grpc", "onnxruntime http", "onnxruntime grpc", "plain http"}
    for operation in ("search", "synthesize"):
        table = report["table"][operation]
        assert table.keys() == {*ways, "in process", "in processes"}
        for way in ways:
            assert table[way]["2"]["answers_per_second"]["median"] > 0
            assert table[way]["2"]["refused"] == 0
            assert 0 < table[way]["1"]["ms"]["p50"] <= table[way]["1"]["ms"]["p99"]
        assert report["goals"]["p50_to_in_process_at_1_client"][operation].keys() == ways
    same = report["same_answers"]
    for name in ("triton", "onnxruntime"):
        assert same[name]["ten_hits_equal"] == same["questions"]
    assert all(same[name]["largest_sample_difference"] < 1e-3 for name in ("triton", "onnxruntime", "plain"))
    refused = report["overload"]["onnxruntime"]["http"]["outcomes"]
    assert refused["503"] > 0
    assert refused.keys() <= {"200", "503"}
    assert output.with_suffix(".png").exists()


@needs_triton
def test_the_soak_finds_nothing_wrong(tmp_path: Path) -> None:
    report = _report("soak.py", tmp_path / "soak.json", "--minutes", "0.1", "--clients", "2")
    assert report["requests"] > 0
    assert {line["shared_memory_files"] > 0 for line in report["minutes"]} == {True}
    assert report["server_errors"] == 0
    assert report["wrong_answers"] == {}
    assert report["processes_lost"] == 0
    assert report["tracebacks_in_log"] == 0
    assert report["exit_status"] == 0
    assert report["left_behind"] == []
