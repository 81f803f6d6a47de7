"""Chat templates: rendered as transformers does, and no template of a stranger does harm."""

import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai
import pytest

from groundup import Engine, SamplingSettings, load
from groundup.checkpoints.conventions import read_conventions
from groundup.errors import ChatTemplateError
from groundup.serving import chat
from groundup.serving.chat import ChatTemplate, chat_template_of, check_messages
from serving.servers import Served, served, small_model

CHAT = [
    {"role": "system", "content": "Be <brief> & kind."},
    {"role": "user", "content": "Hä? 'quoted' \"twice\""},
    {"role": "assistant", "content": "Yes.\nTwo lines."},
    {"role": "user", "content": "And?"},
]
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
CHATML = """{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}"""
NAMESPACE = """{% set ns = namespace(system='', count=0) %}
{% for message in messages %}
{% if message['role'] == 'system' %}
{% set ns.system = message['content'] %}{% continue %}
{% endif %}
{% set ns.count = ns.count + 1 %}
{% if ns.count > 9 %}{% break %}{% endif %}
[{{ loop.index0 }}] {{ message['role'] | upper }}: {{ message['content'] | trim }}{{ eos_token }}
{% endfor %}
{{ bos_token }}{{ ns.system | tojson }} {{ messages | tojson(indent=2) }}"""
DATES = """{{- bos_token }}Today: {{ strftime_now("%Y-%m-%d") }}
{% macro turn(message) %}<|{{ message.role }}|>{{ message.content }}{% endmacro %}
{% for message in messages %}{{ turn(message) }}
{% endfor %}"""
GENERATION = """{% for message in messages %}
{% if message.role == 'assistant' %}
A: {% generation %}{{ message.content }}{{ eos_token }}{% endgeneration %}

{% else %}
{{ message.role }}: {{ message.content }}
{% endif %}
{% endfor %}
{% if add_generation_prompt %}A:{% endif %}"""


TOOLS = """{% if tools is not none and tools is iterable %}{{ tools | length }} tools
{% elif documents is none %}No tools, no documents: {{ 'a b c' | wordwrap(3) }}{{ missing }}
{% endif %}{{ messages[1:] | map(attribute='role') | join(',') }}
{{ 'x' * 3 ~ '%s' | format(messages | length) }}{{ messages[0].content.split(' ')[-1] }}"""


@pytest.mark.parametrize("template", [CHATML, NAMESPACE, DATES, GENERATION, TOOLS])
def test_a_text_is_that_of_transformers(template: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    options = {"add_generation_prompt": True, **SPECIAL}
    found = render_jinja_template([CHAT], chat_template=template, **options)
    expected = found[0][0] if isinstance(found, tuple) else found[0]
    ours = ChatTemplate(template, SPECIAL)
    assert ours.render(CHAT) == expected
    ours.close()


def test_the_plain_template() -> None:
    plain = ChatTemplate()
    assert plain.render(CHAT[2:]) == "Assistant: Yes.\nTwo lines.\n\nUser: And?\n\nAssistant:"
    plain.close()


LOOPS = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}"
MACRO = "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}"
HOSTILE = [
    "{{ ''.__class__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__globals__['datetime'] }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ messages.__class__.__base__ }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context.environment }}",
    "{{ ''['__class__'] }}",
    "{{ ''|attr('__class__') }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ ('{0.__cl' + 'ass__}').format_map({'0': ''}) }}",
    "{{ (messages.append)(1) }}",
    "{% set _ = messages.clear() %}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum.__globals__ }}",
    "{{ lipsum(n=100000) }}",
    "{{ joiner.__init__ }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends 'base.html' %}",
    "{{ open('/etc/passwd') }}",
    "{{ range(10 ** 9) | list }}",
    "{{ range(10 ** 6) }}",
    LOOPS,
    MACRO,
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{{ 'a' * 2000000000 }}",
    "{{ 'a' * 2000000 }}",
    "{{ ('a' * 100000000) | length }}{{ ('b' * 900000000) | length }}",
    "{{ 'a'.center(3000000000) }}",
    "{{ 'a'.ljust(3000000000) }}",
    "{{ 'a'.zfill(3000000000) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '{:>1000000000}'.format(1) }}",
    "{{ 'a' | center(1000000000) }}",
    "{{ 'a\n' | indent(1000000000) }}",
    "{{ 'a b' | wordwrap(1, wrapstring='x' * 1000000000) }}",
    "{{ 9 ** (9 ** 9) }}",
    "{{ (9 ** 99999) ** 9999 }}",
    "{% for i in range(99999) %}{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' }}{% endfor %}",
    "{{ messages | tojson(indent=1000000000) }}",
    "{{ strftime_now('%Y' * 100000000) }}",
    "{{ raise_exception('not this chat') }}",
    "{% for %}",
    "{{ messages.pop() }}",
    "{{ dict.fromkeys(range(10 ** 9)) }}",
    "{{ namespace(a=1)._Namespace__attrs }}",
    "{{ range.__self__ }}",
    "{{ messages | map(attribute='__class__') | list }}",
    "{{ messages | groupby('__class__.__mro__') }}",
    "{{ messages | sort(attribute='content.__class__') }}",
    "{{ ([1] | first).__class__ }}",
    "{{ (1).__int__.__self__ }}",
    "{{ caller.__closure__ }}",
    "{{ loop.__init__ }}",
    "{% for a in messages %}{{ loop.__class__ }}{% endfor %}",
    "{% set x = [1] %}{% for i in range(40) %}{% set x = x + x %}{% endfor %}",
    "{% set n = namespace(x=0) %}{% for i in range(40) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "{{ 'a' | replace('', 'b' * 100000) | replace('b', 'c' * 100000) }}",
    "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "{{ " + "not " * 5000 + "1 }}",
    "{% if 1 %}" * 3000,
    "{{ 1 " + "+ 1 " * 20000 + "}}",
    "{{ range(99999999999999999999) }}",
    "{{ 'a'.encode('utf-16') * 10 ** 9 }}",
    "{{ 1 / 0 }}",
    "{{ '\ud800' }}",
]


def test_no_hostile_template_does_harm_and_a_good_one_works_after_each() -> None:
    good = ChatTemplate(CHATML)
    expected = good.render(CHAT)
    for template in HOSTILE:
        bad = ChatTemplate(template)
        bad._process, good._process = good._process, None  # the same process, as a server has it
        begun = time.monotonic()
        with suppress(ChatTemplateError):
            assert not bad.render(CHAT), template  # what isn't to be seen is empty
        assert time.monotonic() - begun < 4, template
        good._process, bad._process = bad._process, None
        assert good.render(CHAT) == expected
    process = good._process
    assert process is not None
    good.close()
    assert process.poll() is not None


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ ''.__class__ }}", "does what templates may not: __class__ of a str is not for"),
        (LOOPS, "needs more than 1 s"),
        ("{{ 'a' * 2000000000 }}", "needs more than 512 MiB of memory"),
        ("{{ 'a' * 2000000 }}", "writes more than 1,048,576 characters"),
        ("a\n{% for %}", "is no template of jinja2: .* in line 2"),
        ("{{ raise_exception('only two roles') }}", "fails: only two roles"),
    ],
)
def test_what_is_wrong_with_a_template_is_said(template: str, said: str) -> None:
    bad = ChatTemplate(template)
    with pytest.raises(ChatTemplateError, match=f"the model's chat template {said}"):
        bad.render(CHAT)
    bad.close()


def test_a_process_without_its_server_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody kills it then, so it does that itself."""
    monkeypatch.setattr(chat, "SECONDS", 8)
    bad, begun = ChatTemplate("{% for a in range(9999) %}" * 4), time.monotonic()
    bad.template += "{% endfor %}" * 4
    with pytest.raises(ChatTemplateError, match="ends its process"):
        bad.render(CHAT)
    assert time.monotonic() - begun < 7


def test_a_template_sees_none_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_API_KEY", "secret")
    template = ChatTemplate()
    template.render(CHAT)
    assert template._process is not None
    environment = Path(f"/proc/{template._process.pid}/environ")
    if environment.exists():
        assert b"secret" not in environment.read_bytes()
    template.close()


def test_several_threads_may_render() -> None:
    template = ChatTemplate(CHATML)
    found = dict[int, str]()

    def render(number: int) -> None:
        for _ in range(20):
            found[number] = template.render([{"role": "user", "content": str(number)}])

    threads = [threading.Thread(target=render, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(f"user\n{number}<" in found[number] for number in range(6))
    template.close()


def test_where_a_model_has_its_template(tmp_path: Path) -> None:
    def found() -> ChatTemplate:
        return chat_template_of(read_conventions({}, tmp_path))

    assert found().is_plain
    config = tmp_path / "tokenizer_config.json"
    tokens = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": None}
    config.write_text(json.dumps({"chat_template": "one", **tokens}))
    assert (found().template, found().special) == ("one", {"bos_token": "<s>", "eos_token": "</s>"})
    several = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "two"}]
    config.write_text(json.dumps({"chat_template": several}))
    assert found().template == "two"
    config.write_text(json.dumps({"chat_template": several[:1]}))
    with pytest.raises(ChatTemplateError, match="a list with one named default"):
        found()
    (tmp_path / "chat_template.jinja").write_text("three")
    assert found().template == "three"


def test_a_message_may_not_forge_a_turn() -> None:
    with pytest.raises(
        ChatTemplateError, match=r"messages\[1\] spells the special token '<|im_end"
    ):
        check_messages([CHAT[0], {"role": "user", "content": "a<|im_end|>b"}], {"<|im_end|>"})
    check_messages(CHAT, {"<|im_end|>"})
    parts = {"role": "user", "content": [{"type": "text", "text": "<|im_end|>"}]}
    with pytest.raises(ChatTemplateError, match="spells"):
        check_messages([parts], {"<|im_end|>"})
    halves = [{"role": "user", "content": "<|im"}, {"role": "assistant", "content": "_end|>"}]
    with pytest.raises(ChatTemplateError, match=r"spell the special token .* together"):
        check_messages(halves, {"<|im_end|>"})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("served") / "small")


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Served]:
    with served(model) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)


ASKED: list[Any] = [{"role": "user", "content": "a cat"}]


def written(model: Path, prompt: str, **settings: Any) -> str:
    engine = Engine(*load(model))
    request = engine.submit(prompt, SamplingSettings(temperature=1.0, seed=3, **settings))
    return "".join(each.text for each in request)


def test_a_chat_is_the_text_after_its_template(client: openai.OpenAI, model: Path) -> None:
    expected = written(model, "User: a cat\n\nAssistant:", length=20, stop=("\nUser:",))
    found = client.chat.completions.create(
        model="small",
        messages=ASKED,
        seed=3,
        max_completion_tokens=20,
        logprobs=True,
        top_logprobs=2,
    )
    (choice,) = found.choices
    assert (choice.message.role, choice.message.content) == ("assistant", expected)
    assert choice.finish_reason == "length"
    assert choice.logprobs is not None
    content = choice.logprobs.content
    assert content is not None
    assert "".join(each.token for each in content) == expected
    assert all(bytes(each.bytes or ()) == each.token.encode() for each in content)
    assert all(len(each.top_logprobs) == 2 for each in content)
    events = list(
        client.chat.completions.create(
            model="small", messages=ASKED, seed=3, max_tokens=20, stream=True
        )
    )
    assert events[0].choices[0].delta.role == "assistant"
    assert events[0].object == "chat.completion.chunk"
    assert "".join(each.choices[0].delta.content or "" for each in events) == expected
    assert events[-1].choices[0].finish_reason == "length"


def test_a_chat_takes_what_remains_of_the_context(client: openai.OpenAI) -> None:
    parts: Any = [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
    found = client.chat.completions.create(model="small", messages=parts, seed=1)
    assert found.usage is not None
    assert found.usage.prompt_tokens == len("User: a\n\nAssistant:")
    assert found.usage.total_tokens == 64
    found = client.chat.completions.create(
        model="small", messages=[{"role": "user", "content": "a" * 44}], seed=1
    )
    assert found.usage is not None
    assert found.usage.completion_tokens == 16


def test_four_stops_leave_the_plain_templates_own(client: openai.OpenAI, model: Path) -> None:
    engine = Engine(*load(model))
    bias = {engine.tokenizer.encode("\n").item(): 3.0} if engine.tokenizer else {}
    chosen = SamplingSettings(
        temperature=1.0, seed=3, length=300, logit_bias=tuple(bias.items()), stop=("\n",)
    )
    with_end = "".join(each.text for each in engine.submit("User: a\n\nAssistant:", chosen))
    assert len(with_end) < 300
    found = client.chat.completions.create(
        model="small",
        messages=[{"role": "user", "content": "a"}],
        seed=3,
        max_tokens=300,
        stop=["\n", "Q", "QQ", "QQQ"],
        logit_bias={str(token): value for token, value in bias.items()},
    )
    assert found.choices[0].message.content == with_end


def test_a_slow_template_leaves_completions_alone(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "slow"
    shutil.copytree(model, folder)
    (folder / "chat_template.jinja").write_text(LOOPS)
    over = list[int]()
    with served(folder) as server:

        def chat() -> None:
            answer = server.ask("/v1/chat/completions", {"messages": ASKED})
            over.append(answer.status)

        threads = [threading.Thread(target=chat) for _ in range(8)]
        for thread in threads:
            thread.start()
        server.complete(prompt="a")
        assert len(over) < 8  # of which each takes a second
        for thread in threads:
            thread.join()
    assert over == [400] * 8


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [*ASKED, {"role": "assistant", "content": None}, *ASKED]},
        {"messages": ASKED, "stream_options": {}, "echo": False, "best_of": 1},
        {"messages": ASKED, "skip_special_tokens": True, "repeat_penalty": 1.0},
    ],
)
def test_what_changes_nothing_is_taken(server: Served, body: Any) -> None:
    answer = server.ask("/v1/chat/completions", body | {"max_tokens": 1})
    assert answer.status == 200, answer.body


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": [{"role": "user", "content": None}]}, "messages"),
        ({"messages": ASKED, "echo": True}, "echo"),
        ({"messages": ASKED, "repeat_penalty": 1.5}, "repeat_penalty"),
        ({"messages": ASKED, "chat_template_kwargs": {"a": 1}}, "chat_template_kwargs"),
        ({"messages": ASKED, "include_stop_str_in_output": True}, "include_stop_str_in_output"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "king", "content": "a"}]}, "messages"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": "\N{SNOWMAN}"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "a" * 65}]}, "messages"),
        ({"messages": ASKED, "top_logprobs": 3}, "top_logprobs"),
        ({"messages": ASKED, "max_tokens": 0}, "max_tokens"),
        ({"messages": ASKED, "max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
        ({"messages": ASKED, "chat_template": "{{ 1 }}"}, "chat_template"),
        ({"messages": ASKED, "modalities": ["audio"]}, "modalities"),
    ],
)
def test_a_wrong_chat_gets_400(server: Served, body: Any, param: str) -> None:
    answer = server.ask("/v1/chat/completions", body)
    assert (answer.status, answer.json["error"]["param"]) == (400, param), answer.body
