"""The models that evalpool knows by name."""

from __future__ import annotations

import pytest

from evalpool.models.catalogue import catalogue, find_digest, find_model
from evalpool.models.errors import ModelNotFound
from evalpool.models.sources import HubSource, WheelSource

SMOLLM2 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def test_names_and_known_digests_are_unique() -> None:
    names = [model.name.lower() for model in catalogue()]
    digests = [model.sha256 for model in catalogue() if model.sha256]
    assert len(set(names)) == len(names)
    assert len(set(digests)) == len(digests)


def test_what_comes_from_the_package_index_is_known_to_the_byte() -> None:
    from_index = [model for model in catalogue() if isinstance(model.source, WheelSource)]
    assert len(from_index) == 4
    for model in from_index:
        assert model.sha256 is not None
        assert model.size_bytes is not None


def test_the_seven_models_of_the_hub_have_no_digest_until_they_are_pulled() -> None:
    from_hub = [model for model in catalogue() if isinstance(model.source, HubSource)]
    assert len(from_hub) == 7
    assert {model.sha256 for model in from_hub} == {None}


def test_language_models_say_their_context() -> None:
    for model in catalogue():
        if model.kind == "language":
            assert model.context_length is not None


def test_every_model_says_its_licence() -> None:
    for model in catalogue():
        assert model.license
        assert model.license_url.startswith("https://")
        assert model.description.endswith(".")


def test_a_model_is_found_by_name_without_regard_to_case() -> None:
    assert find_model("smollm2-135m-instruct.q4_1").sha256 == SMOLLM2


def test_a_model_is_found_by_digest() -> None:
    found = find_digest(SMOLLM2)
    assert found is not None
    assert found.name == "SmolLM2-135M-Instruct.Q4_1"
    assert find_digest("0" * 64) is None


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ModelNotFound, match="gemma-3-270m-q4_k_m"):
        find_model("gpt-5")
