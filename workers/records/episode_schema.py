"""The types of the columns of an episode's row, for reading and writing the parts."""

from typing import Any

import pyarrow as pa

from metaloom.workers.records.episode import COLUMNS

_TYPES: dict[str, Any] = {
    "text": pa.string(),
    "int64": pa.int64(),
    "int32": pa.int32(),
    "float64": pa.float64(),
    "int64 list": pa.list_(pa.int64()),
    "float64 list": pa.list_(pa.float64()),
}
EPISODE_SCHEMA: Any = pa.schema([(column.name, _TYPES[column.kind]) for column in COLUMNS])
