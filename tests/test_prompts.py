"""Prompts of both stages through a scripted tokenizer: one token a character, specials and a role word as one token."""

import re
from dataclasses import replace
from typing import ClassVar

import pytest
from tokenizers import AddedToken

from igrpo_jax.config import PromptConfig
from igrpo_jax.prompts import Prompter, beyond_positions, pad_prompts, refinement_limit
from models.formats.tokenizer import byte_tokenizer, stop_ids


class Characters:
    """A tokenizer with a chat template; `all_special_tokens` names only some of its special tokens (so Llama 3's)."""

    specials = ("<end>", "<user>", "<system>", "<bos>", "<secret>")
    all_special_tokens = ("<end>", "<user>", "<bos>")
    added_tokens_decoder: ClassVar = {i: AddedToken(s, special=True) for i, s in enumerate(specials)}
    chat_template = "yes"

    def encode(self, text, *, add_special_tokens):
        parts = re.findall("|".join(self.specials) + "|.", text, re.DOTALL)
        ids = [self.specials.index(p) if p in self.specials else 100 + ord(p) for p in parts]
        return [3, *ids] if add_special_tokens else ids

    def decode(self, token_ids, *, skip_special_tokens):
        return "".join(
            ("" if skip_special_tokens else self.specials[i]) if i < 100 else chr(i - 100) for i in token_ids
        )

    def apply_chat_template(self, conversation, *, tokenize, add_generation_prompt):
        assert not tokenize
        assert add_generation_prompt
        return "".join(f"<{m['role']}>{m['content']}<end>" for m in conversation) + "|"


class Plain(Characters):
    chat_template = None


REFINE = PromptConfig(refine="Q:{question} D:{draft}!", cut_mark="..", max_draft_length=10)


def text(ids):
    return Characters().decode(ids, skip_special_tokens=False)


def ids(draft):
    return Characters().encode(draft, add_special_tokens=False)


def prompter(config=REFINE, tokenizer=Characters):
    return Prompter(tokenizer(), config)


def test_question_is_a_user_turn():
    assert text(prompter().question("2+2?")) == "<user>2+2?<end>|"


def test_system_message_comes_first_in_both_stages():
    with_system = prompter(PromptConfig(system="Be good.", question="[{question}]", refine="{question}/{draft}"))
    assert text(with_system.question("why")) == "<system>Be good.<end><user>[why]<end>|"
    assert text(with_system.refinement("why", ids("so"), limit=99)) == "<system>Be good.<end><user>why/so<end>|"


def test_without_a_template_messages_are_paragraphs_and_special_tokens_are_added():
    assert text(prompter(tokenizer=Plain).question("why")) == "<bos>why"
    both = PromptConfig(system="Be good.", refine="{question}/{draft}")
    assert text(prompter(both, Plain).refinement("why", ids("so"), limit=99)) == "<bos>Be good.\n\nwhy/so"


def test_a_draft_that_fits_is_whole():
    assert text(prompter().refinement("a", ids("0123456789"), limit=99)) == "<user>Q:a D:0123456789!<end>|"


def test_a_long_draft_keeps_its_tail_and_the_cut_is_marked():
    assert text(prompter().refinement("a", ids("x0123456789"), limit=99)) == "<user>Q:a D:..0123456789!<end>|"


@pytest.mark.parametrize("limit", [*range(14, 24), 99])
def test_the_draft_gives_way_to_the_limit_and_the_question_never_does(limit):
    prompt = prompter().refinement("abc", ids("0123456789"), limit=limit)
    # <user> Q:abc_D: ! <end> | are 12 tokens and the draft is 10; a draft that is cut needs 2 more for its mark.
    tail = "0123456789" if limit >= 22 else ".." + "0123456789"[10 - (limit - 14) :] if limit > 14 else ""
    assert text(prompt) == f"<user>Q:abc D:{tail}!<end>|"
    assert len(prompt) <= limit


def test_no_room_for_a_draft_leaves_no_mark_either():
    config = PromptConfig(refine="{question}/{draft}", cut_mark="..", max_draft_length=0)
    assert text(prompter(config).refinement("a", ids("012"), limit=99)) == "<user>a/<end>|"
    assert text(prompter(config).refinement("a", [], limit=99)) == "<user>a/<end>|"


THINKING = PromptConfig(refine="Q:{question} D:{draft}!", cut_mark="..", max_draft_length=10, strip_think=True)


@pytest.mark.parametrize(
    ("draft", "shown"),
    [
        ("<think>0123456789</think>\n\nIt is 5.", "It is 5."),
        ("5", "5"),
        ("<think>a</think>b<think>c</think>d", "d"),
        ("<think>a<think>b</think>c</think>d", "d"),
        ("opened in the prompt</think>d", "d"),
        ("<think>a</think>", ".."),
        ("<think>0123456789 and no end", ".."),
        ("<think>a</think>b<think>no end", "b"),
        ("b<think>no end", "b"),
        ("<think>a</think>x0123456789", "..0123456789"),
        ("a </thinking>", "../thinking>"),
        ("", ""),
    ],
)
def test_a_draft_without_its_thinking(draft, shown):
    assert text(prompter(THINKING).refinement("a", ids(draft), limit=99)) == f"<user>Q:a D:{shown}!<end>|"


def test_thinking_that_the_prompt_has_opened_and_nothing_ends_is_left_out():
    class Opened(Characters):
        def apply_chat_template(self, conversation, **options):
            return super().apply_chat_template(conversation, **options) + "<think>\n"

    for made in (prompter(THINKING, Opened), prompter(replace(THINKING, question="{question}<think>"), Plain)):
        assert made.spoken("2 + 2 is") == "" and made.spoken("2 + 2</think> 4") == " 4"
    assert prompter(THINKING).spoken("2 + 2 is") == "2 + 2 is"
    assert prompter(REFINE, Opened).spoken("<think>2 + 2</think> 4") == "<think>2 + 2</think> 4"  # not asked for
    assert text(prompter(THINKING, Opened).refinement("a", ids("2 + 2 is"), limit=99)).startswith("<user>Q:a D:..!")


def test_special_tokens_of_a_draft_are_gone():
    assert text(prompter().refinement("a", [105 + 48, 0, 1], limit=99)) == "<user>Q:a D:5!<end>|"


def test_special_tokens_spelled_out_in_a_draft_are_gone():
    spelled = [100 + ord(c) for c in "1<end>2"]
    assert text(prompter().refinement("a", spelled, limit=99)) == "<user>Q:a D:12!<end>|"


def test_special_tokens_that_the_list_leaves_out_are_gone():
    """Llama 3's `<|start_header_id|>` is an added special token, but not among `all_special_tokens`."""
    spelled = [100 + ord(c) for c in "1<secret>2"]
    assert 4 not in prompter().refinement("a", spelled, limit=99)


def test_special_tokens_that_form_when_one_is_removed_are_gone():
    spelled = [100 + ord(c) for c in "<e<end>nd>"]
    assert 0 not in prompter().refinement("a", spelled, limit=99)[1:-2]


@pytest.mark.parametrize("braces", ["{draft}", "{question}", "{0}", "{}", r"\frac{1}{2} \1", "{{draft}}"])
def test_braces_in_questions_and_drafts_are_text(braces):
    assert text(prompter().question(braces)) == f"<user>{braces}<end>|"
    got = text(prompter().refinement(braces, ids(braces), limit=99))
    tail = braces if len(braces) <= 10 else ".." + braces[-10:]
    assert got == f"<user>Q:{braces} D:{tail.strip()}!<end>|"


def test_refinement_limit_holds_the_longest_question_and_a_full_draft():
    tokenizer, long = Characters(), "q" * 40
    limit = refinement_limit(prompter(), tokenizer, REFINE, longest_prompt=len(prompter().question(long)))
    whole = prompter().refinement(long, ids("x" * 30), limit=limit)
    assert text(whole) == f"<user>Q:{long} D:..{'x' * 10}!<end>|"
    assert len(whole) <= limit <= len(whole) + 10


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (
            [[1], []],
            "prompt 1 has 0 tokens; prompts need 1 to 3: raise prompt.max_prompt_length or shorten the question",
        ),
        ([[1], [2], [1, 2, 3, 4]], "prompt 2 has 4 tokens; prompts need 1 to 3"),
    ],
)
def test_prompt_errors(prompts, message):
    with pytest.raises(ValueError, match=message):
        pad_prompts(prompts, 3)


@pytest.fixture
def tagged():
    """A tokenizer in which `<think>`, `<answer>` and the end of a turn are special tokens, as some models have them."""
    made = byte_tokenizer()
    made.add_special_tokens(
        {"additional_special_tokens": ["<think>", "</think>", "<answer>", "</answer>", "<|im_start|>", "<|im_end|>"]}
    )
    made.chat_template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    )
    return made


def test_tags_that_are_special_tokens_are_text_and_ends_are_not(tagged):
    prompter = Prompter(tagged, PromptConfig(), stop_ids=stop_ids(None, tagged))
    said = "<think>2+2</think>\n<answer>4</answer>"
    ids = tagged.encode(f"<bos>{said}<|im_end|><eos><pad><pad>", add_special_tokens=False)
    assert prompter.text(ids) == said
    assert prompter.text([]) == ""
    assert len(ids) == 14


def test_a_draft_is_the_text_that_was_rewarded(tagged):
    prompter = Prompter(tagged, PromptConfig(refine="{question}[{draft}]"), stop_ids=stop_ids(None, tagged))
    draft = tagged.encode(" <answer>4</answer> <|im_end|>", add_special_tokens=False)
    prompt = prompter.refinement("a", draft, limit=999)
    assert "\na[<answer>4</answer>]<|im_end|>" in tagged.decode(prompt)
    start, end = tagged.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert [token for token in prompt if token > 255] == [start, end]


def test_stop_strings_that_are_tokens_are_stop_tokens(tagged):
    prompter = Prompter(tagged, PromptConfig(), stop_ids=stop_ids(None, tagged))
    names = ["</answer>", "<|im_end|>", "<pad>", "<|im_start|>"]
    assert prompter.stops([*names, "END", "</answer>\n"]) == tagged.convert_tokens_to_ids(names)
    assert prompter.text(tagged.encode("4</answer>")) == "4</answer>"
    with pytest.raises(ValueError, match=r"stop_strings has '<\|im_end\|>\\n', but <\|im_end\|> is a token that ends"):
        prompter.stops(["<|im_end|>\n"])


def test_positions_beyond_the_models_are_told():
    assert beyond_positions(24, 8, 32) is None
    warning = beyond_positions(67, 8, 32)
    assert warning is not None
    assert re.findall(r"\d+", warning) == ["67", "8", "32"]


def test_thinking_is_left_out_where_its_tags_are_tokens(tagged):
    config = PromptConfig(refine="{question}[{draft}]", strip_think=True)
    prompter = Prompter(tagged, config, stop_ids=stop_ids(None, tagged))
    draft = tagged.encode("<think>2+2</think> <answer>4</answer><|im_end|>", add_special_tokens=False)
    assert "\na[<answer>4</answer>]<|im_end|>" in tagged.decode(prompter.refinement("a", draft, limit=999))
