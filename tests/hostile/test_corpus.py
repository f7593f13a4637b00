"""No text of the corpus is paid, stalls or ends a grader, runs anything, or touches a file or the network."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from igrpo_jax.rewards import GraderPool, Verdict, extract_answer
from tests.hostile import audited
from tests.hostile.corpus import FAMILIES, GUESSES

SECONDS = 2.0
"""What a text may take, in all forms and against all gold answers, of the processor's time."""


@pytest.fixture(scope="module")
def graders():
    with GraderPool(2, 20.0, 512) as pool:
        pool.prepare(audited.prepare)
        yield pool


def check(texts, results):
    for text, result in zip(texts, results, strict=True):
        assert not isinstance(result, Verdict), (text[:100], result.reason, result.message)
        assert result["paid"] == [] and result["events"] == [], (text[:100], result)
        assert result["seconds"] < SECONDS, (text[:100], result)


def test_there_are_hundreds_and_no_two_the_same():
    texts = [text for family in FAMILIES.values() for text in family]
    assert len(texts) > 450 and len(set(texts)) >= len(texts) - 5 and len(GUESSES) == 30


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_paid_run_or_touched(graders, family):
    texts = FAMILIES[family]
    check(texts, graders.map(audited.judge, [(family, index) for index in range(len(texts))]))


def test_naming_the_answer_among_others_is_not_paid(graders):
    check(GUESSES, graders.map(audited.judge_guess, [(index,) for index in range(len(GUESSES))]))


@pytest.mark.parametrize(
    ("what", "event"),
    [
        ("open('/dev/null', 'w')", "open"),
        ("eval('1')", "compile"),
        ("import antigravity_not_there", "import"),
        ("__import__('socket').socket()", "socket"),
        ("__import__('os').system('true')", "os.system"),
        ("__import__('subprocess').run(['true'])", "subprocess"),
    ],
)
def test_the_watch_sees_what_it_should(graders, what, event):
    (seen,) = graders.map(audited.attempt, [(what,)])
    text = seen.message if isinstance(seen, Verdict) else " ".join(seen)
    assert event in text or "antigravity_not_there" in text


_PIECES = st.sampled_from(
    [
        piece
        for name in ("boxes", "latex", "calls", "odd", "look-alikes", "unseen", "control")
        for piece in FAMILIES[name]
    ]
    + ["{", "}", "\\", "^", "_", "(", ")", "[", "]", "!", "=", ",", " ", "&", "1", "x", r"\frac", r"\sqrt", r"\text"]
)


@given(st.lists(st.lists(_PIECES, min_size=1, max_size=12).map("".join), min_size=25, max_size=25))
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_nor_are_mixtures(graders, texts):
    check(texts, graders.map(audited.judge_text, [(text,) for text in texts]))


@given(st.text(max_size=300))
@settings(max_examples=300, deadline=None)
def test_reading_an_answer_never_raises_and_reads_what_is_boxed(text):
    extract_answer(text)
    plain = "".join(c for c in text if c.isascii() and c.isalnum())
    if plain:
        assert extract_answer(text + rf"</think> so \boxed{{{plain}}}") == plain
