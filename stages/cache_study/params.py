"""The parameters of this side study."""

from dataclasses import dataclass

from stages.lib.params import NORMS, Params, choice, is_int, list_of


@dataclass(frozen=True)
class CacheStudy:
    views: list[int] = list_of("integers >= 1", lambda v: is_int(v) and v >= 1)
    norm: str = choice(*NORMS)


@dataclass(frozen=True)
class CacheStudyParams(Params):
    cache_study: CacheStudy
