"""What a transfer's tags ask for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalpool.values import MAX_TAG_VALUE_BYTES, InvalidValue, Tag, parse_tag
from evalpool_benchmark.allocation import RULES
from evalpool_benchmark.funding import (
    DEFAULT_GRACE,
    CreatePool,
    Credit,
    Refusal,
    TopUp,
    parse_moment,
    parse_score,
    parse_span,
    read_request,
)

PAID = datetime(2026, 3, 1, 12, tzinfo=UTC)
POOL = "A" * 43


def credit(*tags: tuple[str, str], **named: str) -> Credit:
    pairs = [*tags, *((f"X-{name.replace('_', '-')}", value) for name, value in named.items())]
    return Credit(
        transfer="B" * 43,
        payer="C" * 43,
        quantity=100,
        tags=tuple(Tag(name, value) for name, value in pairs),
        time=PAID,
        sequence=7,
    )


def create(**named: str) -> CreatePool:
    request = read_request(credit(Dataset="siqa", Allocation="Equal", **named))
    assert isinstance(request, CreatePool), request
    return request


def refusal(*tags: tuple[str, str], **named: str) -> Refusal:
    request = read_request(credit(*tags, **named))
    assert isinstance(request, Refusal), request
    return request


def test_dataset_and_allocation_are_enough() -> None:
    assert create() == CreatePool(
        dataset="siqa",
        allocation="Equal",
        title="",
        start_time=PAID,
        end_time=PAID + timedelta(days=30),
        grace=DEFAULT_GRACE,
        minimum_score="",
        tie_rule="earliest",
        max_entries_per_day=0,
        evaluator="",
    )


@pytest.mark.parametrize(
    "tags",
    [
        {"Starts_At": "2031-03-07T00:00:00Z"},
        {"Starts_At": "2031-03-01T00:00:00Z"},
        {"Starts_At": "2031-03-07T00:00:00Z", "Duration": "P1D"},
        {"Starts_At": "2031-03-07T00:00:00Z", "Ends_At": "2031-03-08T00:00:00Z"},
    ],
)
def test_a_start_that_is_too_far_off_is_refused_by_its_own_name(tags: dict[str, str]) -> None:
    refused = refusal(Dataset="siqa", Allocation="Equal", **tags)
    assert refused.reason.startswith("X-Starts-At: ")
    assert "five years" in refused.reason


def test_every_tag_is_read() -> None:
    assert create(
        Title="Everyday situations",
        Starts_At="2026-03-02T00:00:00Z",
        Ends_At="2026-04-02T00:00:00.5Z",
        Minimum_Score="1/3",
        Tie_Rule="split",
        Max_Entries_Per_Day="3",
        Grace="PT6H",
        Evaluator="letter",
    ) == CreatePool(
        dataset="siqa",
        allocation="Equal",
        title="Everyday situations",
        start_time=datetime(2026, 3, 2, tzinfo=UTC),
        end_time=datetime(2026, 4, 2, 0, 0, 0, 500_000, tzinfo=UTC),
        grace=timedelta(hours=6),
        minimum_score="1/3",
        tie_rule="split",
        max_entries_per_day=3,
        evaluator="letter",
    )


def test_tag_names_are_compared_without_regard_to_case() -> None:
    request = read_request(credit(("x-dataset", "siqa"), ("X-ALLOCATION", "Equal")))
    assert isinstance(request, CreatePool)


def test_tags_that_are_not_ours_are_left_alone() -> None:
    request = read_request(credit(("Note", "for the spring"), Dataset="siqa", Allocation="Equal"))
    assert isinstance(request, CreatePool)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_can_be_named(rule: str) -> None:
    request = read_request(credit(Dataset="siqa", Allocation=rule))
    assert isinstance(request, CreatePool)
    assert request.allocation == rule


def test_a_duration_counts_from_the_start() -> None:
    request = create(Starts_At="2026-03-05T00:00:00Z", Duration="P1M")
    assert request.end_time == datetime(2026, 4, 5, tzinfo=UTC)


def test_a_start_that_has_passed_means_the_time_of_the_transfer() -> None:
    request = create(Starts_At="2026-02-01T00:00:00Z", Duration="PT1H")
    assert request.start_time == PAID
    assert request.end_time == PAID + timedelta(hours=1)


def test_a_top_up_names_its_pool_alone() -> None:
    assert read_request(credit(Pool=POOL)) == TopUp(POOL)
    assert refusal(Pool=POOL, Dataset="siqa").reason_code == "INVALID_TAG"


@pytest.mark.parametrize(
    ("tags", "named", "code"),
    [
        ({}, "X-Dataset", "INVALID_TAG"),
        ({"Dataset": "siqa"}, "X-Allocation", "INVALID_TAG"),
        ({"Allocation": "Equal"}, "X-Dataset", "INVALID_TAG"),
        ({"Dataset": "No such id!", "Allocation": "Equal"}, "X-Dataset", "INVALID_TAG"),
        ({"Dataset": "siqa", "Allocation": "Lottery"}, "X-Allocation", "UNKNOWN_ALLOCATION"),
        ({"Dataset": "siqa", "Allocation": "equal"}, "X-Allocation", "UNKNOWN_ALLOCATION"),
        ({"Pool": "short"}, "X-Pool", "INVALID_TAG"),
        ({"Dataset": "siqa", "Allocation": "Equal", "Datset": "x"}, "X-Datset", "INVALID_TAG"),
    ],
)
def test_a_transfer_that_asks_for_nothing_usable_is_refused_by_the_tag(
    tags: dict[str, str], named: str, code: str
) -> None:
    refused = refusal(**tags)
    assert refused.reason.startswith(f"{named}: ")
    assert refused.reason_code == code


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Ends_At", "2026-03-01T12:00:00Z"),  # the very moment of the transfer
        ("Ends_At", "2020-01-01T00:00:00Z"),
        ("Ends_At", "2026-03-01"),
        ("Ends_At", "2026-03-02T00:00:00+02:00"),
        ("Ends_At", "2026-02-30T00:00:00Z"),
        ("Ends_At", "9999-01-01T00:00:00Z"),
        ("Ends_At", "٢٠٢٦-03-02T00:00:00Z"),
        ("Duration", "P0D"),
        ("Duration", "-P1D"),
        ("Duration", "P"),
        ("Duration", "PT"),
        ("Duration", "30 days"),
        ("Duration", "P999999Y"),
        ("Duration", "P6Y"),
        ("Grace", "P8D"),
        ("Grace", "P999999Y"),
        ("Grace", "soon"),
        ("Minimum_Score", "50%"),
        ("Minimum_Score", "1"),
        ("Minimum_Score", "2/1"),
        ("Minimum_Score", "1/0"),
        ("Minimum_Score", "-0.1"),
        ("Minimum_Score", "1e-3"),
        ("Minimum_Score", ".5"),
        ("Minimum_Score", ""),
        ("Tie_Rule", "latest"),
        ("Tie_Rule", "Split"),
        ("Max_Entries_Per_Day", "0"),
        ("Max_Entries_Per_Day", "-1"),
        ("Max_Entries_Per_Day", "1.5"),
        ("Max_Entries_Per_Day", "9" * 40),
        ("Max_Entries_Per_Day", "²"),
        ("Evaluator", "oracle"),
        ("Evaluator", ""),
        ("Title", "t" * 201),
        ("Starts_At", "tomorrow"),
        ("Starts_At", "2026-05-01T00:00:00Z\n"),
    ],
)
def test_a_value_that_breaks_its_rule_is_refused_by_its_tag(name: str, value: str) -> None:
    refused = refusal(Dataset="siqa", Allocation="Equal", **{name: value})
    assert f"X-{name.replace('_', '-')}" in refused.reason.partition(":")[0]
    assert refused.reason_code == "INVALID_TAG"


def test_both_forms_of_the_end_are_refused() -> None:
    refused = refusal(
        Dataset="siqa", Allocation="Equal", Ends_At="2026-05-01T00:00:00Z", Duration="P30D"
    )
    assert refused.reason.startswith("X-Ends-At: X-Duration")


def test_an_end_before_the_start_is_refused() -> None:
    refused = refusal(
        Dataset="siqa",
        Allocation="Equal",
        Starts_At="2026-05-02T00:00:00Z",
        Ends_At="2026-05-01T00:00:00Z",
    )
    assert refused.reason_code == "INVALID_TAG"


def test_a_tag_that_comes_twice_is_refused() -> None:
    refused = refusal(("X-Title", "a"), ("x-title", "b"), Dataset="siqa", Allocation="Equal")
    assert "twice" in refused.reason


VALUES = st.one_of(
    st.text(max_size=40),
    st.from_regex(r"P[0-9YMWDTHS.,]{0,12}", fullmatch=True),
    st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}(Z|\+00:00)", fullmatch=True),
    st.from_regex(r"[0-9]{1,20}[./]?[0-9]{0,20}", fullmatch=True),
)
NAMES = st.sampled_from(
    [
        "Title",
        "Starts-At",
        "Ends-At",
        "Duration",
        "Minimum-Score",
        "Tie-Rule",
        "Grace",
        "Max-Entries-Per-Day",
        "Evaluator",
        "Pool",
        "Other",
    ]
)


@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_any_tags_give_a_request_or_a_reason_that_fits_into_a_tag(tags: dict[str, str]) -> None:
    given_tags = [("X-Dataset", "siqa"), ("X-Allocation", "Equal")]
    given_tags += [(f"X-{name}", value) for name, value in tags.items()]
    request = read_request(credit(*given_tags))
    if isinstance(request, Refusal):
        assert request.reason
        assert len(request.reason.encode()) <= MAX_TAG_VALUE_BYTES
        parse_tag("X-Reason", request.reason)
    elif isinstance(request, CreatePool):
        assert PAID <= request.start_time < request.end_time
        assert timedelta() <= request.grace <= timedelta(days=7)
        if request.minimum_score:
            assert 0 <= parse_score(request.minimum_score) < 1


@given(st.fractions(0, 1).filter(lambda score: score < 1 and score.denominator < 10**18))
def test_a_fraction_is_read_exactly(score: Fraction) -> None:
    assert parse_score(f"{score.numerator}/{score.denominator}") == score


def test_a_decimal_is_read_exactly() -> None:
    assert parse_score("0.1") == Fraction(1, 10)


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)))
def test_a_moment_is_read_as_it_was_written(moment: datetime) -> None:
    assert parse_moment(moment.isoformat() + "Z") == moment.replace(tzinfo=UTC)


def test_months_have_the_length_that_they_have_from_the_start() -> None:
    assert parse_span("P1M", datetime(2026, 2, 1, tzinfo=UTC)) == timedelta(days=28)
    assert parse_span("P1M", datetime(2026, 3, 1, tzinfo=UTC)) == timedelta(days=31)
    assert parse_span("P1Y2M10DT2H30M", PAID) > timedelta(days=430)


@pytest.mark.parametrize("text", ["", "P1", "1D", "P1.5D", "PT1.5H", "p1d", "P1D "])
def test_a_text_that_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_span(text, PAID)
