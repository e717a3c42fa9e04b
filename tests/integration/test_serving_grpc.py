"""gRPC on a real service: the numbers of HTTP, errors with their codes, streams, limits, health and reflection."""

from __future__ import annotations

import gzip
import io
import queue
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import soundfile
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from support.recordings import encoded, note, wav_note
from support.serving import Serving
from support.tiny_bundle import tiny_bundle_folder

from timbrel.library.bundle import Bundle
from timbrel.v1 import timbrel_pb2 as pb
from timbrel.v1 import timbrel_pb2_grpc as pb_grpc

SECONDS = 60
PLACE = {"x": 0.2, "y": -0.4}
NOTE = {**PLACE, "pitch": 60, "velocity": 90, "seconds": 0.5}
FILE = pb.RecordingFormat(encoding=pb.ENCODING_FILE)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """`timbrel serve` with the models in its one worker, and small limits."""
    running = Serving.start(
        tiny_bundle_folder(),
        tmp_path_factory.mktemp("grpc"),
        engine="inprocess",
        workers="1",
        max_upload_mib="1",
        max_seconds="5",
    )
    try:
        yield running.wait_ready()
    finally:
        running.stop()


@pytest.fixture(scope="module")
def http(served: Serving) -> Iterator[httpx.Client]:
    with served.client() as client:
        yield client


@pytest.fixture(scope="module")
def channel(served: Serving) -> Iterator[grpc.Channel]:
    with served.channel() as opened:
        yield opened


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> pb_grpc.TimbrelStub:
    return pb_grpc.TimbrelStub(channel)


@pytest.fixture(scope="module")
def bundle() -> Iterator[Bundle]:
    opened = Bundle.open(tiny_bundle_folder())
    yield opened
    opened.close()


def _fields(message: Any) -> dict[str, Any]:
    return dict(
        json_format.MessageToDict(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
    )


def _as_http(answer: Any) -> dict[str, Any]:
    """An answer of HTTP with what gRPC leaves out: links, and what is null."""
    if isinstance(answer, dict):
        kept = {
            name: _as_http(value) for name, value in answer.items() if name != "links" and value is not None
        }
        return kept
    return [_as_http(value) for value in answer] if isinstance(answer, list) else answer


def _failure(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str, str]:
    """Status, our code and message of what a call raises."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    trailing = dict(error.trailing_metadata() or ())
    return error.code(), trailing.get("timbrel-code", ""), error.details()


# --- the same answers as over HTTP -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "form"),
    [
        ({}, {}),
        ({"k": 3, "offset": 2, "fold": False}, {"k": "3", "offset": "2", "fold": "false"}),
        ({"gate": pb.GATE_OFF, "min_confidence": 0.5}, {"gate": "off", "min_confidence": "0.5"}),
        ({"pitch": 60.5, "octaves": True}, {"pitch": "60.5", "octaves": "true"}),
        ({"families": ["brass"], "banks": ["tiny"]}, {"family": "brass", "bank": "tiny"}),
        ({"gate": pb.GATE_REQUIRE}, {"gate": "require"}),
    ],
)
def test_search_by_a_recording(
    stub: pb_grpc.TimbrelStub, http: httpx.Client, options: dict[str, Any], form: dict[str, str]
) -> None:
    request = pb.SearchRequest(
        recordings=pb.Recordings(audio=[wav_note()]), options=pb.SearchOptions(**options)
    )
    expected = http.post("/search", files={"audio": ("clip", wav_note())}, data=form).raise_for_status()
    assert expected.json()["hits"]
    assert _fields(stub.Search(request, timeout=SECONDS)) == _as_http(expected.json())


def test_search_by_several_recordings_by_a_patch_and_by_vectors(
    stub: pb_grpc.TimbrelStub, http: httpx.Client, bundle: Bundle
) -> None:
    clips = [wav_note(hz=hz) for hz in (261.6, 262.5)]
    several = pb.SearchRequest(recordings=pb.Recordings(audio=clips))
    expected = http.post("/search", files=[("audio", (f"{n}", clip)) for n, clip in enumerate(clips)])
    assert _fields(stub.Search(several, timeout=SECONDS)) == _as_http(expected.json())

    like = bundle.patches[4].patch_id
    expected = http.post("/search", json={"like": like, "pitch": 66, "k": 3}).raise_for_status()
    request = pb.SearchRequest(like=like, options=pb.SearchOptions(pitch=66, k=3))
    assert _fields(stub.Search(request, timeout=SECONDS)) == _as_http(expected.json())

    row = int(bundle.rows_of(like)[0])
    stage1, stage2 = bundle.index.vectors(np.array([row]))[0].tolist(), bundle.stage2[row].tolist()
    expected = http.post("/search", json={"stage1": stage1, "stage2": stage2}).raise_for_status()
    request = pb.SearchRequest(vectors=pb.Vectors(stage1=stage1, stage2=stage2))
    answer = stub.Search(request, timeout=SECONDS)
    assert answer.hits[0].patch_id == like
    assert not answer.query.HasField("midi")
    assert _fields(answer) == _as_http(expected.json())


@pytest.mark.parametrize("refine", [True, False])
def test_locate(stub: pb_grpc.TimbrelStub, http: httpx.Client, refine: bool) -> None:
    form = {"refine": str(refine).lower()}
    expected = http.post("/locate", files={"audio": ("clip", wav_note())}, data=form).raise_for_status()
    request = pb.LocateRequest(audio=wav_note(), options=pb.LocateOptions(refine=refine))
    assert _fields(stub.Locate(request, timeout=SECONDS)) == _as_http(expected.json())


def test_notes_in_one_piece_in_parts_and_as_an_instrument(
    stub: pb_grpc.TimbrelStub, http: httpx.Client
) -> None:
    for asked in (NOTE, {"x": 0.0, "y": 0.0, "pitch": 48}, NOTE | {"seconds": 10.0}):
        wav = http.post("/synthesize", json=asked).raise_for_status().content
        assert stub.Synthesize(pb.SynthesizeRequest(**asked), timeout=SECONDS).wav == wav
        parts = list(stub.SynthesizeStream(pb.SynthesizeRequest(**asked), timeout=SECONDS))
        assert b"".join(part.data for part in parts) == wav[44:]
        assert (parts[0].sample_rate, parts[0].total_samples) == (24_000, (len(wav) - 44) // 2)
        assert len(parts) == -(-(len(wav) - 44) // 2**18)
    expected = http.post("/instrument", json=PLACE | {"seconds": 0.5}).raise_for_status()
    files = list(stub.ExportInstrument(pb.ExportInstrumentRequest(**PLACE, seconds=0.5), timeout=SECONDS))
    data = b"".join(part.data for part in files)
    assert data == expected.content
    assert len(files) > 1
    assert (files[0].filename, files[0].total_bytes) == ("timbrel_x0.20_y-0.40.zip", len(data))
    assert len(zipfile.ZipFile(io.BytesIO(data)).namelist()) == 27


def test_the_library(stub: pb_grpc.TimbrelStub, http: httpx.Client, bundle: Bundle) -> None:
    page = stub.ListPatches(pb.ListPatchesRequest(), timeout=SECONDS)
    assert page.total == len(bundle.patches)
    assert [each.patch_id for each in page.patches] == [each.patch_id for each in bundle.patches]
    second = stub.ListPatches(pb.ListPatchesRequest(offset=5, limit=4), timeout=SECONDS)
    assert list(second.patches) == list(page.patches[5:9])
    brass = stub.ListPatches(pb.ListPatchesRequest(families=["brass"], banks=["tiny"]), timeout=SECONDS)
    assert (brass.total, [each.name for each in brass.patches]) == (1, ["Tone 2"])
    hiss = page.patches[13]
    assert (hiss.name, hiss.engine, list(hiss.pitches)) == ("Hiss", "soundfont", [])
    assert list(page.patches[12].pitches) == [60.0, 66.0, 72.0, 78.0, 84.0]
    for patch in (page.patches[0], hiss):
        assert stub.GetPatch(pb.GetPatchRequest(patch_id=patch.patch_id), timeout=SECONDS) == patch
        file = stub.GetPatchFile(pb.GetPatchFileRequest(patch_id=patch.patch_id), timeout=SECONDS)
        expected = http.get(f"/patches/{patch.patch_id}/file").raise_for_status()
        assert (file.data, file.media_type) == (expected.content, expected.headers["content-type"])
        assert file.filename in expected.headers["content-disposition"]
        preview = stub.GetPatchPreview(pb.GetPatchPreviewRequest(patch_id=patch.patch_id), timeout=SECONDS)
        expected = http.get(f"/patches/{patch.patch_id}/preview").raise_for_status()
        assert (preview.data, preview.media_type) == (expected.content, "audio/mpeg")


def test_the_server_tells_what_it_serves(stub: pb_grpc.TimbrelStub, bundle: Bundle) -> None:
    info = stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=SECONDS)
    assert (info.bundle_id, info.engine) == (bundle.id, "inprocess")
    assert (info.patches, info.renders) == (14, 70)
    assert list(info.banks) == ["spare", "tiny"]
    assert info.map == pb.Map(radius=1, pitch_low=48, pitch_high=72, velocity_low=40, velocity_high=127)
    assert (info.stage1_dimension, info.stage2_dimension) == (bundle.index.dimension, bundle.stage2.shape[1])
    assert (info.max_upload_bytes, info.max_seconds, info.deadline_seconds) == (2**20, 5.0, 30.0)


# --- streams -----------------------------------------------------------------------------------------------------


def _parts(data: bytes, form: pb.RecordingFormat, size: int = 10_000) -> Iterator[pb.RecordingPart]:
    for start in range(0, len(data), size):
        yield pb.RecordingPart(data=data[start : start + size], format=form if start == 0 else None)


def _upload(*recordings: Iterator[pb.RecordingPart], **options: Any) -> Iterator[pb.SearchUploadRequest]:
    if options:
        yield pb.SearchUploadRequest(options=pb.SearchOptions(**options))
    for parts in recordings:
        for part in parts:
            yield pb.SearchUploadRequest(recording=part)


def test_a_recording_in_parts_is_the_recording(stub: pb_grpc.TimbrelStub) -> None:
    samples = note(48_000, channels=2)
    flac = encoded(samples, 48_000, "FLAC", "PCM_16")
    recordings = pb.Recordings(audio=[flac])
    expected = stub.Search(
        pb.SearchRequest(recordings=recordings, options=pb.SearchOptions(k=4)), timeout=SECONDS
    )
    assert stub.SearchUpload(_upload(_parts(flac, FILE), k=4), timeout=SECONDS) == expected
    located = stub.Locate(pb.LocateRequest(audio=flac), timeout=SECONDS)
    assert (
        stub.LocateUpload(
            (pb.LocateUploadRequest(recording=part) for part in _parts(flac, FILE)), timeout=SECONDS
        )
        == located
    )
    two = pb.SearchRequest(recordings=pb.Recordings(audio=[flac, wav_note()]))
    parts = (_parts(flac, FILE), _parts(wav_note(), FILE))
    assert stub.SearchUpload(_upload(*parts), timeout=SECONDS) == stub.Search(two, timeout=SECONDS)


@pytest.mark.parametrize(
    ("encoding", "subtype", "dtype"),
    [(pb.ENCODING_PCM_S16LE, "PCM_16", "<i2"), (pb.ENCODING_PCM_F32LE, "FLOAT", "<f4")],
)
def test_bare_samples_are_the_recording(
    stub: pb_grpc.TimbrelStub, encoding: Any, subtype: str, dtype: str
) -> None:
    wav = encoded(note(24_000, channels=2), 24_000, "WAV", subtype)
    read = soundfile.read(io.BytesIO(wav), dtype="int16" if dtype == "<i2" else "float32")[0]
    form = pb.RecordingFormat(encoding=encoding, sample_rate=24_000, channels=2)
    expected = stub.Search(pb.SearchRequest(recordings=pb.Recordings(audio=[wav])), timeout=SECONDS)
    # An odd size: samples are cut apart.
    parts = _parts(read.astype(dtype).tobytes(), form, size=9_999)
    assert stub.SearchUpload(_upload(parts), timeout=SECONDS) == expected


def test_a_batch_answers_each_in_its_order_and_as_it_comes(stub: pb_grpc.TimbrelStub, bundle: Bundle) -> None:
    requests = [
        pb.SearchRequest(like=patch.patch_id, options=pb.SearchOptions(k=2)) for patch in bundle.patches
    ]
    requests.insert(3, pb.SearchRequest(like="nobody"))
    answers = list(stub.SearchBatch(iter(requests), timeout=SECONDS))
    assert len(answers) == 15
    assert answers[3].error.code == "not_found"
    assert "'nobody'" in answers[3].error.message
    for request, answer in zip(requests, answers, strict=True):
        if request.like != "nobody":
            assert answer.response == stub.Search(request, timeout=SECONDS)

    notes = [pb.SynthesizeRequest(**NOTE | {"pitch": key}) for key in (50, 47, 60)]
    made = list(stub.SynthesizeBatch(iter(notes), timeout=SECONDS))
    assert [each.WhichOneof("outcome") for each in made] == ["response", "error", "response"]
    assert made[1].error.code == "invalid_input"
    assert made[0].response == stub.Synthesize(notes[0], timeout=SECONDS)

    # One question after the other, each when the last one is answered.
    waiting: queue.Queue[pb.SearchRequest | None] = queue.Queue()
    responses = stub.SearchBatch(iter(waiting.get, None), timeout=SECONDS)
    for request, answer in zip(requests[:3], answers, strict=False):
        waiting.put(request)
        assert next(responses) == answer
    waiting.put(None)
    assert list(responses) == []


def test_broken_streams_are_told_what_is_wrong(stub: pb_grpc.TimbrelStub) -> None:
    recording = pb.SearchUploadRequest(recording=pb.RecordingPart(data=wav_note(), format=FILE))
    bare = pb.SearchUploadRequest(recording=pb.RecordingPart(data=b"RIFF"))
    options = pb.SearchUploadRequest(options=pb.SearchOptions(k=1))
    silly = pb.RecordingFormat(encoding=pb.ENCODING_PCM_S16LE, sample_rate=0)
    odd = pb.SearchUploadRequest(recording=pb.RecordingPart(format=silly))
    unknown = pb.RecordingPart(format=pb.RecordingFormat(encoding=7))  # type: ignore[arg-type]
    for parts, message in (
        ([], "there is no recording"),
        ([options], "there is no recording"),
        ([bare], "says no format"),
        ([recording, options], "at most once and first"),
        ([options, options], "at most once and first"),
        ([pb.SearchUploadRequest()], "at most once and first"),
        ([odd], "sample_rate above 0"),
        ([pb.SearchUploadRequest(recording=unknown)], "no encoding 7"),
        ([recording] * 9, "at most 8 recordings"),
    ):
        status, code, told = _failure(lambda parts=parts: stub.SearchUpload(iter(parts), timeout=SECONDS))
        assert (status, code) == (grpc.StatusCode.INVALID_ARGUMENT, "invalid_input"), told
        assert message in told


# --- errors and limits -------------------------------------------------------------------------------------------


def _search(stub: Any, audio: bytes = b"", **options: Any) -> Any:
    recordings = pb.Recordings(audio=[audio or wav_note()])
    request = pb.SearchRequest(recordings=recordings, options=pb.SearchOptions(**options))
    return stub.Search(request, timeout=SECONDS)


@pytest.mark.parametrize(
    ("call", "status", "code", "message"),
    [
        (lambda stub: _search(stub, k=0), "INVALID_ARGUMENT", "invalid_input", "k: input should be greater"),
        (lambda stub: _search(stub, k=101), "INVALID_ARGUMENT", "invalid_input", "k: input should be less"),
        (lambda stub: _search(stub, gate=9), "INVALID_ARGUMENT", "invalid_input", "gate: input should be"),
        (lambda stub: _search(stub, families=["no"]), "INVALID_ARGUMENT", "invalid_input", "no family 'no'"),
        (lambda stub: _search(stub, b"words"), "INVALID_ARGUMENT", "unreadable_audio", "not readable"),
        (
            lambda stub: _search(stub, encoded(np.zeros(24_000), 24_000, "WAV", "PCM_16"), gate=2),
            "FAILED_PRECONDITION", "unsuitable_query", "silent",
        ),
        (lambda stub: _search(stub, wav_note(seconds=6)), "RESOURCE_EXHAUSTED", "audio_too_large", "lasts 6 s"),
        (
            lambda stub: stub.Search(pb.SearchRequest(), timeout=SECONDS),
            "INVALID_ARGUMENT", "invalid_input", "nothing to search with",
        ),
        (
            lambda stub: stub.Search(pb.SearchRequest(recordings=pb.Recordings()), timeout=SECONDS),
            "INVALID_ARGUMENT", "invalid_input", "1 to 8 recordings, not 0",
        ),
        (
            lambda stub: stub.Search(pb.SearchRequest(like="nobody"), timeout=SECONDS),
            "NOT_FOUND", "not_found", "no patch 'nobody'",
        ),
        (
            lambda stub: stub.Search(pb.SearchRequest(vectors=pb.Vectors(stage1=[1.0])), timeout=SECONDS),
            "INVALID_ARGUMENT", "invalid_input", "stage2 holds 0 numbers",
        ),
        (
            lambda stub: stub.Synthesize(pb.SynthesizeRequest(x=0, y=0), timeout=SECONDS),
            "INVALID_ARGUMENT", "invalid_input", "pitch is missing",
        ),
        (
            lambda stub: stub.Synthesize(pb.SynthesizeRequest(x=float("nan"), pitch=60), timeout=SECONDS),
            "INVALID_ARGUMENT", "invalid_input", "x: input should be a finite number",
        ),
        (
            lambda stub: list(stub.ExportInstrument(pb.ExportInstrumentRequest(x=2), timeout=SECONDS)),
            "INVALID_ARGUMENT", "invalid_input", "x is a coordinate of the map",
        ),
        (
            lambda stub: stub.ListPatches(pb.ListPatchesRequest(limit=1001), timeout=SECONDS),
            "INVALID_ARGUMENT", "invalid_input", "limit is a whole number from 1 to 1000",
        ),
        (
            lambda stub: stub.GetPatchFile(pb.GetPatchFileRequest(patch_id="../x"), timeout=SECONDS),
            "NOT_FOUND", "not_found", "no patch '../x'",
        ),
    ],
)  # fmt: skip
def test_errors_have_their_code(
    stub: pb_grpc.TimbrelStub, call: Callable[[Any], Any], status: str, code: str, message: str
) -> None:
    found, told_code, told = _failure(lambda: call(stub))
    assert (found.name, told_code) == (status, code), told
    assert message in told


def test_the_message_is_that_of_http(stub: pb_grpc.TimbrelStub, http: httpx.Client) -> None:
    asked = {"x": 0.0, "y": 0.0, "pitch": 90}
    expected = http.post("/synthesize", json=asked).json()["error"]
    _, code, message = _failure(lambda: stub.Synthesize(pb.SynthesizeRequest(**asked), timeout=SECONDS))
    assert {"code": code, "message": message} == expected


def test_too_much_is_refused_before_it_is_read(
    stub: pb_grpc.TimbrelStub, channel: grpc.Channel, http: httpx.Client
) -> None:
    large = bytes(2**20 + 2**17)
    status, _, _ = _failure(lambda: _search(stub, large))
    assert status is grpc.StatusCode.RESOURCE_EXHAUSTED
    # Two recordings that are each small enough.
    half = pb.SearchRequest(recordings=pb.Recordings(audio=[bytes(2**19 + 100)] * 2))
    status, code, _ = _failure(lambda: stub.Search(half, timeout=SECONDS))
    assert (status, code) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "audio_too_large")
    # What only grows when it is unpacked.
    status, _, _ = _failure(
        lambda: stub.Locate(
            pb.LocateRequest(audio=bytes(2**26)), timeout=SECONDS, compression=grpc.Compression.Gzip
        )
    )
    assert status is grpc.StatusCode.RESOURCE_EXHAUSTED

    sent = 0

    def endless() -> Iterator[pb.SearchUploadRequest]:
        nonlocal sent
        while True:
            form = FILE if sent == 0 else None
            sent += 2**16
            yield pb.SearchUploadRequest(recording=pb.RecordingPart(data=bytes(2**16), format=form))

    status, code, message = _failure(lambda: stub.SearchUpload(endless(), timeout=SECONDS))
    assert (status, code) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "audio_too_large")
    assert "larger than 1 MiB" in message
    # A recording of hours in a few kilobytes.
    silence = encoded(np.zeros(48_000 * 600), 48_000, "FLAC", "PCM_16")
    assert len(gzip.compress(silence)) < len(silence) < 2**20
    status, code, _ = _failure(lambda: stub.Locate(pb.LocateRequest(audio=silence), timeout=SECONDS))
    assert (status, code) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "audio_too_large")
    assert _search(stub, k=1).hits
    assert http.get("/readyz").status_code == 200


def test_a_request_keeps_its_name(stub: pb_grpc.TimbrelStub) -> None:
    request = pb.GetServerInfoRequest()
    _, call = stub.GetServerInfo.with_call(request, timeout=SECONDS, metadata=(("x-request-id", "take-7"),))
    assert dict(call.initial_metadata())["x-request-id"] == "take-7"
    made = [
        dict(stub.GetServerInfo.with_call(request, timeout=SECONDS, metadata=sent)[1].initial_metadata())
        for sent in ((), (("x-request-id", "two words"),))
    ]
    assert all(len(each["x-request-id"]) == 32 for each in made)
    assert made[0] != made[1]
    failing = stub.Search.future(pb.SearchRequest(), timeout=SECONDS, metadata=(("x-request-id", "take-8"),))
    assert failing.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert dict(failing.initial_metadata())["x-request-id"] == "take-8"


def test_requests_are_counted_with_those_of_http(stub: pb_grpc.TimbrelStub, http: httpx.Client) -> None:
    def counted(endpoint: str, outcome: str) -> float:
        start = f'timbrel_requests_total{{endpoint="{endpoint}",outcome="{outcome}"}} '
        lines = [line for line in http.get("/metrics").text.splitlines() if line.startswith(start)]
        return float(lines[0].rpartition(" ")[2]) if lines else 0.0

    watched = [
        ("search", "ok"),
        ("search", "not_found"),
        ("info", "ok"),
        ("search", "invalid_input"),
        ("patches", "ok"),
    ]
    before = [counted(*each) for each in watched]
    _search(stub, k=1)
    http.post("/search", files={"audio": ("clip", wav_note())}).raise_for_status()
    _failure(lambda: _search(stub, k=0))
    list(stub.SearchBatch(iter([pb.SearchRequest(like="nobody")] * 3), timeout=SECONDS))
    stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=SECONDS)
    stub.ListPatches(pb.ListPatchesRequest(limit=1), timeout=SECONDS)
    http.get("/patches", params={"limit": 1}).raise_for_status()
    after = [counted(*each) for each in watched]
    assert [b - a for a, b in zip(before, after, strict=True)] == [2, 3, 1, 1, 2]


# --- health and reflection ---------------------------------------------------------------------------------------


def test_health(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", "timbrel.v1.Timbrel"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=SECONDS)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        health.Check(health_pb2.HealthCheckRequest(service="other"), timeout=SECONDS)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=SECONDS)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


def test_reflection_is_the_same_under_its_newer_name(channel: grpc.Channel) -> None:
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="timbrel.v1.Timbrel"),
        reflection_pb2.ServerReflectionRequest(file_by_filename="nowhere.proto"),
    ]
    answers = []
    for version in ("v1", "v1alpha"):
        reflect = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        answers.append(list(reflect(iter(asked), timeout=SECONDS)))
    services, files, unknown = answers[0]
    assert "timbrel.v1.Timbrel" in {each.name for each in services.list_services_response.service}
    assert files.file_descriptor_response.file_descriptor_proto == [pb.DESCRIPTOR.serialized_pb]
    assert unknown.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert answers[0] == answers[1]


def test_a_client_without_our_messages_finds_them_by_reflection(channel: grpc.Channel) -> None:
    """As grpcurl does: list, describe, and call with what was described."""
    database = ProtoReflectionDescriptorDatabase(channel)
    assert set(database.get_services()) == {
        "timbrel.v1.Timbrel", "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection",
    }  # fmt: skip
    pool = descriptor_pool.DescriptorPool(database)
    service = pool.FindServiceByName("timbrel.v1.Timbrel")
    assert [method.name for method in service.methods] == [
        method.name for method in pb.DESCRIPTOR.services_by_name["Timbrel"].methods
    ]
    method = service.methods_by_name["Synthesize"]
    asked, answered = (message_factory.GetMessageClass(t) for t in (method.input_type, method.output_type))
    assert asked is not pb.SynthesizeRequest
    call = channel.unary_unary(
        "/timbrel.v1.Timbrel/Synthesize",
        request_serializer=asked.SerializeToString,
        response_deserializer=answered.FromString,
    )
    wav = call(json_format.ParseDict(NOTE | {"seconds": 1.0}, asked()), timeout=SECONDS).wav
    samples, rate = soundfile.read(io.BytesIO(wav))
    assert (rate, len(samples)) == (24_000, 24_000)
    assert np.abs(samples).max() > 0.3
