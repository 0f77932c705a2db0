"""Which part of a response is the program."""

import pytest

from gopd_lightning.verifiers.programs.answer import complete, extract_program

RESPONSES = {
    "no fence": ("x = 1", "x = 1"),
    "one block": ("So:\n```python\nx = 1\n```\nDone.", "x = 1\n"),
    "last of several": ("```python\nx = 0\n```\nbetter:\n```python\nx = 1\n```\ndone", "x = 1\n"),
    "py and Python3": ("```Python3\nx = 0\n```\n```py\nx = 1\n```", "x = 1\n"),
    "attributes": ('```python title="a.py"\nx = 1\n```', "x = 1\n"),
    "braces": ("```{python}\nx = 1\n```", "x = 1\n"),
    "cut off": ("```python\nx = 0\n```\n```python\nx = 1", "x = 1\n"),
    "left open before another": ("```python\nx = 0\n\n```python\nx = 1\n```", "x = 1\n"),
    "plain block": ("```\nx = 1\n```", "x = 1\n"),
    "plain output after the answer": ("```python\nx = 1\n```\nprints\n```\n1\n```", "x = 1\n"),
    "other language after the answer": ("```python\nx = 1\n```\n```bash\npython a.py\n```", "x = 1\n"),
    "other languages alone": ("```cpp\nint x;\n```", "```cpp\nint x;\n```"),
    "tildes": ("~~~python\nx = 1\n~~~", "x = 1\n"),
    "longer fence": ("````python\ns = '''\n```\n'''\n````", "s = '''\n```\n'''\n"),
    "indented in a list": ("1. Do\n   ```python\n   if x:\n       y\n   ```", "if x:\n    y\n"),
    "list mark before the fence": ("- ```python\nx = 1\n```", "x = 1\n"),
    "fence in a docstring": (
        '```python\ndef f():\n    """\n    ```python\n    f()\n    ```\n    """\n    return 1\n```',
        'def f():\n    """\n    ```python\n    f()\n    ```\n    """\n    return 1\n',
    ),
    "fence after prose": ("The answer: ```python\nx = 1\n```", "x = 1\n"),
    "fence after code": ("```python\nx = 1```\nbye", "x = 1\n"),
    "thought before the answer": ("<think>\n```python\nx = 0\n```\n</think>\n```python\nx = 1\n```", "x = 1\n"),
    "blocks in thought alone": ("<think>\n```python\nx = 0\n```\n</think>x = 1", "x = 1"),
    "Windows line ends": ("Hi\r\n```python\r\nx = 1\r\n```\r\n", "x = 1\n"),
    "empty block": ("```python\n```", ""),
    "inline code": ("Use `x` and ```y``` here", "Use `x` and ```y``` here"),
}


@pytest.mark.parametrize("name", RESPONSES)
def test_last_fenced_python_block_is_the_program(name):
    response, program = RESPONSES[name]
    assert extract_program(response) == program


HEAD = 'import math\n\ndef f(x):\n    """Half."""\n'


def run(source: str, *arguments):
    scope: dict = {}
    exec(compile(source, "program", "exec"), scope)
    return scope["f"](*arguments)


@pytest.mark.parametrize(
    "program",
    [
        "    return math.floor(x / 2)\n",
        "def f(x):\n    return math.floor(x / 2)",
        "from __future__ import annotations\ndef f(x: Unknown):\n    return math.floor(x / 2)",
        "f = lambda x: math.floor(x / 2)",
        "def f(x: int) -> int:\n    return x // 2\ndef g(): pass",
    ],
)
def test_answer_may_go_on_with_its_prompt_or_repeat_it(program):
    assert run(complete(HEAD, program, "f"), 9) == 4


def test_code_of_the_prompt_alone_is_no_answer():
    assert run(complete(HEAD, "def g(x):\n    return 4", "f"), 9) is None
