"""How often 95 % intervals have the truth in them, and how often a difference is found that is not there.

Simulated answers, with seeds that are fixed: videos differ in difficulty (a beta distribution with an intra-class
correlation of 0.2), and have 8 questions each, or 1 to 30. Writes docs/concepts/intervals.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sfllava.analysis import stats
from sfllava.analysis.agreement import kappa, kappa_interval

VIDEOS = (5, 10, 20, 50, 245)
SHARES = (0.02, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.98)
SIZES = {"8 each": (8, 8), "1 to 30": (1, 30)}
ALIKE = 4.0  # alpha + beta of the beta distribution: a correlation of 1 / (1 + 4)
PAGE = Path(__file__).parents[1] / "docs" / "concepts" / "intervals.md"
Draw = tuple[np.ndarray, np.ndarray]


def videos_of(rng: np.random.Generator, videos: int, sizes: tuple[int, int], share: float) -> Draw:
    """(N) the video of each question, and (N) its chance to be answered right."""
    owner = np.repeat(np.arange(videos), rng.integers(sizes[0], sizes[1] + 1, videos))
    return owner, rng.beta(share * ALIKE, (1 - share) * ALIKE, videos)[owner]


def share(rng: np.random.Generator, videos: int, sizes: tuple[int, int], truth: float) -> bool:
    owner, chance = videos_of(rng, videos, sizes, truth)
    found = stats.proportion(rng.random(len(owner)) < chance, owner)
    return found.low <= truth <= found.high


def score(rng: np.random.Generator, videos: int, sizes: tuple[int, int], truth: float) -> bool:
    """Of a judge's scores: 4 or 5 for a right answer, 0 to 2 for a wrong one."""
    owner, chance = videos_of(rng, videos, sizes, truth)
    right, n = rng.random(len(owner)) < chance, len(owner)
    scores = np.where(right, rng.choice([4, 5], n, p=[0.3, 0.7]), rng.choice([0, 1, 2], n, p=[0.6, 0.2, 0.2]))
    found = stats.mean(scores.astype(float), owner, 0, 5)
    return found.low <= 4.7 * truth + 0.6 * (1 - truth) <= found.high


def difference(rng: np.random.Generator, videos: int, sizes: tuple[int, int], truth: float) -> bool:
    """Of a setting, and of one that answers four fifths of what it answers."""
    owner, chance = videos_of(rng, videos, sizes, truth)
    one, other = rng.random(len(owner)) < chance, rng.random(len(owner)) < 0.8 * chance
    found = stats.difference(one, other, owner).estimate
    return found.low <= 0.2 * truth <= found.high


def false_find(rng: np.random.Generator, videos: int, sizes: tuple[int, int], truth: float) -> bool:
    owner, chance = videos_of(rng, videos, sizes, truth)
    one, other = rng.random(len(owner)) < chance, rng.random(len(owner)) < chance
    return stats.difference(one, other, owner).p < 0.05


def judged(rng: np.random.Generator, videos: int, sizes: tuple[int, int], right: float) -> np.ndarray:
    """(videos 4) confusion tables of two judges that are right so often, by video more or less."""
    owner, chance = videos_of(rng, videos, sizes, 0.6)
    truth = rng.random(len(owner)) < chance
    said = []
    for _ in range(2):
        good = rng.beta(10 * right, 10 * (1 - right), videos)[owner]
        said.append(np.where(rng.random(len(owner)) < good, truth, ~truth))
    tables = np.zeros((videos, 4))
    np.add.at(tables, (owner, 2 * said[0] + said[1]), 1)
    return tables


def coverage(case: Callable[..., bool], times: int, videos: int, sizes: tuple[int, int], truth: float) -> float:
    rng = np.random.default_rng([videos, *sizes, round(1000 * truth)])
    return 100 * float(np.mean([case(rng, videos, sizes, truth) for _ in range(times)]))


def table(case: Callable[..., bool], times: int, counts: tuple[int, ...], shares: tuple[float, ...], head: str) -> str:
    lines = [f"| {head} | questions | " + " | ".join(f"{s:g}" for s in shares) + " |", "|---" * (2 + len(shares)) + "|"]
    for videos in counts:
        for name, sizes in SIZES.items():
            found = [coverage(case, times, videos, sizes, s) for s in shares]
            lines.append(f"| {videos} | {name} | " + " | ".join(f"{x:.1f}" for x in found) + " |")
            print(lines[-1], flush=True)
    return "\n".join(lines)


def kappas(times: int) -> str:
    lines = ["| videos | questions | judges right on 70 % | 85 % | 95 % |", "|---|---|---|---|---|"]
    levels = (0.7, 0.85, 0.95)
    for videos in VIDEOS:
        for name, sizes in SIZES.items():
            row = []
            for right in levels:
                rng = np.random.default_rng([videos, *sizes, round(1000 * right)])
                true = kappa(judged(rng, 200_000, sizes, right).sum(0).reshape(1, 2, 2))[0]
                found = [kappa_interval(judged(rng, videos, sizes, right), 2) for _ in range(times)]
                row.append(100 * np.mean([low <= true <= high for _, low, high in found if not np.isnan(low)]))
            lines.append(f"| {videos} | {name} | " + " | ".join(f"{x:.1f}" for x in row) + " |")
            print(lines[-1], flush=True)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=2000, help="simulated data sets of each case")
    times = parser.parse_args().times
    PAGE.write_text(
        f"""# Confidence intervals and significance tests

Questions about the same video are correlated, so a benchmark's independent units are its videos, not its questions.
All intervals are 95 % intervals that account for this. A difference is significant if p < 0.05 after Holm's correction.

## How to read them

`68.2 [64.0, 72.1]` says that 68.2 % of all questions were right, and that a true accuracy from 64.0 to 72.1 % is
compatible with that result. Failed questions and unparsable replies are in the denominator, and count as wrong.

- **Compare settings by their difference, not by whether their intervals overlap.** Both settings answered the same
  questions, so the paired difference is more precise: most of what makes a video hard cancels out.
- **Not significant does not mean equal.** Next to each difference is the smallest one that the data could detect after
  the correction, in 80 of 100 cases. If that is 8 points, a true gain of 3 points would rarely show.
- **Many comparisons find something by chance.** Holm's correction keeps the chance of any false finding in a table
  below 5 %; the corrected p-values are called `p_holm`.
- An interval covers the choice of questions and videos. It does not cover another prompt, judge, checkpoint or number
  format.

## What they are

- **Accuracy**: the Clopper-Pearson interval at the effective sample size (Korn and Graubard).
- **Paired difference**: a sign-flip permutation test over videos. p is the fraction of sign flips that give a
  difference at least as large, so no difference is significant with fewer than six videos. The interval contains all
  differences that this test does not reject.
- **Mean score**: as for accuracy, on the range of possible scores.
- **Cohen's kappa**: a t interval from the jackknife over videos, on the scale of log(1 - kappa).

If all answers are the same, the interval allows for the kinds of video that a sample of this size could have missed. So
does that of a difference where fewer than six videos differ, or nearly all of them by the same.

The tables below give the coverage in simulations (`python bench/intervals.py`). Each cell is from {times:,} data sets,
so its standard error is about {100 * (0.95 * 0.05 / times) ** 0.5:.1f} points. Videos differ in difficulty (intra-class
correlation 0.2) and have 8 questions each, or 1 to 30.

## Accuracy: coverage of the interval by true accuracy, %

{table(share, times, VIDEOS, SHARES, "videos")}

## Mean score: coverage of the interval, %

For a judge that gives 4 or 5 to right answers and 0 to 2 to wrong ones; the columns are true accuracies. With few
videos of uneven size and scores that are nearly all alike, the interval does not allow for rare scores that the sample
misses, and covers less than 95 %.

{table(score, times, VIDEOS, SHARES, "videos")}

## Paired difference: coverage of the interval, %

Each column is the true accuracy of one setting; the accuracy of the other is four fifths of that.

{table(difference, times, VIDEOS, SHARES, "videos")}

## Paired difference: false positive rate, %

The test rejects at p < 0.05, so the rate should be at most 5, apart from simulation noise. Each column is the true
accuracy of both settings.

{table(false_find, times, (2, 3, 5, 10, 50), (0.02, 0.1, 0.5, 0.9, 0.98), "videos")}

## Cohen's kappa: coverage of the interval, %

For two judges whose accuracy varies by video. Samples on which kappa is undefined are left out.

{kappas(times)}
""",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
