"""Modules that lose a gradient, or write where they should not, as the field's packages really do it."""

from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

VOCABULARY = 7


class Parametrized(nn.Module):
    """Weight norm and orthogonal weights, by torch's parametrizations; or the old weight norm."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        layers = {
            "weight_norm": lambda: parametrizations.weight_norm(nn.Linear(6, 4)),
            "orthogonal": lambda: parametrizations.orthogonal(nn.Linear(6, 6)),
            "spectral_norm": lambda: parametrizations.spectral_norm(nn.Linear(6, 4), n_power_iterations=20),
            "old_weight_norm": lambda: nn.utils.weight_norm(nn.Linear(6, 4)),
        }
        self.body = layers[kind]()
        self.fc = nn.Linear(self.body.out_features, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.tanh(self.body(x)))


class Ode(nn.Module):
    """A neural ordinary differential equation, by torchdiffeq."""

    def __init__(self, solver: str) -> None:
        super().__init__()
        self.solve = getattr(import_module("torchdiffeq"), solver)
        self.field, self.fc = Field(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        times = torch.linspace(0, 1, 3, dtype=x.dtype)
        return self.fc(self.solve(self.field, x, times, method="rk4")[-1])


class Field(nn.Module):
    """What an ODE follows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, time: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(self.layer(x))


class Attention(nn.Module):
    """A transformer's layer, or attention alone, whose weights are needed or not."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        self.layer = layer if kind == "encoder" else nn.MultiheadAttention(4, 2, batch_first=True)
        self.embed, self.fc = nn.Linear(1, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.embed(x.unsqueeze(-1))
        if self.kind == "encoder":
            hidden = self.layer(hidden)
        else:
            hidden, _ = self.layer(hidden, hidden, hidden, need_weights=self.kind == "weights")
        return self.fc(hidden.square().mean(1))


class Checkpointed(nn.Module):
    """A layer whose activations are computed again in the backward pass."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.body, self.fc = nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.tanh(checkpoint(self.body, x, use_reentrant=self.reentrant)))


class Operation(nn.Module):
    """One operation between two layers."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.body, self.fc = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.body(x)
        rows = torch.arange(len(x)).unsqueeze(1)
        operations = {
            "hardsigmoid": lambda: F.hardsigmoid(hidden),
            "embedding_bag": lambda: F.embedding_bag(rows, hidden, mode="sum"),
            "segment_reduce": lambda: torch.segment_reduce(hidden, "sum", lengths=torch.ones(len(x), dtype=torch.long)),
            "pdist": lambda: hidden + F.pdist(hidden).mean(),
            "multi_margin_loss": lambda: hidden + F.multi_margin_loss(hidden, rows[:, 0] % 6),
        }
        return self.fc(operations[self.name]())


class Degenerate(nn.Module):
    """Finite outputs and slopes at its start, and no finite second derivative: equal eigenvalues of the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix, self.fc = nn.Parameter(torch.eye(3)), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) * torch.linalg.eigvalsh(self.matrix @ self.matrix.T).sum() + torch.linalg.svdvals(self.matrix)


class Embedded(nn.Module):
    """An embedding of the inputs as indices."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.table, self.fc = nn.Embedding(VOCABULARY, 4, **settings), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.table((x.abs() * 3).long().clamp(max=VOCABULARY - 1)).mean(1))


class Detached(nn.Module):
    """A parameter that moves the output, and whose gradient is cut off."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.fc = nn.Parameter(torch.ones(3)), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) * self.scale.detach()


class Bert(nn.Module):
    """A tiny BERT on token numbers, by transformers."""

    def __init__(self, attention: str) -> None:
        super().__init__()
        library = import_module("transformers")
        self.bert = library.BertModel(
            library.BertConfig(
                vocab_size=VOCABULARY,
                hidden_size=8,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=8,
                max_position_embeddings=8,
                attn_implementation=attention,
            ),
            add_pooling_layer=False,
        )
        for table in (self.bert.embeddings.word_embeddings, self.bert.embeddings.position_embeddings):
            table.weight.requires_grad_(False)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.bert((x.abs() * 3).long().clamp(max=VOCABULARY - 1)).last_hidden_state
        return self.fc(hidden.mean(1))


class Gpt2(nn.Module):
    """A tiny GPT-2 with its tied embedding, which predicts one of three tokens."""

    def __init__(self) -> None:
        super().__init__()
        library = import_module("transformers")
        config = library.GPT2Config(
            vocab_size=3, n_embd=4, n_layer=1, n_head=2, n_positions=6, bos_token_id=0, eos_token_id=0
        )
        self.model = library.GPT2LMHeadModel(config)

    def forward(self, x: Tensor) -> Tensor:
        return self.model((x.abs() * 3).long().clamp(max=2)).logits[:, -1]


class SelectiveScan(nn.Module):
    """A tiny Mamba, by mambapy: its parallel scan, a function with its own backward pass, or its sequential one."""

    def __init__(self, parallel: bool) -> None:
        super().__init__()
        library = import_module("mambapy.mamba")
        self.embed, self.fc = nn.Linear(1, 4), nn.Linear(4, 3)
        self.body = library.Mamba(library.MambaConfig(d_model=4, n_layers=1, d_state=3, d_conv=2, pscan=parallel))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(self.embed(x.unsqueeze(-1)))[:, -1])


class Mamba(nn.Module):
    """A tiny Mamba, by transformers, which computes it in plain torch where no kernel is installed."""

    def __init__(self, frozen: bool) -> None:
        super().__init__()
        library = import_module("transformers")
        settings = {"hidden_size": 4, "state_size": 3, "num_hidden_layers": 1, "conv_kernel": 2, "time_step_rank": 1}
        self.body = library.MambaModel(library.MambaConfig(vocab_size=3, use_cache=False, **settings))
        self.body.embeddings.requires_grad_(not frozen)
        self.embed, self.fc = nn.Linear(1, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(inputs_embeds=self.embed(x.unsqueeze(-1))).last_hidden_state[:, -1])


def adapted(merged: bool = False) -> nn.Module:
    """Return two layers with low-rank adapters, by peft, merged into the weights or not."""
    library = import_module("peft")

    class Layers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.fc = nn.Linear(6, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(torch.tanh(self.body(x)))

    model = library.get_peft_model(Layers(), library.LoraConfig(r=2, target_modules=["body", "fc"]))
    if merged:
        model.merge_adapter()
    made: nn.Module = model
    return made
