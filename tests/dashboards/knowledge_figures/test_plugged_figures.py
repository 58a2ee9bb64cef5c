"""An installed package brings a figure of meta-knowledge of its own."""

import json
from pathlib import Path

from tests.support.packages import install, metaloom

FIGURE = '''
from metaloom.dashboards.canvas import canvas, name_axes
from metaloom.dashboards.knowledge_figures import DRAWERS, TrialKnowledge, Picture


@DRAWERS.register("initialization.sizes")
def sizes(known: TrialKnowledge) -> Picture | None:
    """Draw how many numbers the initialization has."""
    count = sum(leaf.numel() for leaf in known.phi.values())
    if not count:
        return None
    figure = canvas(4.0, 3.0)
    axes = figure.add_subplot()
    axes.bar(["learned"], [count])
    name_axes(axes, "", "", "numbers")
    return Picture("sizes", f"The initialization holds {count} learned numbers.", figure)
'''
EXPERIMENT = """
tasks: {source: sinusoid, shots: 5, queries: 5}
learner: {method: maml, architecture: {kind: mlp, hidden: [4]}, update: {rate: 0.01, steps: 1}}
outer: {steps: 2, meta_batch: 2, validate_every: 2, validation_episodes: 4, test_episodes: 4}
"""


def test_the_figure_of_a_package_is_drawn_beside_the_built_in_ones(tmp_path: Path) -> None:
    install(tmp_path, "more-figures", {"sizes": FIGURE}, {"metaloom.figures": {"sizes": "more_figures.sizes"}})
    (tmp_path / "sine.yaml").write_text(EXPERIMENT)
    trained = metaloom(tmp_path, "train", "sine.yaml", "--name", "sine", "--store", "store", "--json")
    assert trained.returncode == 0, trained.stderr
    shown = json.loads(metaloom(tmp_path, "show", "sine", "--store", "store", "--json").stdout)
    (drawn,) = (one for one in shown["learned"] if one["name"] == "sizes")
    assert drawn["caption"] == "The initialization holds 13 learned numbers."
    assert (tmp_path / drawn["figure"]).is_file()


def test_a_figure_that_cannot_be_loaded_keeps_no_record_back(tmp_path: Path) -> None:
    broken = {"sizes": "import nowhere_to_be_found"}
    install(tmp_path, "more-figures", broken, {"metaloom.figures": {"sizes": "more_figures.sizes"}})
    (tmp_path / "sine.yaml").write_text(EXPERIMENT)
    trained = metaloom(tmp_path, "train", "sine.yaml", "--name", "sine", "--store", "store", "--json")
    assert trained.returncode == 0, trained.stderr
    assert "the plugin 'sizes' of more-figures 1.2 (metaloom.figures: more_figures.sizes)" in trained.stderr
    assert "nowhere_to_be_found" in trained.stderr
    assert metaloom(tmp_path, "sync", "sine", "--store", "store").stdout == "sine: everything is sent\n"
