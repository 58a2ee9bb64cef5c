"""The random streams of episodes, and of what is drawn once per data set."""

import numpy as np
from numpy.random import Generator, Philox

from metaloom.workers.data.base import SPLITS
from metaloom.workers.records.trial import REPEAT_EPISODES

_MASK = 2**64 - 1
_SIZES = 500  # above the numbers of the splits: the streams of the sizes that episodes share
_UNLABELLED = 600  # likewise: the streams of the examples without labels
_MIXTURE = 800  # likewise: the streams that choose a data set
_BALANCE = 700  # likewise: the streams of the numbers of queries of each class
DIVISION, NOISE, IMBALANCE, FOLDS, HELD_OUT = 1, 2, 3, 4, 5  # purposes of the streams of `fixed_generator`


def episode_generator(seed: int, split: str, index: int) -> Generator:
    """Return the random stream of one episode.

    Philox is a counter-based generator: (seed, split) is its key and the index the counter's highest word, so streams
    are 2**192 draws apart, and each is reached directly.
    """
    key = np.array([seed & _MASK, SPLITS.index(split)], dtype=np.uint64)
    counter = np.array([0, 0, 0, index], dtype=np.uint64)
    return Generator(Philox(key=key, counter=counter))


def sizes_generator(seed: int, split: str, batch: int) -> Generator:
    """Return the random stream of the ways and shots that the episodes of a batch share."""
    key = np.array([seed & _MASK, _SIZES + SPLITS.index(split)], dtype=np.uint64)
    return Generator(Philox(key=key, counter=np.array([0, 0, 0, batch], dtype=np.uint64)))


def unlabelled_generator(seed: int, split: str, index: int) -> Generator:
    """Return the random stream of an episode's examples without labels; its other draws are as without them."""
    key = np.array([seed & _MASK, _UNLABELLED + SPLITS.index(split)], dtype=np.uint64)
    return Generator(Philox(key=key, counter=np.array([0, 0, 0, index], dtype=np.uint64)))


def balance_generator(seed: int, split: str, index: int) -> Generator:
    """Return the random stream of how many queries of each class an episode has; its other draws are as without it."""
    key = np.array([seed & _MASK, _BALANCE + SPLITS.index(split)], dtype=np.uint64)
    return Generator(Philox(key=key, counter=np.array([0, 0, 0, index], dtype=np.uint64)))


def mixture_generator(seed: int, split: str, draw: int) -> Generator:
    """Return the random stream that chooses the data set of an episode, or of all episodes of an outer step."""
    key = np.array([seed & _MASK, _MIXTURE + SPLITS.index(split)], dtype=np.uint64)
    return Generator(Philox(key=key, counter=np.array([0, 0, 0, draw], dtype=np.uint64)))


def outer_step_of(index: int, meta_batch: int) -> int:
    """Number the outer step of a training episode, so that those of one step have one number, in every repeat.

    The first episode of a repeat (``TrialConfig.first_episode``) need not be a multiple of the meta-batch.
    """
    repeat, within = divmod(index, REPEAT_EPISODES)
    return repeat * (REPEAT_EPISODES // meta_batch + 1) + within // meta_batch


def fixed_generator(seed: int, purpose: int) -> Generator:
    """Return the stream of the draws that are made once per data set, such as a split or the label noise."""
    return Generator(Philox(key=np.array([seed & _MASK, 1000 + purpose], dtype=np.uint64)))


def draw_seed(generator: Generator) -> int:
    """Draw the seed that an episode carries."""
    return int(generator.integers(2**63))
