"""Are both pathways better than either alone at the same number of tokens?

The default budget is the paper's, 3,680 tokens.
"""

from sfllava.aggregators.matching import match_budget
from sfllava.settings import Setting

BENCHMARK = "egoschema"
TOKENS = 3680


def settings(model, task, tokens) -> list[Setting]:
    methods = ("slowfast", "slow only", "fast only")
    return [Setting(50, match_budget(method, tokens, 50, *model.grid), method) for method in methods]
