"""The report as one HTML file: everything is inside it, nothing is fetched, and only scripts that are ours run."""

import base64
import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from igrpo_jax.report.figures import Figure

SCRIPTS = ("text.js", "samples.js", "detail.js", "reader.js")
"""Of the reader, in order; that of the charts comes after Vega's."""

COLORS = {
    "light": ["#2f6fdb", "#d9790b", "#12906a", "#c43d5b", "#7a4fd0", "#0b8fb0", "#a0683a", "#6b7280"],
    "dark": ["#7fabff", "#ffb259", "#4fd1a5", "#ff8fa3", "#b79bff", "#58cbe6", "#d3a47a", "#a7b0be"],
}
"""Of curves."""


def render(context: Mapping[str, Any], shown: Sequence[Figure], index: str, chunks: Sequence[str]) -> str:
    """The page.

    Args:
      context: values of the template.
      shown: every figure that the template names.
      index, chunks: samples, see `igrpo_jax.report.samples.Packed`.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    scripts = [*map(_asset, SCRIPTS), vega(), _asset("charts.js")]
    charts = {"specs": {figure.name: figure.chart for figure in shown}, "colors": COLORS}
    return environment.from_string(_asset("page.html")).render(
        **context,
        policy=policy(scripts),
        style=_asset("page.css"),
        scripts=scripts,
        charts=inert(charts),
        index=index,
        chunks=chunks,
    )


def inert(value: Any) -> str:
    r"""JSON in which nothing ends a script or begins markup.

    >>> inert("</script>&")
    '"\\u003c/script\\u003e\\u0026"'
    """
    return re.sub("[<>&\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value))


def policy(scripts: Sequence[str]) -> str:
    """A content security policy under which these scripts run, no other and no handler, and nothing is fetched.

    Vega compiles its expressions, which needs `unsafe-eval`; they are ours, texts are data to it.
    """
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return (
        f"default-src 'none'; script-src {hashes} 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


@functools.lru_cache(maxsize=1)
def vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, made from what is installed."""
    import vl_convert

    return _closed(vl_convert.javascript_bundle(snippet="window.vegaEmbed = vegaEmbed;", vl_version=vega_lite()))


def vega_lite() -> str:
    """The version of Vega-Lite that Altair writes."""
    import altair

    return ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])


def _asset(name: str) -> str:
    text = (files("igrpo_jax.report") / "assets" / name).read_text(encoding="utf-8")
    return _closed(text) if name.endswith(".js") else text


def _closed(script: str) -> str:
    """A script as HTML leaves it: one kind of line end, and no end of a script in it."""
    return re.sub("(?i)<(/script|!--)", r"<\\\1", script.replace("\r\n", "\n").replace("\r", "\n")).replace(
        "<\\!--", "\\x3c!--"
    )
