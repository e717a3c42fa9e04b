"""The command line over the tiny bundle: what it prints, what it writes, and one line for every mistake."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result
from support.tiny_bundle import tiny_bundle_folder
from support.tiny_models import tone

from timbrel import settings as environment
from timbrel.audio import read
from timbrel.cli import main
from timbrel.cli.shell import Progress, note_name, table
from timbrel.errors import BundleError
from timbrel.library.bundle import Bundle
from timbrel.pitch.estimate import estimate
from timbrel.serving import launcher
from timbrel.settings import Settings


@pytest.fixture(autouse=True)
def _bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(environment.variable(name), raising=False)
    monkeypatch.setenv("TIMBREL_BUNDLE", str(tiny_bundle_folder()))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """The tone of the patch at (0.2, 0), C4."""
    path = tmp_path / "clip.wav"
    soundfile.write(path, tone(60, 0.2, 0.0), 24_000)
    return path


def run(*arguments: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments], input=stdin)


def failure(result: Result) -> str:
    """The one line of an expected failure."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("timbrel: ")
    return line.removeprefix("timbrel: ")


def test_search_prints_what_was_heard_and_the_patches(clip: Path) -> None:
    result = run("search", clip, "-k", 3)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("pitch  261.")
    assert lines[1].startswith("gate   pitched: MIDI 60.0")
    assert lines[2].split()[:3] == ["patch", "name", "family"]
    assert len(lines) == 6
    assert "Tone 8" in lines[3]


def test_search_as_json(clip: Path) -> None:
    answer = json.loads(run("search", clip, "-k", 2, "--json").stdout)
    assert answer["query"]["midi"] == pytest.approx(60.0, abs=0.1)
    assert answer["query"]["gate"]["decision"] == "pitched"
    assert answer["hits"][0]["name"] == "Tone 8"
    assert answer["hits"][0]["stage2_distance"] < answer["hits"][1]["stage2_distance"]
    assert answer["hits"][0]["pitch"] == 60.0


def test_search_reads_stdin(clip: Path) -> None:
    assert run("search", "-", stdin=clip.read_bytes()).stdout == run("search", clip).stdout


def test_search_with_a_pitch_and_with_the_gate_off(clip: Path) -> None:
    assert "gate   overridden" in run("search", clip, "--pitch", 72).stdout
    assert "gate   off" in run("search", clip, "--gate", "off").stdout


def test_search_saves_the_patch_files(clip: Path, tmp_path: Path) -> None:
    answer = json.loads(run("search", clip, "-k", 2, "--save", tmp_path / "found", "--json").stdout)
    files = sorted((tmp_path / "found").iterdir())
    assert sorted(hit["file"] for hit in answer["hits"]) == [str(path) for path in files]
    for path in files:
        data = path.read_bytes()
        assert data[:2] == b"\xf0\x43"  # a system-exclusive message of Yamaha's
        assert data[-1] == 0xF7


def test_search_turns_pages(clip: Path) -> None:
    first = run("search", clip, "-k", 2)
    assert first.stderr == "hits 1 to 2 of 12; --offset 2 for the next\n"
    both = json.loads(run("search", clip, "-k", 4, "--json").stdout)
    second = json.loads(run("search", clip, "-k", 2, "--offset", 2, "--json").stdout)
    assert second["hits"] == both["hits"][2:]
    assert (second["total"], second["offset"]) == (12, 2)
    assert run("search", clip, "-k", 2, "--offset", 2).stdout.splitlines()[3].split()[0] == "3"
    assert "There are 12 hits: --offset is at most 11." in run("search", clip, "--offset", 12).stdout


def test_search_like_a_patch_with_its_near_duplicate(clip: Path) -> None:
    bundle = Bundle.open(tiny_bundle_folder())
    ids = {patch.name: patch.patch_id for patch in bundle.patches}
    answer = json.loads(run("search", "--like", ids["Tone 1"], "--pitch", 66, "-k", 1, "--json").stdout)
    assert (answer["hits"][0]["name"], answer["hits"][0]["also"]) == ("Tone 2", [ids["Tone 3"]])
    assert answer["query"]["midi"] == 66.0
    printed = run("search", "--like", ids["Tone 1"], "-k", 2)
    assert printed.stdout.splitlines()[2].split()[-1] == "also"
    assert printed.stdout.splitlines()[3].split()[-1] == ids["Tone 3"]
    apart = run(
        "search", "--like", ids["Tone 1"], "--no-fold", "--bank", "tiny", "--family", "flute", "--json"
    )
    assert [hit["name"] for hit in json.loads(apart.stdout)["hits"]] == ["Tone 3"]


def test_search_by_vectors_and_by_two_recordings(clip: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.wav"
    soundfile.write(other, tone(60.3, 0.2, 0.0), 24_000)
    vectors = tmp_path / "vectors.npz"
    assert run("embed", clip, other, "-o", vectors).exit_code == 0
    one = json.loads(run("search", clip, "--pitch", 60, "--json").stdout)
    same = json.loads(run("search", "--vectors", vectors, "--row", 0, "--pitch", 60, "--json").stdout)
    assert [hit["patch_id"] for hit in same["hits"]] == [hit["patch_id"] for hit in one["hits"]]
    distances = [hit["stage2_distance"] for hit in one["hits"]]
    assert [hit["stage2_distance"] for hit in same["hits"]] == pytest.approx(distances, abs=1e-6)
    both = run("search", clip, other, "-k", 1)
    assert "median of 2 recordings (MIDI 60.0 to 60.3)" in both.stdout
    assert "Tone 8" in both.stdout
    assert "holds 2 recordings: choose one with --row 0 to 1" in failure(run("search", "--vectors", vectors))
    assert "--row is 0 to 1" in failure(run("search", "--vectors", vectors, "--row", 2))


def test_silence_has_no_hits(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(24_000), 24_000)
    result = run("search", tmp_path / "silence.wav")
    assert result.exit_code == 0
    assert "gate   silent" in result.stdout
    assert "No patch was compared." in result.stdout


def test_require_refuses_noise(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 24_000)
    soundfile.write(tmp_path / "noise.wav", noise, 24_000)
    assert "unpitched" in failure(run("search", tmp_path / "noise.wav", "--gate", "require"))


def test_locate(clip: Path) -> None:
    text = run("locate", clip).stdout.splitlines()
    answer = json.loads(run("locate", clip, "--json").stdout)
    assert text[2] == f"place  {answer['x']:.3f},{answer['y']:.3f}"
    distances = [each["distance"] for each in answer["nearest"]]
    assert distances == sorted(distances)
    assert len(text) == 4 + len(distances)


def test_locate_without_refining(clip: Path) -> None:
    plain, refined = (
        json.loads(run("locate", clip, "--json", *more).stdout) for more in (["--no-refine"], [])
    )
    assert np.hypot(plain["x"] - 0.2, plain["y"]) < 0.2
    assert plain["query"] == refined["query"]
    assert (plain["x"], plain["y"]) != (refined["x"], refined["y"])


def test_synthesize_writes_the_note(tmp_path: Path) -> None:
    result = run("synthesize", "--at", "0.2,-0.4", "--pitch", 57, "--seconds", 1, "-o", tmp_path / "note.wav")
    assert result.exit_code == 0, result.stderr
    assert "1.00 s, A3, 24000 Hz" in result.stderr
    note = read(tmp_path / "note.wav")
    assert note.seconds == pytest.approx(1.0, abs=0.01)
    assert estimate(note.samples, note.sample_rate).midi == pytest.approx(57, abs=0.3)


def test_synthesize_to_stdout_is_the_same_file(tmp_path: Path) -> None:
    run("synthesize", "--at=-0.2,0.3", "--seconds", 0.5, "-o", tmp_path / "note.wav")
    out = run("synthesize", "--at=-0.2,0.3", "--seconds", 0.5, "-o", "-").stdout_bytes
    assert out == (tmp_path / "note.wav").read_bytes()


def test_a_softer_note_is_quieter(tmp_path: Path) -> None:
    for velocity in (100, 50):
        output = tmp_path / f"{velocity}.wav"
        run("synthesize", "--at=-0.2,0.3", "--seconds", 0.5, "--velocity", velocity, "-o", output)
    loud, soft = (float(np.abs(read(tmp_path / f"{v}.wav").samples).max()) for v in (100, 50))
    assert soft / loud == pytest.approx(0.25, abs=0.001)


def test_instrument_writes_a_folder_or_a_zip_of_the_same_files(tmp_path: Path) -> None:
    folder, archive = tmp_path / "warm", tmp_path / "warm.zip"
    for out in (folder, archive):
        result = run("instrument", "--x", 0.2, "--y", -0.4, "--seconds", 0.3, "--out", out)
        assert result.exit_code == 0, result.stderr
        assert result.stdout == ""
        assert f"wrote {out}: 25 notes of 0.29 s" in result.stderr
    with zipfile.ZipFile(archive) as opened:
        zipped = {name.partition("/")[2]: opened.read(name) for name in opened.namelist()}
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
    assert files == zipped
    assert len([name for name in files if name.endswith(".wav")]) == 25
    note = read(files["samples/timbrel_x0.20_y-0.40-057.wav"])
    assert estimate(note.samples, note.sample_rate).midi == pytest.approx(57, abs=0.3)


def test_instrument_writes_over_no_folder_of_yours(tmp_path: Path) -> None:
    (tmp_path / "song.txt").write_text("la")
    assert "is there already" in failure(run("instrument", "--x", 0, "--y", 0, "--out", tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["song.txt"]
    (tmp_path / "folder.zip").mkdir()
    assert "is a folder" in failure(run("instrument", "--x", 0, "--y", 0, "--out", tmp_path / "folder.zip"))


def test_embed(tmp_path: Path) -> None:
    names = []
    for number, pitch in enumerate((60, 60, 72)):
        names.append(str(tmp_path / f"{number}.flac"))
        soundfile.write(names[-1], tone(pitch, 0.2, 0.0), 24_000)
    out = tmp_path / "vectors.npz"
    result = run("embed", *names, "-o", out)
    assert result.exit_code == 0, result.stderr
    with np.load(out, allow_pickle=False) as data:
        assert data["files"].tolist() == names
        assert data["stage1"].shape == (3, 16)
        assert data["stage2"].shape == (3, 96)
        np.testing.assert_allclose(np.linalg.norm(data["stage2"], axis=1), 1.0, atol=1e-5)
        np.testing.assert_allclose(data["stage2"][0], data["stage2"][1], atol=1e-6)
        assert data["stage2"][0] @ data["stage2"][2] < 0.99


def test_embed_many_files_keeps_their_order(tmp_path: Path) -> None:
    names = []
    for number in range(70):
        names.append(str(tmp_path / f"{number}.wav"))
        soundfile.write(names[-1], tone(48 + number % 25, 0.2, 0.0, seconds=0.3, held=0.3), 24_000)
    run("embed", *names, "-o", tmp_path / "all.npz")
    with np.load(tmp_path / "all.npz") as data:
        assert data["files"].tolist() == names
        # Number 25 is number 0 again, and so on.
        np.testing.assert_allclose(data["stage1"][25:50], data["stage1"][:25], atol=1e-5)
        assert np.unique(data["stage1"][:25].round(3), axis=0).shape[0] == 25


def test_embed_stops_at_an_unreadable_file_and_writes_nothing(clip: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"not audio")
    result = run("embed", clip, bad, "-o", tmp_path / "out.npz")
    assert result.exit_code == 2
    assert f"timbrel: {bad}: not readable as audio" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.wav", "clip.wav"]


def test_embed_can_leave_unreadable_files_out(clip: Path, tmp_path: Path) -> None:
    bad, out = tmp_path / "bad.wav", tmp_path / "out.npz"
    bad.write_bytes(b"not audio")
    result = run("embed", bad, clip, "-o", out, "--skip-unreadable")
    assert result.exit_code == 0
    assert f"left out: {bad}" in result.stderr
    with np.load(out) as data:
        assert data["files"].tolist() == [str(clip)]
    assert "none of the files" in run("embed", bad, "-o", out, "--skip-unreadable").stderr


def test_embed_wants_an_existing_folder(clip: Path, tmp_path: Path) -> None:
    assert "does not exist" in failure(run("embed", clip, "-o", tmp_path / "no" / "out.npz"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("search", "nowhere.wav"), "cannot open nowhere.wav: No such file"),
        (("search",), "search with one of these: FILES, --like PATCH_ID, or --vectors NPZ"),
        (("search", "{clip}", "--like", "dx7-1"), "search with one of these"),
        (("search", "{clip}", "--row", 1), "give --vectors, too"),
        (("search", "--like", "dx7-1"), "there is no patch 'dx7-1'"),
        (("search", "--vectors", "nowhere.npz"), "cannot open nowhere.npz: No such file"),
        (("search", "--vectors", "{clip}"), "holds no stage1 and stage2"),
        (("search", "{clip}", "--family", "flutes"), "no family 'flutes': choose among flute, "),
        (("search", "{clip}", "--bank", "x"), "no bank 'x': choose among spare, tiny"),
        (("search", "{clip}", "--min-confidence", 2), "min_confidence is a confidence from 0 to 1, not 2"),
        (("search", "{clip}", "--offset", 950, "-k", 51), "offset + k is at most 1000, not 1001"),
        (("search", "{clip}", "-k", 0), "from 1 to 100, not 0"),
        (("search", "{clip}", "--pitch", 200), "from 0 to 127, not 200"),
        (("search", "{clip}", "--bundle", "nowhere"), "manifest.json is missing"),
        (("locate", "nowhere.wav"), "cannot open nowhere.wav"),
        (("synthesize", "--at", "5,5"), "not 5"),
        (("synthesize", "--at", "0,0", "--pitch", 100), "from 48 to 72, not 100"),
        (("synthesize", "--at", "0,0", "--velocity", 0), "from 1 to 127, not 0"),
        (("synthesize", "--at", "0,0", "--seconds", 100), "from 0.2 to 10, not 100"),
        (("synthesize", "--at", "0,0", "-o", "."), "is a folder"),
        (("instrument", "--x", 5, "--y", 5, "--out", "five"), "not 5"),
        (
            ("instrument", "--x", 0, "--y", 0, "--seconds", 100, "--out", "long.zip"),
            "from 0.2 to 10, not 100",
        ),
    ],
)
def test_mistakes_are_one_line(
    arguments: tuple[object, ...], says: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert says in failure(run(*(str(each).format(clip=clip) for each in arguments)))
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("place", ["5", "a,b", "1,2,3", "nan,0", ""])
def test_a_place_is_two_numbers(place: str) -> None:
    result = run("synthesize", "--at", place)
    assert result.exit_code == 2
    assert "is not a place" in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        "search",
        "locate",
        "synthesize",
        "instrument",
        "embed",
        "serve",
        "evaluate",
        "evaluate search",
        "evaluate synthesis",
    ],
)
def test_help_teaches(command: str) -> None:
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert "Usage: main" in result.stdout
    if command != "evaluate" and command != "serve":
        assert f"timbrel {command}" in result.stdout, "an example to copy"
    assert max(map(len, result.stdout.splitlines())) <= 88


def test_help_answers_without_the_heavy_parts() -> None:
    """--help is what a newcomer types first: it must not wait for onnxruntime, Faiss or BentoML."""
    program = (
        "import sys; from timbrel.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([n for n in ('onnxruntime', 'faiss', 'bentoml', 'torch', 'soundfile') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "which patch sounds like this recording?" in done.stdout


def test_serve_hands_the_settings_to_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Settings] = []
    monkeypatch.setattr(launcher, "serve", served.append)
    assert run("serve", "--port", 4321).exit_code == 0
    assert served[0].http_port == 4321
    assert served[0].bundle == tiny_bundle_folder()


def test_serve_says_its_errors_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(settings: Settings) -> None:
        raise BundleError("the bundle is torn")

    monkeypatch.setattr(launcher, "serve", fail)
    assert failure(run("serve")) == "the bundle is torn"


def test_a_wrong_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMBREL_HTTP_PORT", "http")
    assert "TIMBREL_HTTP_PORT" in failure(run("serve"))


def test_evaluate_synthesis_prints_and_writes_the_report(tmp_path: Path) -> None:
    result = run("evaluate", "synthesis", "--pairs", 3, "--seconds", 0.5, "-o", tmp_path / "report.json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == json.loads((tmp_path / "report.json").read_text())
    assert json.loads(result.stdout)["results"]["notes"] == 3


def test_evaluate_search_takes_velocities_in_order() -> None:
    assert "lower one first" in failure(run("evaluate", "search", "--velocities", 90, 60))


def test_note_names() -> None:
    assert note_name(60.0) == "C4"
    assert note_name(69.25) == "A4 +25"
    assert note_name(59.6) == "C4 -40"
    assert note_name(61) == "C#4"
    assert note_name(0) == "C-1"
    assert note_name(None) == note_name(float("nan")) == "-"


def test_tables_align() -> None:
    assert table(("a", "bb"), [("xyz", "1"), ("q", "22")], right=(1,)) == "a    bb\nxyz   1\nq    22"


def test_progress_speaks_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter([0.0, 1.0, 3.5, 4.0, 7.0])
    monkeypatch.setattr("timbrel.cli.shell.time.monotonic", lambda: next(now))
    progress = Progress()
    for done in (1, 2, 3, 4):
        progress("files", done, 4)
    assert capsys.readouterr().err == "files: 2 of 4\nfiles: 4 of 4\n"


def test_audio_formats_reach_the_search(tmp_path: Path) -> None:
    """A stereo 48 kHz FLAC and a 44.1 kHz MP3 of the same tone find the same patch."""
    samples = np.repeat(tone(60, 0.2, 0.0), 2)
    for name, format in (("a.flac", "FLAC"), ("a.mp3", "MP3")):
        out = io.BytesIO()
        soundfile.write(out, np.stack([samples, samples], axis=1), 48_000, format=format)
        (tmp_path / name).write_bytes(out.getvalue())
        answer = json.loads(run("search", tmp_path / name, "-k", 1, "--json").stdout)
        assert answer["query"]["midi"] == pytest.approx(60.0, abs=0.1)
