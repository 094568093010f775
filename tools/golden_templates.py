#!/usr/bin/env python3
"""Conversations rendered by transformers: the goldens of crates/model/tests/chat_template.rs.

    pip install transformers==5.23.0 jinja2
    python tools/golden_templates.py crates/model/tests/golden/templates.json

The templates are short ones of our own that use the constructs of the families they are named after, not the
published templates. `strftime_now` is given 2024-12-31 23:59:59.
"""

import datetime
import json
import pathlib
import sys

import jinja2
from transformers.utils import chat_template_utils


class FixedDate(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2024, 12, 31, 23, 59, 59)


chat_template_utils.datetime = FixedDate

TEMPLATES = {
    # A system prompt folded into the first user turn, alternation enforced, BOS at every user turn.
    "llama-2": """{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0]['content'] %}{% else %}{% set rest = messages %}{% set system = false %}{% endif %}{% for message in rest %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate user/assistant') }}{% endif %}{% if loop.index0 == 0 and system != false %}{% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}""",
    # Headers, a trim filter, BOS before the first message only.
    "llama-3": """{% for message in messages %}{% set text = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' %}{% if loop.first %}{% set text = bos_token + text %}{% endif %}{{ text }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}""",
    # Dates, tools as indented JSON, `is defined` and `is none`, block comments, white space control.
    "llama-3.1": """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{#- The date comes from the caller, the clock, or is fixed. #}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}
            {{- raise_exception("one tool call at a time") }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "chatml": """{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}""",
    # The default system prompt in the loop, next to the first message.
    "qwen1.5": """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nBe brief.<|im_end|>\\n' }}{% endif %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] }}{% if (loop.last and add_generation_prompt) or not loop.last %}{{ '<|im_end|>' + '\\n' }}{% endif %}{% endfor %}{% if add_generation_prompt and messages[-1]['role'] != 'assistant' %}{{ '<|im_start|>assistant\\n' }}{% endif %}""",
    # Tools in one line of JSON each, neighbours of a message looked up by index.
    "qwen2.5": """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'Be helpful.' }}
    {%- endif %}
    {{- "\\n\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
    # namespace, a loop from the back, string methods, `is string`, thinking switched by a keyword.
    "qwen3": """{%- set ns = namespace(multi_step=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or reasoning) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
""",
    # Tags on lines of their own: trim_blocks and lstrip_blocks decide every byte here.
    "zephyr": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "mistral": """{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}""",
    # Marks for training masks, loop controls, macros.
    "generation": """{%- macro turn(role, text) -%}
    [{{ role | upper }}] {{ text }}
{%- endmacro -%}
{% for message in messages %}
    {% if message.role == 'system' %}
        {% continue %}
    {% endif %}
    {% if loop.index > 4 %}
        {% break %}
    {% endif %}
    {% if message.role == 'assistant' %}
        {%- generation -%}
        {{ turn(message.role, message.content) }}
        {%- endgeneration -%}
    {% else %}
{{ turn(message.role, message.content) }}
    {% endif %}

{% endfor %}
end""",
    # Values that print differently in Python, JSON in all its options, filters and slices in use.
    "values": """{{ true }} {{ false }} {{ none }} {{ missing }}|{{ bos_token }}|{{ 7 // 2 }} {{ 7 % 4 }} {{ 2 ** 3 }} {{ 1.0 }} {{ 7 / 2 }}
{{ messages[0].content[:3] }} {{ messages[0].content | length }} {{ messages | map(attribute='role') | join(', ') }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ 'a-b-c'.split('-') | last }} {{ 'x' ~ 1 ~ none }}
{{ {'a': 1, 'b': [1, 2.5, none, true], 'é"\\n<>&': 1e20} | tojson }}
{{ {'b': 1, 'a': {}} | tojson(sort_keys=true) }} {{ [1, [], [2]] | tojson(indent=2) }}
{{ ['é', 1] | tojson(ensure_ascii=true, separators=[',', ':']) }}
{{ strftime_now('%Y-%m-%d %H:%M, %A') }} {{ 'yes' if 'user' in messages[0].values() else 'no' }}
{% for key, value in messages[0].items() %}{{ key }}={{ value }};{% endfor %}
{{ messages[0].get('name', 'nobody') }} {{ 'Title case'.title() }} {{ ' pad ' | trim }} {{ 'a,b'.replace(',', ';') }}
""",
}

HELLO = [{"role": "user", "content": "  Hello there!\n"}]
SYSTEM = [{"role": "system", "content": " You are terse. "}]
TURNS = HELLO + [
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHi <b>&</b> 'you'. "},
    {"role": "user", "content": "Ünïcode 🚀 {{ not a tag }} {% nor this %}"},
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "What it's like <outside> & about",
            "parameters": {"type": "object", "properties": {"place": {"type": "string"}, "days": {"default": 1.5}}},
        },
    }
]
CONVERSATIONS = {
    "hello": (HELLO, {"add_generation_prompt": True}),
    "system": (SYSTEM + HELLO, {"add_generation_prompt": True}),
    "turns": (SYSTEM + TURNS, {"add_generation_prompt": True}),
    "answered": (TURNS[:2], {"add_generation_prompt": False}),
    "long": (TURNS[:2] * 4, {"add_generation_prompt": False}),
    "tools": (HELLO, {"add_generation_prompt": True, "tools": TOOLS}),
    "no thinking": (HELLO, {"add_generation_prompt": True, "enable_thinking": False, "date_string": "1 May 2020"}),
    "wrong order": (TURNS[1:2] + HELLO, {"add_generation_prompt": False}),
    "tool answers": (
        HELLO + [{"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}],
        {"add_generation_prompt": True},
    ),
}


def render(template: str, messages: list[dict], options: dict) -> dict:
    options = dict(options)
    tools = options.pop("tools", None)
    try:
        rendered, _ = chat_template_utils.render_jinja_template(
            conversations=[messages], tools=tools, chat_template=template, bos_token="<s>", eos_token="</s>", **options
        )
        return {"text": rendered[0]}
    except jinja2.exceptions.TemplateError as error:
        return {"refused": str(error)}


def main() -> None:
    conversations = {name: {"messages": m, "options": o} for name, (m, o) in CONVERSATIONS.items()}
    rendered = {
        name: {which: render(template, *CONVERSATIONS[which]) for which in CONVERSATIONS}
        for name, template in TEMPLATES.items()
    }
    result = {"templates": TEMPLATES, "conversations": conversations, "rendered": rendered}
    pathlib.Path(sys.argv[1]).write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
