"""The learned augmentation policy as a table, most likely sub-policies first."""

from metaloom.dashboards.canvas import panel
from metaloom.dashboards.knowledge_figures.base import DRAWERS, Picture, TrialKnowledge
from metaloom.learners.knowledge.augmentation import Augmentation, Policy

SHOWN = 10  # sub-policies
COLUMNS, WIDTHS = ("share", "operation", "probability", "magnitude", "meaning"), (0.1, 0.2, 0.14, 0.14, 0.42)


@DRAWERS.register("augmentation.policy")
def policy_table(knowledge: TrialKnowledge) -> Picture | None:
    """Draw the operations of each learned policy as rows."""
    learned = knowledge.learned("augmentation", Augmentation)
    policies = [policy for augmentation, phi in learned for policy in augmentation.policies(phi)]
    if not policies:
        return None
    cells = [row for policy in policies for row in _cells(policy)]
    figure, axes = panel(8.0, 0.6 + 0.22 * len(cells))
    axes.set_axis_off()
    table = axes.table(cells, colLabels=list(COLUMNS), loc="center", cellLoc="left", colWidths=WIDTHS)
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    return Picture("augmentation-policy", " ".join(_caption(policy) for policy in policies), figure)


def _cells(policy: Policy) -> list[list[str]]:
    cells, last = [], 0
    for row in policy.rows():
        if row["sub_policy"] <= SHOWN:
            share = f"{row['share']:.1%}" if row["sub_policy"] != last else ""  # once per sub-policy
            last = row["sub_policy"]
            numbers = [f"{row[name] or 0.0:.2f}" for name in ("probability", "magnitude")]
            cells.append([share, row["operation"], *numbers, row["meaning"]])
    return cells


def _caption(policy: Policy) -> str:
    best = max(policy.sub_policies, key=lambda sub: sub.share)
    uses = " and ".join(f"{use.operation} ({use.probability:.0%}, magnitude {use.magnitude:.2f})" for use in best.uses)
    shown = min(SHOWN, len(policy.sub_policies))
    return (
        f"The {shown} most likely of the {len(policy.sub_policies)} sub-policies; the first, at {best.share:.1%} of "
        f"the images, is {uses}."
    )
