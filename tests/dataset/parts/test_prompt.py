from __future__ import annotations

from evalpool_dataset.parts.prompt import ChoicePrompt, ContinuedPrompt, EndedPrompts
from evalpool_dataset.question import Question

QUESTION = Question(1, "Zoë didn't wait.", "Why?", ("late", "tired", "shy"), 2)
BARE = Question(1, "", "Two and two?", ("3", "4", "5", "22"), 2)


def test_the_likelihood_prompt_is_the_fields() -> None:
    given = ChoicePrompt().continuations(QUESTION)
    assert given.prompt == "Q: Zoë didn't wait. Why?\nA:"
    assert given.texts == (" late", " tired", " shy")


def test_without_context_the_prompt_has_no_space_for_it() -> None:
    assert ChoicePrompt().continuations(BARE).prompt == "Q: Two and two?\nA:"


def test_the_letter_prompt_lists_the_options_and_asks_for_a_letter() -> None:
    given = ChoicePrompt("Be brief.").conversation(QUESTION)
    assert given.system == "Be brief."
    assert given.user == (
        "Context: Zoë didn't wait.\nQuestion: Why?\nA. late\nB. tired\nC. shy\n"
        "Answer with one letter: A, B or C."
    )
    assert ChoicePrompt().conversation(BARE).user == (
        "Question: Two and two?\nA. 3\nB. 4\nC. 5\nD. 22\nAnswer with one letter: A, B, C or D."
    )


def test_no_prompt_tells_which_answer_is_right() -> None:
    other = Question(1, QUESTION.context, QUESTION.question, QUESTION.choices, 3)
    assert ChoicePrompt().continuations(other) == ChoicePrompt().continuations(QUESTION)
    assert ChoicePrompt().conversation(other) == ChoicePrompt().conversation(QUESTION)


def test_the_system_prompt_is_part_of_the_version() -> None:
    assert ChoicePrompt("a").spec() != ChoicePrompt("b").spec()


def test_a_prompt_that_is_written_out_is_asked_as_it_stands() -> None:
    given = ContinuedPrompt().continuations(Question(1, "", " Q:\nA: ", ("yes", " no"), 1))
    assert given.prompt == " Q:\nA: "
    assert given.texts == ("yes", " no")


def test_choices_that_are_prompts_have_one_ending() -> None:
    given = EndedPrompts().continuations(Question(1, "", " won.", ("So he", "So she"), 1))
    assert given.prompt == ""
    assert given.prompts == ("So he", "So she")
    assert given.texts == (" won.", " won.")
    assert given.shown == "So he\nSo she"
