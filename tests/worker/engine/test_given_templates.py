"""A template that comes with a request renders it, and harms nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from evalpool_worker.engine.base import ChatMessage, TemplatedChat
from evalpool_worker.engine.errors import InvalidParametersError, NoModelLoadedError
from evalpool_worker.engine.given_templates import GivenTemplates

MESSAGES = (ChatMessage("system", "Be brief."), ChatMessage("user", "Hello"))
ENDLESS = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3


@pytest.fixture
async def templates() -> AsyncIterator[GivenTemplates]:
    made = GivenTemplates("<s>", "</s>")
    yield made
    await made.close()


async def test_it_renders_the_messages(templates: GivenTemplates) -> None:
    template = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[a]"
    text = await templates.render(TemplatedChat(MESSAGES, template))
    assert text == "<s>[system]Be brief.[user]Hello[a]"


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{% for m in messages %}", "template can't render the messages: .*end of template"),
        (
            "{{ raise_exception('No system.') }}",
            r"template can't render the messages: No system\.$",
        ),
        ("{{ ''.__class__.__mro__ }}", "template can't render the messages: .*unsafe"),
        (ENDLESS, r"template takes more than 1 s to render the messages\.$"),
        ("{{ 'x' * 10 ** 9 }}", r"template takes more than 256 MiB of memory to render"),
        ("{# nothing #}", r"template makes no text of the messages\.$"),
    ],
)
async def test_what_is_wrong_with_it_is_told_by_its_name(
    templates: GivenTemplates, template: str, why: str
) -> None:
    with pytest.raises(InvalidParametersError, match=f"^{why}") as refused:
        await templates.render(TemplatedChat(MESSAGES, template))
    assert refused.value.field == "template"


async def test_without_messages_there_is_nothing_to_render(templates: GivenTemplates) -> None:
    with pytest.raises(InvalidParametersError) as refused:
        await templates.render(TemplatedChat((), "Hello"))
    assert refused.value.field == "messages"


async def test_one_that_is_endless_does_not_change_what_others_get(
    templates: GivenTemplates,
) -> None:
    good = [
        TemplatedChat((ChatMessage("user", str(n)),), "{{ messages[0].content }}") for n in "123"
    ]
    endless = asyncio.create_task(templates.render(TemplatedChat(MESSAGES, ENDLESS)))
    texts = await asyncio.gather(*(templates.render(chat) for chat in good))
    assert texts == ["1", "2", "3"]
    assert not endless.done()
    await templates.close()
    with pytest.raises(NoModelLoadedError):
        await endless
