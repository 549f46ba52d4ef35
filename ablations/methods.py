"""Which aggregation method is best at the same number of tokens?

SlowFast, each of its pathways alone, and four other methods, each with the setting closest to the budget. A method
that has no setting for the budget is left out, with a warning.
"""

import logging

from sfllava.aggregators.matching import budget_methods, match_budget
from sfllava.settings import Setting
from sfllava.types import SfllavaError

BENCHMARK = "egoschema"
TOKENS = 3680


def settings(model, task, tokens) -> list[Setting]:
    found = []
    for method in budget_methods():
        try:
            found.append(Setting(50, match_budget(method, tokens, 50, *model.grid), method))
        except SfllavaError as error:
            logging.getLogger("sfllava").warning("left out: %s", error)
    return found
