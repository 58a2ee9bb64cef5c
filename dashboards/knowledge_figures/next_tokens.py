"""How surprising a language model finds each token of some texts."""

import torch

from metaloom.dashboards.canvas import name_axes, panel
from metaloom.dashboards.knowledge_figures.base import DRAWERS, Picture, TrialKnowledge
from metaloom.learners.networks.tokens import FIRST, PADDING, UNKNOWN, vocabulary_of

LONGEST = 24  # tokens of a text that are drawn
MOST_LETTERS = 9  # of a token


@DRAWERS.register("prediction.next_tokens")
@torch.no_grad()
def next_tokens(knowledge: TrialKnowledge) -> Picture | None:
    """Draw texts as rows of tokens, coloured by the bits that each costs after those before it."""
    texts, bits = knowledge.matrix("text"), knowledge.matrix("surprise")
    if texts is None or bits is None or texts.shape != bits.shape:
        return None
    there = texts != PADDING
    predicted = there.clone()
    predicted[:, 0] = False  # the first token of a text is given
    if not bool(predicted.any()):
        return None
    width = min(LONGEST, int(there.any(0).nonzero().max()) + 1)
    names = ["", "(other)", *vocabulary_of(knowledge.task)]
    figure, axes = panel(max(5.0, 0.62 * width), 0.45 * len(texts) + 1.2)
    shown = torch.where(there, bits, torch.nan)[:, :width]
    figure.colorbar(axes.imshow(shown, aspect="auto", cmap="YlOrRd", vmin=0.0, interpolation="nearest"), label="bits")
    for row, text in enumerate(texts[:, :width].long().tolist()):
        for place, token in enumerate(text):
            if PADDING < token < len(names):
                axes.text(place, row, names[token][:MOST_LETTERS], ha="center", va="center", fontsize=6)
    name_axes(axes, "", "place in the text", "text")
    axes.grid(visible=False)
    axes.set_yticks([])
    mean = float(bits[predicted].mean())
    unknown = float((texts[predicted] == UNKNOWN).float().mean())
    caption = (
        f"The tokens of {len(texts)} texts of a validation episode, by how surprising each is after those before it. "
        f"They cost {mean:.2f} bits on average, a perplexity of {2**mean:.1f} among {len(names) - FIRST + 1} tokens; "
        f"{unknown:.0%} of them are outside of the vocabulary."
    )
    return Picture("next-tokens", caption, figure)
