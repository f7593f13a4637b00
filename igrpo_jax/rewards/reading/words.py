"""Words that say something about the number before them, so that they are no unit of it."""

import re

from igrpo_jax.rewards.reading.commands import FUNCTIONS, GREEK
from igrpo_jax.rewards.reading.tokens import NAMED

_NUMBER = re.compile(
    r"(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twel(?:ve|f)|hundred|thousand|[a-z]*illi(?:on|ard)"
    r"|(?:thir|four|fif|six|seven|eigh|nine)teen|(?:twen|thir|for|four|fif|six|seven|eigh|nine)t(?:y|ie)|fif|eigh|nin"
    r"|myriad|lakh|crore|googol(?:plex)?|dozen|score|gross|pair|first|third|half|halve|quarter)(?:s|th|ths|fold)?"
)
"""Cardinals, ordinals and fractions; `second` is a unit of time."""

_CHANGE = re.compile(
    r"(?:doubl|tripl|quadrupl|halv|squar|cub|invert|negat|rais|multipli|divid|round|estimat|increas|decreas|reduc|exceed"
    r"|add|subtract)(?:e?d|ing)|reciprocal|inverse|radical|exponent[a-z]*|logarithm[a-z]*|(?:co)?sine|(?:co)?tangent"
    r"|factorial|approx[a-z]*|infinit[a-z]*|maxim[a-z]*|minim[a-z]*|per(?:cent|mil)[a-z]*|promille|mod(?:ulo|ulus)?"
)
"""What is done to a number, and how well it is known; `square`, `cubic`, `squares` and `cubes` are no such words."""

_LINKS = frozenset(
    """
    about all almost and any anything are around as at barely base basis below between bps but by cent choose double
    else equals except false fewer for from greater if in incorrect instead is larger least less maybe mill minus mixed
    might more most nearly negative neither never no none nor not or otherwise over perhaps plus positive possibly
    power ppb ppm probably roughly root smaller than then through times to triple twice thrice under unless unlike
    until up versus was when where which with without wrong
    """.split()
)
"""Words that join, compare, deny or doubt, of those that may stand behind a number."""

_NAMES = {name.casefold() for name in (*NAMED, *FUNCTIONS, *GREEK)}


def says_something(word: str) -> bool:
    """Whether a word behind a number changes what is said: a number, a function, a comparison, a denial, a doubt.

    >>> [word for word in ("apples", "twelfths", "quintillion", "reciprocal", "most") if not says_something(word)]
    ['apples']
    """
    word = word.casefold()
    return word in _LINKS or word in _NAMES or bool(_NUMBER.fullmatch(word) or _CHANGE.fullmatch(word))
