r"""Zero-shot learning: classes are known by features of their own, such as attributes, and have no examples.

Snell, Swersky and Zemel, 2017, https://arxiv.org/abs/1703.05175, section 2.6:

    c_k = g(v_k) / |g(v_k)|,    p(k | x) = softmax_k(-|f(x) - c_k|^2)

Romera-Paredes and Torr, 2015, https://proceedings.mlr.press/v37/romera-paredes15.html, equation 4:

    V = (X^T X + gamma I)^-1 X^T Y S (S^T S + lambda I)^-1,    argmax_k x V s_k
"""

from metaloom.learners.base import METHODS, Recipe

METHODS["zero_shot_prototypical"] = Recipe(
    summary="learns where a class lies from features of the class, such as attributes; no example of it is needed",
    paper="Snell, Swersky and Zemel, 2017, https://arxiv.org/abs/1703.05175, section 2.6",
    learner={"initialization": {"kind": "learned"}, "prediction": {"kind": "zero_shot_prototypical"}},
    inner={"batch_norm": "frozen"},
    outer={"meta_batch": 1},
)

METHODS["eszsl"] = Recipe(
    summary="fits one matrix between examples and features of their classes, in closed form; no example of a class",
    paper="Romera-Paredes and Torr, 2015, https://proceedings.mlr.press/v37/romera-paredes15.html",
    learner={"prediction": {"kind": "eszsl"}},
    outer={"meta_batch": 1},
)
