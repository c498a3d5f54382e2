"""Is what the server is asked still what the model was judged on? Two samples of its features, compared.

The features are brought to a few directions by principal components, each direction is compared by the two-sample test
of Kolmogorov and Smirnov, and Bonferroni's correction holds the whole to one level (S. Rabanser, S. Guennemann,
Z. Lipton, Failing Loudly: An Empirical Study of Methods for Detecting Dataset Shift, https://arxiv.org/abs/1810.11953).
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import fisher_exact, ks_2samp


@dataclass(frozen=True)
class Reference:
    """What a model sees in data that nothing is wrong with: the middle, the directions [F, K], and all along them.

    The last column of `along` is the strangeness, which is no direction of the features and is tested with them.
    """

    middle: np.ndarray
    directions: np.ndarray
    along: np.ndarray


@dataclass(frozen=True)
class Shift:
    """The smallest of the p-values [K + 1] is corrected for their number; below `level` it is an alarm."""

    p_values: np.ndarray
    level: float

    @property
    def p(self) -> float:
        return min(1.0, float(self.p_values.min()) * len(self.p_values))

    @property
    def alarm(self) -> bool:
        return self.p < self.level


def reference(features: np.ndarray, strangeness: np.ndarray, components: int) -> Reference:
    """The reference of `features` [N, F] with the `components` directions in which they differ the most."""
    evened = _evened(features)
    middle = evened.mean(0)
    spread = np.cov(evened, rowvar=False)
    directions = np.linalg.eigh(spread)[1][:, ::-1][:, :components]
    return Reference(middle, directions, _along(evened, strangeness, middle, directions))


def shift(known: Reference, features: np.ndarray, strangeness: np.ndarray, level: float) -> Shift:
    """Whether `features` and `strangeness` of newer cases could come from where those of `known` came from."""
    along = _along(_evened(features), strangeness, known.middle, known.directions)
    tests = (ks_2samp(old, new, method="asymp") for old, new in zip(known.along.T, along.T))
    return Shift(np.array([test.pvalue for test in tests]), level)


def found_after(known: Reference, features: np.ndarray, strangeness: np.ndarray, level: float, steps: tuple[int, ...]):
    """The smallest number of answers of `steps` by which the shift is found, None if it is not."""
    for count in steps:
        if shift(known, features[:count], strangeness[:count], level).alarm:
            return count
    return None


def too_many(count: int, of: int, usual: int, of_usual: int, level: float) -> bool:
    """Whether `count` of `of` is more than chance allows beside `usual` of `of_usual` cases (Fisher's exact test)."""
    table = [[count, of - count], [usual, of_usual - usual]]
    return of > 0 and fisher_exact(table, alternative="greater").pvalue < level


def _evened(features: np.ndarray) -> np.ndarray:
    """Square roots, signs kept, as the measure of strangeness takes them."""
    return np.sign(features) * np.sqrt(np.abs(features.astype(np.float64)))


def _along(evened: np.ndarray, strangeness: np.ndarray, middle: np.ndarray, directions: np.ndarray) -> np.ndarray:
    return np.column_stack([(evened - middle) @ directions, strangeness])
