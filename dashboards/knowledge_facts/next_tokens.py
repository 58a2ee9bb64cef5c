"""How surprising a language model finds each token of some texts."""

import torch

from metaloom.dashboards.knowledge_facts.base import FACTS, TrialKnowledge
from metaloom.dashboards.knowledge_facts.panels import Heat, LearnedFacts
from metaloom.learners.networks.tokens import FIRST, PADDING, UNKNOWN, vocabulary_of

LONGEST = 24  # tokens of a text that are drawn
MOST_LETTERS = 9  # of a token


@FACTS.register("prediction.next_tokens")
@torch.no_grad()
def next_tokens(knowledge: TrialKnowledge) -> LearnedFacts | None:
    """Return texts as rows of tokens, with the bits that each costs after those before it."""
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
    shown = torch.where(there, bits, torch.nan)[:, :width]
    drawn = tuple(
        tuple(names[token][:MOST_LETTERS] if PADDING < token < len(names) else "" for token in text)
        for text in texts[:, :width].long().tolist()
    )
    mean = float(bits[predicted].mean())
    unknown = float((texts[predicted] == UNKNOWN).float().mean())
    caption = (
        f"The tokens of {len(texts)} texts of a validation episode, by how surprising each is after those before it. "
        f"They cost {mean:.2f} bits on average, a perplexity of {2**mean:.1f} among {len(names) - FIRST + 1} tokens; "
        f"{unknown:.0%} of them are outside of the vocabulary."
    )
    return LearnedFacts("next-tokens", caption, (Heat("", "place in the text", "text", shown, "bits", texts=drawn),))
