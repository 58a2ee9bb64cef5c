"""Small texts whose classes have words of their own, in the forms that users have."""

import csv
import json
import random
from collections.abc import Sequence
from pathlib import Path

TOPICS = {
    "weather": "rain sun wind snow cloud storm",
    "money": "bank loan card cash bill rent",
    "music": "song drum band chord tune choir",
    "travel": "train plane hotel ticket road map",
    "food": "soup bread rice salt cheese pie",
    "work": "boss desk meeting report office team",
    "sport": "ball goal race team coach match",
    "garden": "tree seed leaf soil rose hedge",
    "house": "door roof wall lamp stair sofa",
    "health": "pill nurse cough sleep bone diet",
}
FRAME = "please tell me about the {} and the {} now"


def rows(topics: Sequence[str] = tuple(TOPICS), each: int = 8, seed: int = 0) -> list[tuple[str, str]]:
    """Return so many texts of each topic, each with two of its words, and the topic."""
    generator = random.Random(seed)
    return [
        (FRAME.format(*generator.sample(TOPICS[topic].split(), 2)).capitalize(), topic)
        for topic in topics
        for _ in range(each)
    ]


def write_csv(path: Path, given: Sequence[Sequence[str]], heads: Sequence[str] = ("text", "label")) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([heads, *given])
    return path


def write_clinc(path: Path) -> Path:
    """Write a file in the form of CLINC150: parts, domains and a split of these."""
    names = list(TOPICS)
    domains = {f"domain{place}": names[place : place + 2] for place in range(0, len(names), 2)}
    split = {"train": ["domain0", "domain2", "domain4"], "val": ["domain6"], "test": ["domain8"]}
    sizes = {"train": 6, "val": 3, "test": 4}
    parts = {part: rows(each=each, seed=each) for part, each in sizes.items()}
    path.write_text(json.dumps({"domains": domains, "domain_split": split, **parts}))
    return path
