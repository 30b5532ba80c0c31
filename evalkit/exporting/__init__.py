"""Data sets in forms that others read: the Hub's ImageFolder and Parquet, Qwen's conversations, VLMEvalKit's TSV."""

from typing import Literal

Format = Literal["hf", "parquet", "qwen-jsonl", "lmms-tsv"]
FORMATS: tuple[Format, ...] = ("hf", "parquet", "qwen-jsonl", "lmms-tsv")
