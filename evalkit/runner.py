"""One evaluation, read top to bottom: plan -> ask what is missing -> store each reply -> summary."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from evalkit.costs import Budget, cost_usd
from evalkit.datasets.disk import Split
from evalkit.errors import AdapterError, StoreError
from evalkit.frames import Frame
from evalkit.lazy import Left, held
from evalkit.prompts import make_prompt
from evalkit.provenance import digest, digest_of, git_commit, machine, now, versions
from evalkit.records import VERDICTS, Adapter, Prompt, Reply, Sample
from evalkit.sampling import stratified
from evalkit.scoring import SCORED_KEYS, Scorer
from evalkit.stats import accuracy_interval
from evalkit.store import SCHEMA, RunStore
from evalkit.task import PromptVariant, TaskSpec


@dataclass(frozen=True, slots=True)
class Plan:
    """All that fixes a run before a model is asked.

    model:    the registry entry as stored in run.json; `identity` is the part that changes answers.
    frame:    of the coordinates in the replies; frame_source says who declared it.
    """

    task: TaskSpec
    variant: PromptVariant
    model: Mapping[str, Any]
    identity: Mapping[str, Any]
    frame: Frame | None
    frame_source: str | None
    split: Split
    samples: Sequence[Sample]
    prompts: Sequence[Prompt]  # each to the sample of the same place
    prompts_sha256: str
    trained_on: str | None
    limit: int | None
    seed: int
    training: Mapping[str, Any] | None = None  # how the checkpoint was trained, for run.json
    origin: str = "run"

    @property
    def scorer(self) -> Scorer:
        return Scorer(self.task.parser, self.task.metric, self.frame)

    @property
    def name(self) -> str:
        """`<model>/<task>-<split>[-trained_on-<task>]-<hash8>`; the hash covers all that changes answers."""
        trained = f"-trained_on-{self.trained_on}" if self.trained_on else ""
        covered = {
            "model": self.identity,
            "trained_on": self.trained_on,
            "dataset": self.split.fingerprint,
            "prompts": self.prompts_sha256,
            "origin": self.origin,
        }
        return f"{self.model['name']}/{self.task.name}-{self.split.name}{trained}-{digest(covered)[:8]}"


def make_plan(
    task: TaskSpec,
    variant: PromptVariant,
    split: Split,
    *,
    model: Mapping[str, Any],
    identity: Mapping[str, Any],
    frame: Frame | None,
    frame_source: str | None,
    trained_on: str | None = None,
    training: Mapping[str, Any] | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Plan:
    """Choose the samples and write the prompts of a run. Raises ConfigError."""
    samples = stratified(split.samples, limit, seed)
    prompts = held(len(samples), lambda i: make_prompt(task, variant, samples[i]))
    asked = digest_of([p.sample_id, p.sha256] for p in prompts)
    return Plan(
        *(
            task,
            variant,
            model,
            identity,
            frame,
            frame_source,
            split,
            samples,
            prompts,
            asked,
            trained_on,
            limit,
            seed,
        ),
        training=training,
    )


class Progress(Protocol):
    """What a terminal shows of a run."""

    def update(self, verdicts: Mapping[str, int]) -> None: ...


def execute(
    plan: Plan,
    store: RunStore,
    load: Callable[[], Adapter],
    progress: Progress | None = None,
    budget: Budget | None = None,
) -> dict[str, Any]:
    """Ask what has no answer yet and store each reply before the next counts; returns run.json.

    Rows that failed before are asked again. An interrupted or failing adapter leaves a run that
    the same call finishes; nothing stored is asked twice. A budget is never exceeded by more than
    a provider charges beyond what was expected of the questions in flight.
    """
    budget = budget or Budget()
    if budget.counts:
        budget.charge_stored(store.rows.values())
    todo = _Todo(plan, store)
    if not todo.left or not budget.has_room_for(todo.left[0]):
        return _close_run(plan, store, store.read_meta() or new_meta(plan))
    adapter = load()  # before anything is written: a model that cannot be loaded leaves no run
    try:
        meta = _open_run(plan, store, adapter.describe())
        try:
            _ask(plan, store, adapter, todo, budget, progress)
        finally:
            meta = _close_run(plan, store, meta)
    finally:
        adapter.close()
    return meta


class _Todo:
    """What a run still asks, one question after the other, and those that are asked and not answered."""

    def __init__(self, plan: Plan, store: RunStore) -> None:
        self._plan, self._asked = plan, dict[str, int]()
        # settled now: rows of this run's own, failed ones too, are not asked again
        again = set(store.failed)
        self.left = Left(self._missing(store, again))

    def _missing(self, store: RunStore, again: set[str]) -> Iterator[Prompt]:
        for place, prompt in enumerate(self._plan.prompts):
            if prompt.sample_id not in store.rows or prompt.sample_id in again:
                self._asked[prompt.sample_id] = place
                yield prompt

    def answered(self, sample_id: str) -> tuple[Sample, Prompt]:
        """Raises AdapterError for one that is not asked."""
        place = self._asked.pop(sample_id, None)
        if place is None:
            raise AdapterError(f"{self._plan.model['name']} answered {sample_id!r} unasked, or twice.")
        return self._plan.samples[place], self._plan.prompts[place]


def _ask(
    plan: Plan,
    store: RunStore,
    adapter: Adapter,
    todo: _Todo,
    budget: Budget,
    progress: Progress | None,
) -> None:
    verdicts = Counter(row["verdict"] for row in store.rows.values())
    # a budget that is reserved to the last cent by questions in flight may have room once they are answered
    while todo.left and budget.has_room_for(todo.left[0]):
        for reply in adapter.replies(budget.handed(todo.left)):
            sample, prompt = todo.answered(reply.sample_id)
            row = make_row(plan.scorer, sample, prompt, reply)
            store.append(row)
            verdicts[row["verdict"]] += 1
            budget.charge(row)
            if progress is not None:
                progress.update(verdicts)


def make_row(scorer: Scorer, sample: Sample, prompt: Prompt, reply: Reply) -> dict[str, Any]:
    """One line of rows.jsonl."""
    return {
        "sample_id": sample.sample_id,
        "cluster": sample.image_id,
        "stratum": sample.stratum,
        "image_size_wh": list(sample.image_size_wh),
        "prompt_sha256": prompt.sha256,
        "reply": reply.text,
        "gold": sample.gold,
        **scorer.score(reply.text, reply.finish_reason, sample.gold, sample.image_size_wh, reply.error),
        "latency_s": round(reply.latency_s, 6),
        "usage": dict(reply.usage),
        "finish_reason": reply.finish_reason,
        "answered_by": reply.answered_by,
        "attempts": reply.attempts,
        "error": reply.error,
        **({"batched": True} if reply.batched else {}),
    }


_SCORING_NEEDS = ("reply", "finish_reason", "gold", "image_size_wh", "cluster")


def rescore(store: RunStore, scorer: Scorer, *, write: bool = True) -> list[dict[str, Any]]:
    """Read every stored reply again; returns the verdicts that flipped. No model is asked.

    Each: {sample_id, gold, reply, before, after}, the last two with verdict, answer and reason. write: whether the
    rows are replaced. Raises StoreError where a row lacks what scoring needs.
    """
    rows: list[dict[str, Any]] = []
    flipped = []
    for row in store.rows.values():
        if absent := [key for key in _SCORING_NEEDS if key not in row]:
            raise StoreError(
                f"{store.folder}: row {row['sample_id']!r} has no {absent[0]!r}: it was changed."
            )
        scored = scorer.score(
            row["reply"], row["finish_reason"], row["gold"], tuple(row["image_size_wh"]), row.get("error")
        )
        if scored["verdict"] != row["verdict"]:
            seen = {key: row.get(key) for key in ("verdict", "answer", "reason")}
            now = {key: scored.get(key) for key in seen}
            about = {key: row[key] for key in ("sample_id", "gold", "reply")}
            flipped.append(about | {"before": seen, "after": now})
        kept = {key: value for key, value in row.items() if key not in SCORED_KEYS or key in scored}
        rows.append(
            kept | scored
        )  # keys keep their place, so that a row that did not change is the same bytes
    if write:
        store.replace_rows(rows)
    return flipped


def summary(meta: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]], folder: Path) -> dict[str, Any]:
    """What `run`, `score` and `import` print. Accuracy is correct / selected samples.

    ci95 is taken over the same samples: one without a reply counts as not correct until it has one.
    """
    n, correct = meta["selection"]["n"], meta["counts"]["correct"]
    hits, clusters, coordinates = _looked_over(rows.values())
    absent = n - len(rows)
    interval = accuracy_interval(
        hits + [False] * absent, clusters + [f"\0absent{i}" for i in range(absent)], seed=meta["seed"]
    )
    return {
        "model": meta["model"]["name"],
        "task": meta["task"]["name"],
        "split": meta["split"],
        "trained_on": meta["trained_on"],
        "n": n,
        "correct": correct,
        "accuracy": correct / n if n else None,
        "ci95": [interval.low, interval.high],
        "ci95_method": interval.method,
        "verdicts": meta["counts"],
        "status": meta["status"],
        "sample_of": meta["dataset"]["n_split"] if n < meta["dataset"]["n_split"] else None,
        "cost_usd": meta["cost_usd"],
        **_of_coordinates(coordinates, n),
        "run": str(folder),
    }


_OF_COORDINATES = {
    "iou": "mean_iou",
    "beyond_image": "beyond_image",
    "correct_floor_cell": "floor_cell_accuracy",
}


def _looked_over(
    rows: Iterable[Mapping[str, Any]],
) -> tuple[list[bool], list[str], dict[str, list[float]]]:
    """Of all rows, in one pass: whether correct, the cluster, and what there is of points and boxes."""
    hits, clusters, found = [], [], {key: [] for key in _OF_COORDINATES}  # type: ignore[var-annotated]
    for row in rows:
        hits.append(row["verdict"] == "correct")
        clusters.append(sys.intern(str(row.get("cluster", row["sample_id"]))))
        for key in _OF_COORDINATES:
            if key in row:
                found[key].append(row[key])
    return hits, clusters, found


def _of_coordinates(found: Mapping[str, list[float]], n: int) -> dict[str, float]:
    """What else is reported of points and boxes, over all selected samples; nothing where no row has it.

    mean_iou counts a sample without a readable box as 0; beyond_image is the share of boxes that leave the
    picture; floor_cell_accuracy is that of whole cells of the 24 x 24 grid.
    """
    return {_OF_COORDINATES[key]: sum(values) / n for key, values in found.items() if values and n}


def _open_run(plan: Plan, store: RunStore, ran_on: Mapping[str, str]) -> dict[str, Any]:
    """run.json of a new run, or of the one to go on with; failed rows make room for another try."""
    earlier = store.read_meta()
    if store.failed:
        store.replace_rows(row for row in store.rows.values() if row["verdict"] != "failed")
    meta = (earlier or new_meta(plan)) | {"status": "running", "ended": None}
    meta["ran_on"] = {**machine(), **ran_on}
    store.write_meta(meta)
    return meta


def new_meta(plan: Plan) -> dict[str, Any]:
    """run.json at the start of a run."""
    frame = plan.frame
    return {
        "schema": SCHEMA,
        "origin": plan.origin,
        "model": dict(plan.model),
        "task": plan.task.model_dump(exclude={"examples", "family_prompts", "prompt", "frame", "answer"})
        | {"prompt": plan.variant.prompt},
        "split": plan.split.name,
        "trained_on": plan.trained_on,
        "training": None if plan.training is None else dict(plan.training),
        "dataset": {
            "name": plan.split.dataset,
            "fingerprint": plan.split.fingerprint,
            "n_split": len(plan.split.samples),
        },
        "selection": {"limit": plan.limit, "n": len(plan.samples), "seed": plan.seed},
        "decoding": plan.model.get("decoding"),
        "frame": None
        if frame is None
        else {
            "kind": frame.kind,
            "order": frame.order,
            "min_pixels": frame.min_pixels,
            "max_pixels": frame.max_pixels,
        },
        "frame_source": plan.frame_source,
        "seed": plan.seed,
        "versions": versions(),
        "git_commit": git_commit(),
        "ran_on": machine(),
        "started": now(),
        "ended": None,
        "status": "running",
        "counts": dict.fromkeys(VERDICTS, 0),
        "cost_usd": None,
    }


def _close_run(plan: Plan, store: RunStore, meta: Mapping[str, Any]) -> dict[str, Any]:
    closed = settle(dict(meta), store.rows.values(), len(plan.prompts))
    if closed != store.read_meta():
        store.write_meta(closed)
    return closed


def settle(meta: dict[str, Any], rows: Iterable[Mapping[str, Any]], expected: int) -> dict[str, Any]:
    """run.json with counts, cost and status as the rows have them."""
    counts, answered_by = Counter[str](), Counter[str]()

    def counted() -> Iterator[Mapping[str, Any]]:
        for row in rows:
            counts[row["verdict"]] += 1
            if row.get("answered_by"):
                answered_by[row["answered_by"]] += 1
            yield row

    looked_at = counted()
    meta["cost_usd"] = cost_usd(meta["model"].get("prices"), looked_at)
    for _ in looked_at:  # without prices nobody has
        pass
    complete = counts.total() == expected and not counts["failed"]
    meta["counts"] = {verdict: counts[verdict] for verdict in VERDICTS}
    meta["answered_by"] = dict(answered_by)
    meta["status"] = "complete" if complete else "unfinished"
    meta["ended"] = meta["ended"] or now()  # a run that only was looked at keeps its end
    return meta
