"""Replies made of the gold in each frame, read in every frame: 100 % in their own, and what a mistaken frame costs.

    python -m benchmarks.frame_table DATA/refcoco/val/metadata.jsonl [--n 2000] [--max-pixels 200704]

Works on any prepared RefCOCO or PixMo-Points split; no pictures are needed.
"""

import argparse
import json
from pathlib import Path

from evalkit.frames import Frame, from_pixels
from evalkit.scoring import Scorer


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("metadata", type=Path)
    options.add_argument("--n", type=int)
    options.add_argument("--max-pixels", type=int, default=200_704, help="of the second resized_pixel")
    chosen = options.parse_args()
    rows = [json.loads(line) for line in chosen.metadata.read_text(encoding="utf-8").splitlines()][: chosen.n]
    small = Frame("resized_pixel", max_pixels=chosen.max_pixels)
    frames = {
        "pixel": Frame("pixel"),
        "resized_pixel": Frame("resized_pixel"),
        f"resized to {chosen.max_pixels}": small,
        "unit": Frame("unit"),
        "per_mille": Frame("per_mille"),
        "per_mille:yx": Frame("per_mille", "yx"),
        "padded_unit": Frame("padded_unit"),
    }
    print(f"n = {len(rows)}; rows: the frame of the replies; columns: the frame they are read in; % correct")
    print(" " * 18 + "".join(f"{name:>18}" for name in frames))
    for name, spoken in frames.items():
        shares = [accuracy(rows, spoken, read) for read in frames.values()]
        print(f"{name:>18}" + "".join(f"{100 * share:>18.1f}" for share in shares))


def accuracy(rows: list[dict[str, object]], spoken: Frame, read: Frame) -> float:
    """Share of correct verdicts: gold to text in one frame, text to verdict in another."""
    hits = 0
    for row in rows:
        gold, size_wh = row["gold"], (row["width"], row["height"])
        is_box = len(gold) == 4  # type: ignore[arg-type]
        scorer = Scorer("box" if is_box else "point", "iou_50" if is_box else "within_3_grid_units", read)
        stated = from_pixels(gold, spoken, size_wh)  # type: ignore[arg-type]
        text = ", ".join(f"{value:.4f}" for value in stated)
        reply = f"[{text}]" if is_box else f"({text})"
        hits += scorer.score(reply, "stop", gold, size_wh)["verdict"] == "correct"  # type: ignore[arg-type]
    return hits / len(rows)


if __name__ == "__main__":
    main()
