"""Studies that train the map anew for every row: ablations, dimensions, unseen family."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from timbrel.errors import DataError
from timbrel.notes.families import FAMILIES
from timbrel.pgesam.curriculum import FAMILY_SCHEDULES, TERMS, Curriculum
from timbrel.pgesam.dataset import MapNotes
from timbrel.pgesam.evaluation import family_accuracy
from timbrel.pgesam.vae import Vae, VaeShape
from timbrel.pgesam.vae_training import VaeTraining, encode, evaluate, train_vae
from timbrel.studies.plots import bars
from timbrel.studies.table import Figures, Row, Study

HELD_OUT = ("validation", "test")
UNSEEN = "unseen"
NEIGHBOURS = 5
COLUMNS = {
    "heldout.v_inst": "V_inst",
    "heldout.v_pitch": "V_pitch",
    "heldout.v_inst_over_v_pitch": "V_inst / V_pitch",
    "train.v_inst_over_v_pitch": "the same, train",
    "heldout.pitch_accuracy": "pitch accuracy",
    "train.pitch_accuracy": "the same, train",
    "heldout.family_knn": "family k-NN",
    "train.family_knn": "the same, train",
    "heldout.embedding_mse": "reconstruction",
    "train.embedding_mse": "the same, train",
}
PANELS = {
    "V_inst / V_pitch": ("heldout.v_inst_over_v_pitch", "train.v_inst_over_v_pitch"),
    "pitch accuracy": ("heldout.pitch_accuracy", "train.pitch_accuracy"),
    "family k-NN": ("heldout.family_knn", "train.family_knn"),
    "reconstruction (mean squared error)": ("heldout.embedding_mse", "train.embedding_mse"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MapTraining:
    """All that a map is trained from. ``embeddings`` [N, ≥ shape.frames, 128], rows as in ``notes``; ``spectrum``: of
    the codec's decoder, where the shape has one."""

    embeddings: np.ndarray
    notes: MapNotes
    shape: VaeShape
    training: VaeTraining
    curriculum: Curriculum
    device: torch.device
    spectrum: Mapping[str, torch.Tensor] | None = None

    def fit(self) -> Vae:
        return train_vae(
            self.embeddings,
            self.notes,
            shape=self.shape,
            training=self.training,
            curriculum=self.curriculum,
            report=lambda step, metrics: None,
            device=self.device,
            spectrum=self.spectrum,
        )

    def seeded(self, seed: int) -> MapTraining:
        return replace(self, training=replace(self.training, seed=seed))

    def fit_and_measure(self) -> Figures:
        return dict(measure(self.fit(), self))


def measure(vae: Vae, setup: MapTraining) -> dict[str, float]:
    """V_inst, V_pitch, pitch accuracy, reconstruction and family k-NN for ``train`` and ``heldout`` notes.

    Family k-NN: a note's family by the vote of the 5 nearest training notes of *other* instruments.
    """
    figures: dict[str, float] = {}
    learned = setup.notes.of("train")
    known = encode(vae, setup.embeddings, learned.row, setup.device).mu
    for prefix, splits in (("train", ("train",)), ("heldout", HELD_OUT)):
        chosen = setup.notes.of(*splits)
        if not len(chosen):
            continue
        figures |= evaluate(vae, setup.embeddings, chosen, setup.device, prefix)
        mu = encode(vae, setup.embeddings, chosen.row, setup.device).mu
        figures[f"{prefix}.family_knn"] = _family_knn(known, learned, mu, chosen)
    return figures


def _family_knn(known: np.ndarray, learned: MapNotes, mu: np.ndarray, chosen: MapNotes) -> float:
    right = 0.0
    for instrument in np.unique(chosen.instrument):
        own, others = chosen.instrument == instrument, learned.instrument != instrument
        share = family_accuracy(
            known[others], learned.family[others], mu[own], chosen.family[own], k=NEIGHBOURS
        )
        right += share * int(own.sum())
    return right / len(chosen)


def variants(curriculum: Curriculum) -> dict[str, Curriculum]:
    """The full curriculum, each term of the loss left out, and the other family schedule, by name."""
    made = {"full": curriculum}
    for term in sorted(
        TERMS,
        key=lambda term: (
            "kl",
            "regularisation",
            "neighbour",
            "family",
            "pitch",
            "instrument",
            "reconstruction",
        ).index(term),
    ):
        made[f"no {term}"] = replace(curriculum, weights={**curriculum.weights, term: 0.0})
    for name in FAMILY_SCHEDULES:
        if name != curriculum.family_schedule:
            made[f"family schedule {name}"] = replace(curriculum, family_schedule=name)
    return made


def ablations(setup: MapTraining, seeds: Sequence[int]) -> Study:
    """Each loss term left out, and the other family schedule: what is it good for?"""
    rows = [
        Row(
            labels={"variant": name, "seed": seed},
            compute=replace(setup, curriculum=curriculum).seeded(seed).fit_and_measure,
        )
        for name, curriculum in variants(setup.curriculum).items()
        for seed in seeds
    ]
    return Study(
        name="ablations",
        title="Ablations of the map's losses",
        about=(
            f"One loss term left out at a time, {setup.training.steps} steps, {len(seeds)} seeds (mean ± deviation). "
            f"`full` uses the family schedule `{setup.curriculum.family_schedule}`. Held-out instruments unless it "
            "says train; family k-NN never counts a note's own instrument."
        ),
        columns=COLUMNS,
        rows=rows,
        plot=lambda table: bars(table, "variant", PANELS, logarithmic=["V_inst / V_pitch"]),
    )


def dimensions(setup: MapTraining, seeds: Sequence[int], sizes: Sequence[int] = (2, 3, 4)) -> Study:
    """Maps of two, three and four dimensions."""
    rows = [
        Row(
            labels={"dimensions": size, "seed": seed},
            compute=replace(setup, shape=replace(setup.shape, map_dimensions=size))
            .seeded(seed)
            .fit_and_measure,
        )
        for size in sizes
        for seed in seeds
    ]
    return Study(
        name="dimensions",
        title="Maps of two, three and four dimensions",
        about=(
            f"The same training ({setup.training.steps} steps, {len(seeds)} seeds, mean ± deviation) with more room on "
            "the map. Held-out instruments unless it says train."
        ),
        columns=COLUMNS,
        rows=rows,
        plot=lambda table: bars(table, "dimensions", PANELS, logarithmic=["V_inst / V_pitch"]),
    )


def hold_out(notes: MapNotes, family: str) -> MapNotes:
    """``notes`` with all instruments of ``family`` in a split of their own, and training instruments numbered first.

    Raises DataError when the family has no instrument, or nothing else is left to train on.
    """
    unseen = notes.family == FAMILIES.index(family)
    split = np.where(unseen, UNSEEN, notes.split)
    if not unseen.any() or not (split == "train").any():
        raise DataError(f"the family {family} cannot be held out: it has no instrument, or all of them")
    trained = set(notes.instrument[split == "train"].tolist())
    order = sorted(range(len(notes.instruments)), key=lambda number: (number not in trained, number))
    renumbered = np.empty(len(order), dtype=np.int64)
    renumbered[order] = np.arange(len(order))
    return replace(
        notes,
        split=split,
        instrument=renumbered[notes.instrument],
        instruments=tuple(notes.instruments[number] for number in order),
    )


def unseen_families(setup: MapTraining, families: Sequence[str], seeds: Sequence[int]) -> Study:
    """Each family held out whole: does the encoder still place it, hear its pitch, and rebuild it?"""
    rows = [
        Row(labels={"family": family, "seed": seed}, compute=_Unseen(setup=setup.seeded(seed), family=family))
        for family in families
        for seed in seeds
    ]
    columns = {
        "unseen.v_inst_over_v_pitch": "V_inst / V_pitch",
        "heldout.v_inst_over_v_pitch": "the same, seen families",
        "unseen.pitch_accuracy": "pitch accuracy",
        "heldout.pitch_accuracy": "the same, seen families",
        "unseen.embedding_mse": "reconstruction",
        "heldout.embedding_mse": "the same, seen families",
        "unseen.distance": "distance to the nearest instrument",
        "heldout.distance": "the same, seen families",
        "unseen.nearest": "lands among",
    }
    panels = {
        heading: (f"unseen.{figure}", f"heldout.{figure}")
        for heading, figure in (
            ("V_inst / V_pitch", "v_inst_over_v_pitch"),
            ("pitch accuracy", "pitch_accuracy"),
            ("reconstruction (mean squared error)", "embedding_mse"),
        )
    }
    return Study(
        name="unseen-family",
        title="A family that was never heard",
        about=(
            f"All instruments of one family left out of training ({setup.training.steps} steps, {len(seeds)} seeds, "
            "mean ± deviation) beside held-out instruments of the families that were heard. Distance: from an "
            "instrument's centre to the nearest training instrument's, relative to the map's spread. Lands among: the "
            "families of the 5 nearest training instruments."
        ),
        columns=columns,
        rows=rows,
        plot=lambda table: bars(table, "family", panels, logarithmic=["V_inst / V_pitch"]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unseen:
    setup: MapTraining
    family: str

    def __call__(self) -> Figures:
        notes = hold_out(self.setup.notes, self.family)
        classes = len(np.unique(notes.of("train").instrument))
        setup = replace(self.setup, notes=notes, shape=replace(self.setup.shape, instruments=classes))
        vae = setup.fit()
        figures: Figures = dict(measure(vae, setup))
        lost = notes.of(UNSEEN)
        figures |= evaluate(vae, setup.embeddings, lost, setup.device, UNSEEN)
        mu = encode(vae, setup.embeddings, notes.row, setup.device).mu
        known, families = _centres(mu, notes, ("train",))
        for prefix, splits in ((UNSEEN, (UNSEEN,)), ("heldout", HELD_OUT)):
            places, _ = _centres(mu, notes, splits)
            if len(places):
                figures[f"{prefix}.distance"] = float(
                    _distances(places, known).min(1).mean() / spread_of(known)
                )
        nearest = np.argsort(_distances(_centres(mu, notes, (UNSEEN,))[0], known), axis=1)[:, :NEIGHBOURS]
        figures["unseen.nearest"] = _shares(families[nearest].ravel().tolist())
        return figures


def _centres(mu: np.ndarray, notes: MapNotes, splits: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Mean μ [i, d] and family [i] of every instrument of ``splits``."""
    chosen = np.isin(notes.split, splits)
    numbers = np.unique(notes.instrument[chosen])
    if not len(numbers):
        return np.zeros((0, mu.shape[1])), np.zeros(0, dtype=np.int64)
    centres = np.stack([mu[chosen & (notes.instrument == number)].mean(0) for number in numbers])
    return centres, np.array([notes.family[notes.instrument == number][0] for number in numbers])


def _distances(places: np.ndarray, others: np.ndarray) -> np.ndarray:
    distances: np.ndarray = np.linalg.norm(places[:, None, :] - others[None, :, :], axis=2)
    return distances


def spread_of(centres: np.ndarray) -> float:
    """Root mean square distance of instrument centres [i, d] from their mean: the size of the map."""
    return float(np.sqrt(((centres - centres.mean(0)) ** 2).sum(1).mean()))


def _shares(numbers: Sequence[int]) -> str:
    """``brass 40 %, reed 25 %, organ 20 %``: the three most frequent families."""
    counts: Mapping[int, int] = Counter(numbers)
    best = sorted(counts, key=lambda number: (-counts[number], number))[:3]
    return ", ".join(f"{FAMILIES[number]} {100 * counts[number] / len(numbers):.0f} %" for number in best)
