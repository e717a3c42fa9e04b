"""The networks: codec, encoder, and pGESAM's two."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from timbrel.params.values import Amount, Positive, Rate, Section, Share


class Hardware(Section):
    """What the map and the generator are trained on."""

    device: Literal["auto", "cpu", "cuda"]
    """auto: a GPU where torch sees one."""
    precision: Literal["auto", "float32", "bf16"]
    """Of the forward passes; auto: bf16 on a GPU that knows it. Weights are always float32."""
    processes: Positive | Literal["auto"]
    """Each has a part of every batch; auto: one for each GPU."""


class Codec(Section):
    """The codec: what a note's audio becomes, and is made from again."""

    kind: Literal["magnitude", "encodec"]
    """magnitude: our own. encodec: weights that others published, and that the user fetches."""
    weights: str | None
    """Folder with a trained codec. null: our own is trained here, and EnCodec is looked for where `timbrel weights
    fetch` puts it."""
    steps: Positive
    """Steps of the codec's training. This and what follows: only for our own, where it is trained here."""
    batch_frames: Positive
    """Frames in a step."""
    hidden: Positive
    """Hidden units of a layer."""
    learning_rate: Rate
    """Highest learning rate."""
    sources: Annotated[tuple[Literal["notes", "patches"], ...], Field(min_length=1)]
    """What it learns from: the training notes, the encoder's voices, or both."""
    validation_notes: Positive
    """Notes of each source and split that it is measured on, at most; of whichever codec."""


class Embeddings(Section):
    """Notes to codec embeddings."""

    batch_notes: Positive
    """Notes that are encoded at a time: what it takes of memory."""


SearchEncoder = Literal[
    "timbre", "efficientat-mn04", "efficientat-mn05", "efficientat-mn10", "efficientat-mn20", "efficientat-mn30",
    "efficientat-mn40", "clap-music", "clap-630k",
]  # fmt: skip


class Encoder(Section):
    """What the search hears with."""

    stage1: SearchEncoder
    """What finds candidates: `timbre`, our own network, or the embedding of one whose weights others published
    (`timbrel weights fetch` gets them)."""
    stage2: SearchEncoder
    """What orders them: our own network's style, or a published one's. Ours for both, or for none."""
    weights: str | None
    """Folder with a trained timbre encoder; null: it is trained here, by contrast alone, and has no style network."""
    channels: Annotated[tuple[Positive, ...], Field(min_length=4, max_length=4)]
    """Channels of the four blocks. This and what follows: only for our own, where it is trained here."""
    embedding_size: Positive
    """Numbers in an embedding."""
    steps: Positive
    """Steps of the training."""
    batch_instruments: Annotated[int, Field(ge=2)]
    """Instruments in a step, each with two sounds that belong together."""
    learning_rate: Rate
    """Highest learning rate."""
    temperature: Annotated[float, Field(gt=0)]
    """Of the contrastive loss: the smaller, the more the nearest of the others count."""
    near_pitch_share: Annotated[float, Field(ge=0, le=1)]
    """Share of a step's instruments that are heard within a semitone of one pitch, so that pitch does not tell them
    apart."""


class LossWeights(Section):
    """Weights of the seven losses of pGESAM's VAE."""

    reconstruction: Amount
    """Squared error of the codec embedding that is decoded."""
    neighbour: Amount
    """Notes of one instrument together on the map, those of others at least `margin` away; rises."""
    regularisation: Amount
    """Places outside the unit disc."""
    kl: Amount
    """Divergence of a note's place from the unit normal."""
    pitch: Amount
    """The pitch head's cross-entropy."""
    family: Amount
    """The family, told from the place; fades."""
    instrument: Amount
    """The instrument, told from the place; rises."""


class Vae(Section):
    """pGESAM, first stage: the map and the pitch head."""

    frames: Positive
    """Codec frames of a note that the encoder hears, of 300 (4 s)."""
    channels: Annotated[tuple[Positive, ...], Field(min_length=5, max_length=5)]
    """Channels of the five strided convolutions."""
    hidden: Annotated[tuple[Positive, ...], Field(min_length=4, max_length=4)]
    """Hidden units of the layers that follow them."""
    head_width: Positive
    """Hidden units of each head: place, pitch, family, instrument."""
    dropout: Share
    """Share of the units that are dropped."""
    map_dimensions: Annotated[int, Field(ge=2, le=4)]
    """Dimensions of the timbre map; the service and its page need 2."""
    steps: Positive
    """Steps of the training."""
    batch_instruments: Annotated[int, Field(ge=2)]
    """Instruments in a step."""
    batch_pitches: Annotated[int, Field(ge=2, le=25)]
    """Notes of each of them."""
    learning_rate: Rate
    """Highest learning rate; it is halved at 50, 60, 70, 80 and 90 % of the steps."""
    weight_decay: Amount
    """AdamW's."""
    warmup_steps: Annotated[int, Field(ge=0)]
    """Steps in which the learning rate rises to its highest."""
    margin: Annotated[float, Field(gt=0)]
    """How far from each other the neighbour loss wants different instruments, in units of the map."""
    weights: LossWeights
    family_schedule: Literal["one_minus_power", "power_of_one_minus"]
    """How the family loss fades: as 1 - γ^α or as (1 - γ)^α, γ being the part of the training that is over."""
    family_exponent: Amount
    """That α."""
    neighbour_exponent: Amount
    """The neighbour loss rises as γ to this."""
    instrument_exponent: Amount
    """The instrument loss rises as γ to this."""
    sample_scale: Amount
    """β of z = μ + β σ ε, the place that is decoded in training."""
    input_noise: Amount
    """Standard deviation of the noise on the encoder's standardised summary."""
    mixed_share: Share
    """Share of a step's instruments that are mixtures of two."""
    decoded_notes: Positive
    """Notes of a step that are decoded: the dear part."""
    evaluate_every: Positive
    """Steps between two looks at the validation notes."""


class Generator(Section):
    """pGESAM, second stage: the Transformer that writes codec frames."""

    width: Positive
    """Numbers in a token."""
    heads: Positive
    """Heads of attention; they divide the width."""
    condition_layers: Positive
    """Layers over place, pitch and velocity."""
    decoder_layers: Positive
    """Layers over the tokens written."""
    feedforward: Positive
    """Hidden units of each layer."""
    dropout: Share
    """Share of the units that are dropped."""
    frames: Positive
    """Codec frames of a note, 300 at most (4 s)."""
    frames_per_token: Positive
    """Frames that one token writes; they divide the frames."""
    steps: Positive
    """Steps of the training."""
    batch: Positive
    """Notes in a step."""
    learning_rate: Rate
    """Highest learning rate; it is halved at 50, 60, 70, 80 and 90 % of the steps."""
    weight_decay: Amount
    """AdamW's."""
    warmup_steps: Annotated[int, Field(ge=0)]
    """Steps in which the learning rate rises to its highest."""
    frame_weight: Share
    """Share of the loss that is the mean of the root mean square errors of frames, which asks for what is typical; the
    rest is the squared error, which asks for the mean."""
    condition_noise: Amount
    """Noise on the place that a note is written for, in its own σ."""
    input_noise: Amount
    """Noise on the frames already written, in the spread of all frames."""
    input_dropout: Share
    """Mean share of the tokens already written that are hidden."""
    evaluate_every: Positive
    """Steps between two looks at notes written freely."""
