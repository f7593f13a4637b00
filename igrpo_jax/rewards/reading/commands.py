r"""Reads what LaTeX commands stand for: fractions, roots, functions, accents, matrices, series."""

from igrpo_jax.rewards.reading.cursor import Cursor
from igrpo_jax.rewards.reading.nodes import HALF, MINUS_ONE, Node, ReadError, inverse, letter, negative, number

FUNCTIONS = set(
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp floor ceil abs det max min gcd "
    "lcm".split()
)
"""Functions with a value."""

ANGLE_FUNCTIONS = {"sin", "cos", "tan", "cot", "sec", "csc"}
"""Those of an angle, where a degree is a number and no unit."""

_UNREAD = set("int iint oint lim limsup liminf to implies mod bmod pmod dots ldots cdots end right left not".split())
_FORMAL = set("deg dim ker arg Re Im hom sup inf".split())
GREEK = set(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi "
    "varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega vartheta varrho varsigma".split()
)
"""Letters by name."""

_SYMBOLS = set("hbar ell nabla odot oplus star dagger perp".split())
CONSTANTS = {"pi": "pi", "infty": "infinity"}
"""Commands that are numbers, with the names of these."""

_ACCENTS = set("vec hat bar overline tilde dot ddot widehat widetilde overrightarrow overset mathbb mathcal".split())
_WRAPPERS = set("mathbf boldsymbol bm mathrm mathit mathsf operatorname text textbf textit textrm mbox".split())
_FORMS = set("angle measuredangle triangle square".split())
_MATRICES = {"matrix", "pmatrix", "bmatrix", "Bmatrix", "smallmatrix", "array", "vmatrix", "Vmatrix"}
_ROWS = {"cases", "aligned", "gathered"}
_BRACKETS = {r"\lfloor": (r"\rfloor", "floor"), r"\lceil": (r"\rceil", "ceil"), r"\|": (r"\|", "norm")}


def command(cursor: Cursor, text: str) -> Node:
    """What the command that has just been taken stands for, with its arguments."""
    name = text[1:]
    if name in CONSTANTS:
        return Node("constant", (), CONSTANTS[name])
    if name in GREEK | _SYMBOLS:
        return Node("name", (), text)
    if name == "emptyset":
        return Node("set")
    if name in ("boxed", "fbox"):
        return argument(cursor)
    if name == "frac":
        return _fraction(cursor)
    if name == "sqrt":
        return _root(cursor)
    if name == "binom":
        return Node("call", (argument(cursor), argument(cursor)), "binom")
    if text in _BRACKETS:
        return _enclosed(cursor, text)
    if name in ("sum", "prod"):
        return _series(cursor, name)
    if name == "begin":
        return _environment(cursor, cursor.raw())
    if name in FUNCTIONS | _FORMAL:
        return _function(cursor, name)
    if name in _FORMS:
        return Node("name", (), f"{name} {_form(cursor)}")
    if name in _ACCENTS:
        return Node("name", (), f"{text} {cursor.raw()}")
    if name in _WRAPPERS:
        return _wrapped(cursor, name, cursor.raw())
    if cursor.text not in ("{", "[") and name not in _UNREAD:
        return Node("name", (), text)
    raise ReadError(f"{text} is not known")


def argument(cursor: Cursor) -> Node:
    """What a command takes: a group in braces, or one token, of a number only a digit."""
    token = cursor.tokens[cursor.place]
    if token.kind == "number" and len(token.text) > 1 and token.text.isdecimal():
        cursor.tokens[cursor.place] = token._replace(text=token.text[1:])
        return number(int(token.text[0]))
    return cursor.primary(cursor)


def _fraction(cursor: Cursor) -> Node:
    place, tokens = cursor.place, list(cursor.tokens)
    if cursor.text == "{" and cursor.tokens[place + 1].text in ("d", r"\partial"):
        top, bottom = cursor.raw(), cursor.raw()
        mark = "d" if top.startswith("d") else r"\partial"
        if bottom.startswith(mark) and len(bottom) > len(mark) and not set(top + bottom) & set("+-*/=,"):
            return Node("name", (), f"{top}/{bottom}")  # a derivative is no quotient of products with d
        cursor.place, cursor.tokens = place, tokens
    top = argument(cursor)
    return Node("product", (top, inverse(argument(cursor))))


def _root(cursor: Cursor) -> Node:
    if not cursor.accept("["):
        return Node("power", (argument(cursor), HALF))
    with cursor.inside():
        degree = cursor.statement(cursor)
    cursor.expect("]")
    return Node("power", (argument(cursor), inverse(degree)))


def _enclosed(cursor: Cursor, text: str) -> Node:
    closing, name = _BRACKETS[text]
    with cursor.inside():
        found = cursor.statement(cursor)
    cursor.expect(closing)
    return Node("call", (found,), name)


def _function(cursor: Cursor, name: str) -> Node:
    r"""A function with its argument: brackets or braces, else the factors up to the next sign or function."""
    base = power = None
    while cursor.text in ("^", "_"):
        if cursor.take() == "_":
            base = argument(cursor)
        elif cursor.accept("-"):
            power = negative(argument(cursor))
        else:
            power = argument(cursor)
    if cursor.text in ("(", "{", "["):
        arguments = _bracketed(cursor)
    elif cursor.starts_factor():
        factors = [cursor.factor(cursor)]
        while cursor.starts_factor() and cursor.text[1:] not in FUNCTIONS and cursor.text not in ("(", "["):
            factors.append(cursor.factor(cursor))
        arguments = (factors[0] if len(factors) == 1 else Node("product", tuple(factors)),)
    else:
        raise ReadError(f"{name} of nothing")
    if power == MINUS_ONE and name in ("sin", "cos", "tan"):
        return Node("call", arguments, f"arc{name}")
    arguments = (*arguments, base) if base is not None else arguments
    call = Node("call", arguments, name)
    return call if power is None else Node("power", (call, power))


def _bracketed(cursor: Cursor) -> tuple[Node, ...]:
    closing = {"(": ")", "{": "}", "[": "]"}[cursor.take()]
    with cursor.inside():
        found = cursor.statement(cursor)
    cursor.expect(closing)
    return found.args if found.kind in ("list", "group") else (found,)


def _series(cursor: Cursor, name: str) -> Node:
    """A sum or product over a variable from one number to another."""
    cursor.expect("_")
    start = argument(cursor)
    cursor.expect("^")
    last = argument(cursor)
    if start.kind != "relation" or start.value != ("=",) or start.args[0].kind != "name":
        raise ReadError(f"a {name} without a variable")
    return Node("series", (start.args[0], start.args[1], last, cursor.product(cursor)), name)


def _environment(cursor: Cursor, name: str) -> Node:
    """A matrix, a determinant, or equations one below the other."""
    if name not in _MATRICES | _ROWS:
        raise ReadError(f"{name} is not known")
    if name == "array":
        cursor.raw()
    rows: list[list[Node]] = [[]]
    with cursor.inside():
        while cursor.text != r"\end":
            if cursor.accept("&") or _takes_condition(cursor):
                continue
            if cursor.kind == "row":
                cursor.take()
                rows.append([])
            else:
                rows[-1].append(cursor.statement(cursor))
    cursor.take()
    if cursor.raw() != name:
        raise ReadError(f"{name} does not end")
    rows = [row for row in rows if row]
    if name in _ROWS:
        items = tuple(row[0] if len(row) == 1 else Node("group", tuple(row), "()") for row in rows)
        return items[0] if len(items) == 1 else Node("list", items, "and")
    if not rows or len({len(row) for row in rows}) > 1:
        raise ReadError("rows that are not equally long")
    matrix = Node("matrix", tuple(entry for row in rows for entry in row), (len(rows), len(rows[0])))
    return Node("call", (matrix,), "det") if name in ("vmatrix", "Vmatrix") else matrix


def _takes_condition(cursor: Cursor) -> bool:
    r"""Goes past the word in front of a condition, `\text{if }`."""
    words = [token.text for token in cursor.tokens[cursor.place : cursor.place + 6]]
    if words[:1] not in ([r"\text"], [r"\mbox"], [r"\textrm"]) or "}" not in words:
        return False
    if "".join(words[2 : words.index("}")]) not in ("if", "for", "when"):
        return False
    cursor.take()
    cursor.raw()
    return True


def _form(cursor: Cursor) -> str:
    """The points that name an angle or a triangle."""
    if cursor.text == "{":
        return cursor.raw()
    first = cursor.tokens[cursor.place]
    points = cursor.take()
    while cursor.kind == "word" and len(first.run) > 1 and not cursor.tokens[cursor.place].spaced:
        points += cursor.take()
    return points


def _wrapped(cursor: Cursor, name: str, content: str) -> Node:
    if content.removeprefix("\\") in FUNCTIONS:  # its name has become a command already
        return _function(cursor, content.removeprefix("\\"))
    if len(content) == 1 and content.isalpha():
        return Node("name", (), content) if name in ("mathbf", "boldsymbol", "bm") else letter(content)
    if content.isalpha():
        return Node("text", (), content)
    raise ReadError(f"{name} around what is no word")
