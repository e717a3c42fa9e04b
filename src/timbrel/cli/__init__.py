"""``timbrel``: the command line. ``main`` is the entry point; each command is in the module named for what it
does.

Commands import what they need when they run, so that ``--help`` answers at once.
"""

from __future__ import annotations

import click

from timbrel.cli.ask import locate, synthesize
from timbrel.cli.bundle import bundle
from timbrel.cli.data import data
from timbrel.cli.embed import embed
from timbrel.cli.encoders import encoders
from timbrel.cli.evaluate import evaluate
from timbrel.cli.index import index
from timbrel.cli.instrument import instrument
from timbrel.cli.keys import keys
from timbrel.cli.pipeline import pipeline
from timbrel.cli.search import search
from timbrel.cli.serve import serve
from timbrel.cli.shell import Commands
from timbrel.cli.triton import triton
from timbrel.cli.weights import weights

HELP = """Search synth patches by sound, and play the timbre map.

\b
  timbrel search clip.wav                  which patch sounds like this recording?
  timbrel locate clip.wav                  where on the map is it?
  timbrel synthesize --at 0.2,-0.4         what does that place on the map sound like?
  timbrel instrument --x 0.2 --y -0.4 --out warm.zip    the same as a sampler's instrument
  timbrel embed *.wav -o vectors.npz       vectors of any number of recordings
  timbrel serve                            the same over HTTP, with Triton behind it
  timbrel bundle use FOLDER                another bundle for the service that runs, without stopping it
  timbrel index push                       the bundle's index on a Milvus server, for several machines
  timbrel bundle promote                   what was built last is served from now on, if it is no worse
  timbrel keys create studio               an API key for a service that others can reach
  timbrel data fetch nsynth                NSynth, for the profile that learns from it
  timbrel pipeline check PARAMS            whether a profile can be built here, and what it would take
  timbrel weights list                     weights that others published, and how to get them
  timbrel encoders list                    the encoders that ours is measured beside, and how to serve them
  timbrel triton repository DIR            the models for a Triton on another host, for its GPU if it has one

Everything but `serve`, `bundle`, `index`, `keys`, `data`, `pipeline`, `weights`, `encoders` and `triton` runs in this
process and needs only the bundle, which `--bundle` or TIMBREL_BUNDLE names (default: the one in the repository).
Recordings are WAV, FLAC, OGG, MP3 or AIFF.
Exit status: 0, or 2 with one line that says what to do.
"""


@click.group(cls=Commands, help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="timbrel")
def main() -> None:
    """See HELP."""


for command in (
    search,
    synthesize,
    instrument,
    locate,
    embed,
    serve,
    bundle,
    index,
    keys,
    evaluate,
    data,
    pipeline,
    weights,
    encoders,
    triton,
):
    main.add_command(command)
