"""What is asked of the herd, and what its answers mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalpool_dataset.inquiry import Asked, ask, read_reply, score
from evalpool_dataset.parts import SIQA, Evaluator, Parameters
from evalpool_dataset.question import LETTERS, Question
from evalpool_dataset.scoring import Metric, UnusableScores

SEED = b"a secret of enough bytes"


def asked(choices: int = 3, ordinal: int = 1, metric: Metric = Metric.ACC) -> Asked:
    texts = tuple(f"choice {n}{'!' * n}" for n in range(1, choices + 1))
    question = Question(ordinal, "Sam fell.", "What next?", texts, 1)
    parts = SIQA.parts(Parameters(Evaluator.LOGLIKELIHOOD, metric, "Reply with a letter."))
    return ask(parts, SEED, "v" * 64, question)


@given(choices=st.integers(2, 26), ordinal=st.integers(1, 1000), data=st.data())
def test_sums_come_back_in_the_questions_order(
    choices: int, ordinal: int, data: st.DataObject
) -> None:
    one = asked(choices, ordinal)
    sums = data.draw(st.lists(st.floats(-1e6, 0), min_size=choices, max_size=choices))
    by_text = dict(zip(one.question.choices, sums, strict=True))

    read = score(one, [by_text[text.removeprefix(" ")] for text in one.continuations.texts])

    assert list(read.sums) == sums
    assert read.prediction == sums.index(max(sums)) + 1
    assert read.alike == (len(set(sums)) == 1)


@given(choices=st.integers(2, 26), ordinal=st.integers(1, 1000), data=st.data())
def test_a_letter_means_the_choice_that_it_stood_at(
    choices: int, ordinal: int, data: st.DataObject
) -> None:
    one = asked(choices, ordinal)
    place = data.draw(st.integers(0, choices - 1))
    shown = next(
        line
        for line in one.conversation.user.splitlines()
        if line.startswith(f"{LETTERS[place]}. ")
    )

    prediction = read_reply(one, LETTERS[place])

    assert one.question.choices[prediction - 1] == shown[3:]


@pytest.mark.parametrize("reply", ["N/A", "", "D", "a", "A or B", "I think A"])
def test_a_reply_that_is_no_letter_means_no_choice(reply: str) -> None:
    assert read_reply(asked(), reply) == 0


def test_orders_differ_from_question_to_question_and_stay_for_one() -> None:
    orders = [asked(3, ordinal).order for ordinal in range(1, 200)]
    assert len(set(orders)) == 6
    assert orders == [asked(3, ordinal).order for ordinal in range(1, 200)]


def test_the_metric_of_the_dataset_decides() -> None:
    sums = {"choice 1!": -9.0, "choice 2!!": -9.5, "choice 3!!!": -9.9}
    for metric, prediction in ((Metric.ACC, 1), (Metric.ACC_NORM, 3), (Metric.ACC_BYTES, 3)):
        one = asked(metric=metric)
        read = score(one, [sums[text[1:]] for text in one.continuations.texts])
        assert read.prediction == prediction
        assert read.predictions == {"acc": 1, "acc_norm": 3, "acc_bytes": 3}


@pytest.mark.parametrize(
    "sums", [[], [-1.0, -2.0], [-1.0] * 4, [-1.0, -2.0, float("nan")], [-1.0, -2.0, 5.0]]
)
def test_scores_that_are_missing_or_none_are_unusable(sums: list[float]) -> None:
    with pytest.raises(UnusableScores):
        score(asked(), sums)


def test_choices_that_are_the_same_text_are_not_compared() -> None:
    parts = SIQA.parts(SIQA.defaults)
    one = ask(parts, SEED, "v", Question(1, "", "What?", ("a", "a"), 1))
    read = score(one, [-1.0, -1.0])
    assert (read.alike, read.compared) == (False, False)


def test_the_grammar_has_a_letter_for_every_choice() -> None:
    assert asked(4).grammar == "root ::= [A-D]"
