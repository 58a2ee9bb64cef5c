r"""Memory-augmented networks: bind examples to labels in a memory, and read it.

Santoro, Bartunov, Botvinick, Wierstra and Lillicrap, 2016, https://arxiv.org/abs/1605.06065:

    o_t = softmax(W [h_t, r_t] + b),    r_t = sum_i w^r_t(i) M_t(i),    w^r_t = softmax of cosine(k_t, M_t(i))

No inner steps: the memory's contents are what is learned of a task. The paper's optimizer is RMSProp at 1e-4, over
100,000 episodes in batches of 16.
"""

from metaloom.learners.base import METHODS, Recipe

METHODS["mann"] = Recipe(
    summary="learns to write examples with their labels into a memory, and to read it by likeness",
    paper="Santoro, Bartunov, Botvinick, Wierstra and Lillicrap, 2016, https://arxiv.org/abs/1605.06065",
    learner={"prediction": {"kind": "mann"}},
    outer={"meta_batch": 16, "optimizer": "rmsprop", "rate": 1e-4},
)
