"""Reads the recorded episodes of a trial."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from metaloom.workers.records.episode_schema import EPISODE_SCHEMA
from metaloom.workers.records.names import parts_of


def read_episodes(folder: Path) -> Any:
    """Return all rows of a trial's episode folder as one ``pyarrow.Table``."""
    parts = [parquet.read_table(str(path), schema=EPISODE_SCHEMA) for path in parts_of(folder)]
    return pa.concat_tables(parts) if parts else EPISODE_SCHEMA.empty_table()
