"""Golden values of chat templates, from transformers.

    python oracle/chat_templates.py [--output crates/adapt/tests/golden]

Writes chat_templates.json: `templates`, by name, written here in the manners of the models that people use, and 200
`conversations`, each with
  template      its name
  messages      and tools, where there are any
  text          what transformers renders, prompted without an answer to begin
  prompted      the same of all but the last answer, with what an answer begins with
  generated     [start, end] in characters of what its templates mark as the assistant's own
Conversations that a template refuses have `refused`, its words, instead of these.
"""

import argparse
import json
from pathlib import Path

import jinja2
import numpy
from transformers.utils.chat_template_utils import render_jinja_template

REPOSITORY = Path(__file__).resolve().parent.parent

TEMPLATES = {
    # Roles between marks, a system turn of its own where none is given: as SmolLM2 and Qwen2.
    "marked": """
{%- if messages and messages[0]['role'] != 'system' %}
    {{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' }}
    {%- if message['role'] == 'assistant' %}
        {%- generation %}{{- message['content'] + '<|im_end|>' }}{%- endgeneration %}
        {{- '\\n' }}
    {%- else %}
        {{- message['content'] + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""".strip(),
    # Turns in pairs, the system's text within the first, and an error for anything else: as Llama 2 and Mistral.
    "paired": """
{% if messages[0].role == 'system' %}
    {% set first = '<<SYS>>\\n' ~ messages[0].content ~ '\\n<</SYS>>\\n\\n' %}
    {% set rest = messages[1:] %}
{% else %}
    {% set first, rest = '', messages %}
{% endif %}
{{ bos_token }}
{%- for message in rest %}
    {%- if (message.role == 'user') != (loop.index0 is even) %}
        {{- raise_exception('Roles must take turns: user, assistant, user ...') }}
    {%- endif %}
    {%- if message.role == 'user' %}
        {{- '[INST] ' ~ (first if loop.first else '') ~ message.content.strip() ~ ' [/INST]' }}
    {%- else %}
        {{- ' ' }}{% generation %}{{ message.content | trim ~ eos_token }}{% endgeneration %}
    {%- endif %}
{%- endfor %}
""".strip(),
    # Headers, tools as JSON, calls and their results: as Llama 3 and Qwen2.5.
    "tools": """
{%- macro header(role) %}<|start|>{{ role }}<|end|>

{% endmacro %}
{%- set state = namespace(calls=0) %}
{{- bos_token }}
{%- if tools is not none and tools %}
    {{- header('system') }}Tools:{{ '\\n' }}
    {%- for tool in tools %}
        {{- tool | tojson(indent=2) }}{{ '\\n' }}
    {%- endfor %}
    {{- eos_token }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {{- header('ipython') + (message.content if message.content is string else message.content | tojson) + eos_token }}
    {%- elif message.tool_calls is defined and message.tool_calls %}
        {{- header('assistant') }}{% generation %}
        {%- for call in message.tool_calls %}
            {%- set state.calls = state.calls + 1 %}
            {{- {'name': call.function.name, 'parameters': call.function.arguments, 'n': state.calls} | tojson }}
            {%- if not loop.last %}{{ '; ' }}{% endif %}
        {%- endfor %}{{ eos_token }}{% endgeneration %}
    {%- elif message.role == 'assistant' %}
        {{- header(message['role']) }}{% generation %}{{ message['content'] | trim }}{{ eos_token }}{% endgeneration %}
    {%- else %}
        {{- header(message['role']) + message['content'] | trim + eos_token }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- header('assistant') }}{%- endif %}
""".strip(),
    # Thoughts that earlier turns lose: as Qwen3.
    "thinking": """
{%- set last = namespace(user=-1) %}
{%- for message in messages %}
    {%- if message.role == 'user' %}{% set last.user = loop.index0 %}{% endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == 'assistant' %}
        {%- set thoughts = '' %}
        {%- if '</think>' in content %}
            {%- set thoughts = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}{% generation %}
        {%- if loop.index0 > last.user and (loop.last or thoughts) %}
            {{- '<think>\\n' + thoughts.strip('\\n') + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- content + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}
""".strip(),
    # A model's name for the assistant, upper-cased system text, a break: what is left of the language.
    "named": """
{%- for message in messages %}
    {%- if loop.index0 >= 12 %}{% break %}{% endif %}
    {%- if message['role'] == 'assistant' %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}
    {%- if role == 'system' %}
        {{- '# ' + message['content'].upper().replace('\\n', ' ') + '\\n' }}
        {%- continue %}
    {%- endif %}
    {{- '<start_of_turn>' + role + '\\n' }}
    {%- if role == 'model' %}{% generation %}{{ message['content'] | trim + '<end_of_turn>' }}{% endgeneration %}{{ '\\n' }}
    {%- else %}{{ message['content'] | trim + '<end_of_turn>\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}
""".strip(),
}

WORDS = (
    "where is my order the parcel 42 Größe été 你好 <b> & \"quoted\" it's fine\n\nthen {{ x }} {% y %} 3.5 € naïve 😀 [INST] ok"
).split(" ")
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def text(rng, most=12):
    words = [WORDS[index] for index in rng.integers(0, len(WORDS), rng.integers(1, most))]
    pad = ["", "", " ", "\n"]
    return pad[rng.integers(4)] + " ".join(words) + pad[rng.integers(4)]


def conversation(rng, name):
    messages, tools = [], None
    if rng.random() < 0.5:
        messages.append({"role": "system", "content": text(rng)})
    if name == "tools" and rng.random() < 0.7:
        tools = [
            {
                "type": "function",
                "function": {
                    "name": f"find_{number}", "description": text(rng, 5),
                    "parameters": {"type": "object", "properties": {"id": {"type": "integer", "default": 1.5}}, "required": []},
                },
            }
            for number in range(rng.integers(1, 3))
        ]  # fmt: skip
    for _ in range(rng.integers(1, 5)):
        messages.append({"role": "user", "content": text(rng)})
        if name == "tools" and rng.random() < 0.4:
            arguments = {"id": int(rng.integers(9)), "größe": None, "flags": [True, 0.25, {"z": "ü", "a": []}]}
            calls = [{"type": "function", "function": {"name": "find_0", "arguments": arguments}}]
            messages.append({"role": "assistant", "tool_calls": calls * int(rng.integers(1, 3))})
            messages.append({"role": "tool", "name": "find_0", "content": text(rng, 4)})
        answer = text(rng)
        if name == "thinking" and rng.random() < 0.5:
            answer = f"<think>\n{text(rng).strip()}\n</think>\n\n{answer.strip()}"
        messages.append({"role": "assistant", "content": answer})
    if name == "paired" and rng.random() < 0.15:
        messages.append({"role": "assistant", "content": "again"})
    return messages, tools


def render(name, messages, tools, prompted):
    """What the assistant wrote is known of conversations alone that no answer is asked of."""
    texts, generated = render_jinja_template(
        conversations=[messages], tools=tools, chat_template=TEMPLATES[name], add_generation_prompt=prompted,
        return_assistant_tokens_mask=not prompted, **TOKENS,
    )  # fmt: skip
    return texts[0], [list(span) for span in (generated[0] if generated else [])]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=REPOSITORY / "crates/adapt/tests/golden")
    output = parser.parse_args().output
    rng = numpy.random.default_rng(7)
    conversations = []
    for number in range(200):
        name = list(TEMPLATES)[number % len(TEMPLATES)]
        messages, tools = conversation(rng, name)
        entry = {"template": name, "messages": messages}
        if tools:
            entry["tools"] = tools
        try:
            entry["text"], entry["generated"] = render(name, messages, tools, False)
            entry["prompted"], _ = render(name, messages[:-1], tools, True)
        except jinja2.exceptions.TemplateError as error:
            entry = {key: entry[key] for key in ("template", "messages", "tools") if key in entry}
            entry["refused"] = str(error)
        conversations.append(entry)
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in conversations)
    path = output / "chat_templates.json"
    path.write_text(
        f'{{"templates": {json.dumps(TEMPLATES, ensure_ascii=False)},\n"tokens": {json.dumps(TOKENS)},\n'
        f'"conversations": [\n{lines}\n]}}\n'
    )


if __name__ == "__main__":
    main()
