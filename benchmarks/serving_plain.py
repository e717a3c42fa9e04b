"""The plain thing that a user would write instead: FastAPI and onnxruntime in one process, on the bundle's files.

    uvicorn serving_plain:app --port 8080            (in the folder that holds bundle/; benchmarks/serving.py starts it)

Handlers are plain functions, which FastAPI runs on its thread pool; the sessions are shared. Recordings are decoded
with soundfile where they arrive; the library is one matrix, searched whole. What the models need around them (the clip
they hear, F0, the order of hits, the phases of a note) is Timbrel's own code, called directly: the answers are the
same, and what differs is the service. There are no limits, no queue, no keys, no metrics.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Annotated

import numpy as np
import onnxruntime
import soundfile
import soxr
from fastapi import FastAPI, File, Response
from pydantic import BaseModel

from timbrel.codec import phase
from timbrel.encoders import frontend
from timbrel.engine.finish import finished
from timbrel.library import two_stage
from timbrel.library.bundle import Bundle
from timbrel.library.coverage import Coverage
from timbrel.library.index import Found
from timbrel.pgesam import duration
from timbrel.pitch.estimate import estimate

RATE = 24_000
THREADS = int(os.environ.get("PLAIN_THREADS", "1"))

app = FastAPI()
bundle = Bundle.open(Path(os.environ.get("TIMBREL_BUNDLE", "bundle")))
stage1 = bundle.index.vectors(np.arange(len(bundle.renders)))
f0_midi = np.array([render.f0_midi for render in bundle.renders])
group_of = bundle.leader_of[bundle.patch_of]
coverage = Coverage(bundle.renders, group_of)


def _session(name: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(bundle.path(name)), options, providers=["CPUExecutionProvider"])


encoder, generator, decoder = (_session(name) for name in ("timbre_encoder", "generator", "codec_decoder"))


class Note(BaseModel):
    x: float
    y: float
    pitch: int
    velocity: int = 100
    seconds: float = 4.0


@app.get("/readyz")
def ready() -> str:
    return "yes"


@app.post("/search")
def search(audio: Annotated[bytes, File()], k: int = 10) -> dict[str, object]:
    samples, rate = soundfile.read(io.BytesIO(audio), dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    heard = estimate(mono, rate)
    clip = frontend.clip(mono if rate == RATE else soxr.resample(mono, rate, RATE))
    first, second = encoder.run(["stage1", "stage2"], {"audio": clip[None]})
    distances = 1.0 - stage1 @ first[0]
    if heard.voiced:
        least = bundle.manifest.search.window_semitones
        window = coverage.window(heard.midi, least=least, patches=k, octaves=False, allow=None)
        near = np.abs(np.rint(f0_midi) - round(heard.midi)) <= window
        distances = np.where(near, distances, np.inf)
    rows = np.argsort(distances, kind="stable")[: bundle.manifest.search.candidates]
    rows = rows[np.isfinite(distances[rows])]
    matches = two_stage.order(
        Found(rows, distances[rows]),
        query=second[0], stage2=bundle.styles, patch_of=group_of, k=k, scales=bundle.scales,
        stage1_share=bundle.manifest.search.stage1_share,
    )  # fmt: skip
    hits = []
    for match in matches:
        patch = bundle.patches[bundle.patch_of[match.row]]
        hits.append(
            {
                "patch_id": patch.patch_id,
                "name": patch.name,
                "family": patch.family,
                "distance": match.distance,
                "x": patch.x,
                "y": patch.y,
            }
        )
    return {"f0_hz": heard.f0_hz if heard.voiced else None, "hits": hits}


@app.post("/synthesize")
def synthesize(note: Note) -> Response:
    (embedding,) = generator.run(
        ["embedding"],
        {
            "position": np.array([[note.x, note.y]], dtype=np.float32),
            "pitch": np.array([note.pitch - bundle.manifest.map.pitch_low], dtype=np.int64),
            "velocity": np.array([note.velocity / 127], dtype=np.float32),
            "frames": np.array([300], dtype=np.int64),
        },
    )
    (spectrum,) = decoder.run(["log_magnitude"], {"embedding": embedding})
    samples = finished(phase.reconstruct(duration.with_duration(spectrum[0], round(75 * note.seconds))))
    samples *= min(1.0, (note.velocity / 100) ** 2)
    out = io.BytesIO()
    soundfile.write(out, samples, RATE, format="WAV", subtype="PCM_16")
    return Response(out.getvalue(), media_type="audio/wav")
