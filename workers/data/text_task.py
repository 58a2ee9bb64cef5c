"""The user's own texts as one labelled data set: the vocabulary is that of the training texts."""

from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np

from metaloom.learners.episode import TaskShape
from metaloom.workers.data.base import ONE_TASK_SOURCES
from metaloom.workers.data.store import Arrays, cached
from metaloom.workers.data.text import key_of, texts_of
from metaloom.workers.data.text_encoding import FittedText, told
from metaloom.workers.data.text_files import part_of_each
from metaloom.workers.data.text_settings import TextAsOneTask
from metaloom.workers.data.text_vocabulary import fitted_text
from metaloom.workers.data.user_single_task import OF_EPISODES, UserTask, divide_examples, stored


@ONE_TASK_SOURCES.register("text")
class TextTask(UserTask):
    """Batches of texts."""

    name = "text"
    Config = TextAsOneTask

    @classmethod
    def open(cls, config: TextAsOneTask, *, seed: int, cache: Path) -> Self:
        """Map the token numbers; read and divide the texts first if a file or the settings have changed."""
        key = key_of(config, set(OF_EPISODES))
        return cls._of(cached(cache, "text_task", key, lambda: _load(config)), config, seed)

    def as_trained(self, task: TaskShape) -> Self:
        """Return the source with its texts in the token numbers of training."""
        kept = FittedText.of_task(task)
        if kept is None or kept == FittedText.of_task(self.shape):
            return self
        config = self.config
        assert isinstance(config, TextAsOneTask)
        return self._of(_load(config, kept), config, self.seed)

    @classmethod
    def _of(cls, arrays: Arrays, config: TextAsOneTask, seed: int) -> Self:
        text = arrays.about["text"]
        source = cls(arrays, config, seed=seed, scale=1.0, inputs=(text["length"],))
        source.shape = replace(source.shape, columns=(text,))
        source.notes = (*source.notes, *arrays.remarks)
        return source


def _load(config: TextAsOneTask, kept: FittedText | None = None) -> Arrays:
    read, remarks = texts_of(config, {} if config.split is None else {"split": config.split})
    names, classes = np.unique(np.array([str(label).strip() for label in read.labels]), return_inverse=True)
    y = classes.astype(np.int64)
    parts = divide_examples(y, config, part_of_each(read, config.split))
    texts = [str(text) for text in read.texts]
    fitted = fitted_text(config, [texts[row] for row in parts["train"].tolist()], kept)
    x = fitted.numbers(texts)
    about = {"classes": names.tolist(), "text": fitted.to_json()}
    lines = (*remarks, told(fitted, texts, x, unseen="those of validation and test texts"))
    return replace(stored({"x": x, "y": y}, parts, about), remarks=lines)
