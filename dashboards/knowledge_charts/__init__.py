"""Interactive charts of the facts of meta-knowledge, their tables, and the comparison of two trials' facts.

``charts/knowledge`` serves them; the same facts are drawn as figures by ``knowledge_figures``.
"""
