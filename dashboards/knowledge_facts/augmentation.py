"""The learned augmentation policy as a table, most likely sub-policies first, and on images."""

import torch

from metaloom.dashboards.knowledge_facts.base import FACTS, TrialKnowledge
from metaloom.dashboards.knowledge_facts.panels import Images, LearnedFacts, Sheet
from metaloom.dashboards.knowledge_facts.scaled import as_pictures
from metaloom.learners.knowledge.augmentation import Augmentation, Policy, apply_policies

SHOWN = 10  # sub-policies
DRAWS = 3  # rows of augmented images
COLUMNS, WIDTHS = ("share", "operation", "probability", "magnitude", "meaning"), (0.1, 0.2, 0.14, 0.14, 0.42)


def learned_policies(knowledge: TrialKnowledge) -> list[Policy]:
    """Return the learned policies, in the order of their application."""
    learned = knowledge.learned("augmentation", Augmentation)
    return [policy for augmentation, phi in learned for policy in augmentation.policies(phi)]


@FACTS.register("augmentation.policy")
def policy_table(knowledge: TrialKnowledge) -> LearnedFacts | None:
    """Return the operations of each learned policy as rows."""
    policies = learned_policies(knowledge)
    if not policies:
        return None
    rows = tuple(row for policy in policies for row in _rows(policy))
    caption = " ".join(_caption(policy) for policy in policies)
    return LearnedFacts("augmentation-policy", caption, (Sheet("", COLUMNS, rows, WIDTHS),))


@FACTS.register("augmentation.images")
@torch.no_grad()
def augmented_images(knowledge: TrialKnowledge) -> LearnedFacts | None:
    """Return images of a validation episode as they are, and in several draws of the learned policies."""
    policies, images = learned_policies(knowledge), knowledge.shown.get("images")
    if not policies or images is None or images.ndim != 4 or images.dtype != torch.uint8:
        return None
    given = images.float() / 255
    generator = torch.Generator().manual_seed(0)  # the same draws for every trial and step: they can be compared
    varied = [apply_policies(policies, given, generator).clamp(0, 1) for _ in range(DRAWS)]
    names = ("as it is", *(f"draw {number}" for number in range(1, DRAWS + 1)))
    rows = tuple(zip(names, map(as_pictures, [given, *varied]), strict=True))
    changed = torch.stack([(one - given).flatten(1).abs().amax(1) > 1e-6 for one in varied])
    caption = (
        f"{len(given)} images of a validation episode as they are, and in {DRAWS} draws of the learned policy: "
        f"{float(changed.float().mean()):.0%} of the draws change their image."
    )
    columns = tuple(map(str, range(1, len(given) + 1)))
    return LearnedFacts("augmented-images", caption, (Images("", columns, rows),))


def _rows(policy: Policy) -> list[tuple[str, ...]]:
    rows, last = [], 0
    for row in policy.rows():
        if row["sub_policy"] <= SHOWN:
            share = f"{row['share']:.1%}" if row["sub_policy"] != last else ""  # once per sub-policy
            last = row["sub_policy"]
            each = [f"{row[name] or 0.0:.2f}" for name in ("probability", "magnitude")]
            rows.append((share, str(row["operation"]), *each, str(row["meaning"])))
    return rows


def _caption(policy: Policy) -> str:
    best = max(policy.sub_policies, key=lambda sub: sub.share)
    uses = " and ".join(f"{use.operation} ({use.probability:.0%}, magnitude {use.magnitude:.2f})" for use in best.uses)
    shown = min(SHOWN, len(policy.sub_policies))
    return (
        f"The {shown} most likely of the {len(policy.sub_policies)} sub-policies; the first, at {best.share:.1%} of "
        f"the images, is {uses}."
    )
