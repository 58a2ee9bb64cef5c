"""The memory-augmented network as its users write it, in torch's own modules; and its time beside torch's own LSTM.

python -m benchmarks.memory_network
"""

import statistics
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaloom.learners.build import build_learner
from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.tensors import Tensors
from metaloom.workers.device import keep_pages

EPISODES, BATCH, STEPS, WAYS, PIXELS = 1_000, 16, 50, 5, 400


class MemoryNetwork(nn.Module):
    """Santoro et al., 2016: an LSTM cell whose heads write to the memory's least used and last read slots."""

    def __init__(
        self, inputs: int, ways: int, *, width: int = 200, slots: int = 128, slot_width: int = 40, heads: int = 4
    ) -> None:
        super().__init__()
        self.ways, self.width, self.slots, self.slot_width, self.heads = ways, width, slots, slot_width, heads
        self.controller = nn.LSTMCell(inputs + ways + heads * slot_width, width)
        self.keys = nn.Linear(width, heads * slot_width)
        self.gates = nn.Linear(width, heads)
        self.answer = nn.Linear(width + heads * slot_width, ways)

    def forward(self, x: Tensor, y: Tensor, strength: float = 1.0, forget: float = 0.95) -> Tensor:
        """Answer sequences [batch, steps, inputs] with late labels [batch, steps]: [batch, steps, ways]."""
        late = F.pad(F.one_hot(y, self.ways).to(x.dtype)[:, :-1], (0, 0, 1, 0))
        state = (x.new_zeros(len(x), self.width), x.new_zeros(len(x), self.width))
        memory = x.new_zeros(len(x), self.slots, self.slot_width)
        read = x.new_zeros(len(x), self.heads * self.slot_width)
        reading, usage = x.new_zeros(len(x), self.heads, self.slots), x.new_zeros(len(x), self.slots)
        answers = []
        for step in range(x.shape[1]):
            state = self.controller(torch.cat([x[:, step], late[:, step], read], 1), state)
            keys = torch.tanh(self.keys(state[0])).view(-1, self.heads, self.slot_width)
            gates = torch.sigmoid(self.gates(state[0])).unsqueeze(2)
            least = F.one_hot(usage.topk(self.heads, largest=False).indices, self.slots).to(x.dtype)
            writing = gates * reading + (1 - gates) * least
            memory = memory * (1 - least.sum(1)).unsqueeze(2) + writing.transpose(1, 2) @ keys
            lengths = memory.norm(dim=2).unsqueeze(1) + 1e-4
            cosine = keys @ memory.transpose(1, 2) / lengths / (keys.norm(dim=2, keepdim=True) + 1e-4)
            reading = torch.softmax(strength * cosine, 2)
            usage = (forget * usage + reading.sum(1) + writing.sum(1)).detach()
            read = (reading @ memory).flatten(1)
            answers.append(self.answer(torch.cat([state[0], read], 1)))
        return torch.stack(answers, 1)


class Recurrent(nn.Module):
    """Torch's own LSTM over the same sequences, with a linear answer."""

    def __init__(self, inputs: int, ways: int, width: int = 200) -> None:
        super().__init__()
        self.ways, self.lstm, self.answer = (
            ways,
            nn.LSTM(inputs + ways, width, batch_first=True),
            nn.Linear(width, ways),
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Answer as ``MemoryNetwork`` does."""
        late = F.pad(F.one_hot(y, self.ways).to(x.dtype)[:, :-1], (0, 0, 1, 0))
        answers: Tensor = self.answer(self.lstm(torch.cat([x, late], 2))[0])
        return answers


def loss_of(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the mean cross entropy of all steps of all sequences."""
    return F.cross_entropy(network(x, y).flatten(0, 1), y.flatten())


def slopes(network: nn.Module, x: Tensor, y: Tensor) -> Sequence[Tensor]:
    """Return the gradient of a batch."""
    return torch.autograd.grad(loss_of(network, x, y), list(network.parameters()))


def ours(x: Tensor, y: Tensor) -> Callable[[], object]:
    """Return our outer step's gradient on the same sequences, as episodes."""
    task = TaskShape("sequence", (PIXELS,), WAYS, classes=9)
    learner = build_learner(
        learner={"prediction": {"kind": "mann"}}, inner={}, outer={"hypergradient": "auto"}, task=task
    )
    generator = torch.Generator().manual_seed(0)
    phi: Tensors = learner.init(generator)
    state = learner.begin(phi, generator)
    episodes = [Episode(Support(one[:0], labels[:0]), one, labels) for one, labels in zip(x, y, strict=True)]
    return lambda: learner.meta_step(phi, state, episodes, generator)


def times(episodes: int = EPISODES) -> dict[str, float]:
    """Return the seconds of ours, of the plain version and of torch's LSTM for so many episodes, taken in turns."""
    torch.manual_seed(0)
    x, y = torch.rand(BATCH, STEPS, PIXELS), torch.arange(STEPS).remainder(WAYS).expand(BATCH, -1).contiguous()
    plain, lstm = MemoryNetwork(PIXELS, WAYS), Recurrent(PIXELS, WAYS)
    works = {"ours": ours(x, y), "plain": lambda: slopes(plain, x, y), "lstm": lambda: slopes(lstm, x, y)}
    taken: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(-(-episodes // BATCH) + 1):
        for name, work in works.items():
            started = time.process_time()
            work()
            taken[name] += [time.process_time() - started] if turn else []  # the first one warms up
    return {name: statistics.median(one) * episodes / BATCH for name, one in taken.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    keep_pages()
    for name, spent in times().items():
        print(f"{name}: {spent:.2f} s for {EPISODES:,} episodes of {STEPS} steps")
