"""A task for lmms-eval over the exported Parquet: a YAML a split, and one utils.py that scores as evalkit does.

https://github.com/EvolvingLMMs-Lab/lmms-eval/blob/main/docs/task_guide.md. The data files are named from the folder
that lmms-eval is started in: an export has no absolute paths, so that it can be moved and uploaded. A dataset_path
of `.` would be shorter, but `datasets` has no name for such a set and refuses it.
"""

import json
from pathlib import Path

from evalkit.exporting.job import Job

FOLDER = "lmms_eval"

_YAML = """\
task: {task}
# Start lmms-eval in the export's folder; of an export on the Hub, write its id here and no dataset_kwargs.
dataset_path: parquet
dataset_kwargs:
  data_files:
    {split}: data/{name}-*.parquet
test_split: {split}
output_type: generate_until
doc_to_visual: !function utils.doc_to_visual
doc_to_text: !function utils.doc_to_text
doc_to_target: answer
generation_kwargs:
  max_new_tokens: {max_new_tokens}
  temperature: 0
  do_sample: false
  until: []  # a whole reply is read; the default would cut it at the first blank line
process_results: !function utils.process_results
metric_list:
  - metric: evalkit_accuracy
    aggregation: mean
    higher_is_better: true
  - metric: evalkit_unreadable
    aggregation: mean
    higher_is_better: false
metadata:
  - version: 1.0
"""

_UTILS = '''\
"""{name} in lmms-eval: evalkit's question, and evalkit's parser and metric on the reply.

A reply that cannot be read is wrong, and counted as unreadable too. lmms-eval does not say whether a reply was
cut off at the token limit, so that such a one is read as it is. {frame_words}
"""

from evalkit.frames import Frame
from evalkit.scoring import Scorer  # pip install evalkit-vlm

SCORER = Scorer(parser={parser!r}, metric={metric!r}, frame={frame!r})


def doc_to_visual(doc):
    return [doc["image"].convert("RGB")]


def doc_to_text(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]


def process_results(doc, results):
    row = SCORER.score(results[0], "stop", doc["gold"], (doc["width"], doc["height"]))
    return {{
        "evalkit_accuracy": float(row["verdict"] == "correct"),
        "evalkit_unreadable": float(row["verdict"] not in ("correct", "wrong")),
    }}
'''


def task_name(job: Job, split: str) -> str:
    return f"evalkit_{job.dataset}_{job.names[split]}"


def write(job: Job, folder: Path) -> None:
    """FOLDER/lmms_eval/evalkit_DATASET_SPLIT.yaml and utils.py."""
    target = folder / FOLDER
    target.mkdir()
    for split in job.splits:
        name = task_name(job, split.name)
        text = _YAML.format(
            task=name,
            name=job.names[split.name],
            split=json.dumps(job.names[split.name]),  # in quotes: `no` and `1e3` are none of YAML's text
            max_new_tokens=job.task.max_new_tokens,
        )
        (target / f"{name}.yaml").write_text(text, encoding="utf-8")
    code = _UTILS.format(
        name=job.task.name,
        frame_words=f"Coordinates are read as {job.frame.kind}." if job.frame else "It has no coordinates.",
        parser=job.task.parser,
        metric=job.task.metric,
        frame=job.frame,
    )
    (target / "utils.py").write_text(code, encoding="utf-8")
