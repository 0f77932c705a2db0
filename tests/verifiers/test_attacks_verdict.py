"""Attacks on the verdict: nothing but the right outputs earns the reward, and nothing is left for the next program."""

import json

import attacks
import pytest
from attacks import SUM, Attack, harmless, launch, task

from gopd_lightning.records import Prompt

WRONG = "expected 3"
EQUAL = "def __eq__(self, other): return True\n def __ne__(self, other): return False\n __hash__ = None"
SPOOF = "class E:\n __class__ = property(lambda self: int)\n {}\ndef f(xs):\n return E()"


def equal(base: str, make: str) -> Attack:
    program = f"class E({base}):\n {EQUAL}\ndef f(xs):\n return E({make})"
    return Attack(f"equal to everything, {base}", program, "expected 3|TypeError")


ATTACKS = [
    equal("object", ""),
    equal("int", "7"),
    equal("float", "7"),
    equal("str", "'7'"),
    equal("list", "[7]"),
    equal("tuple", "[7]"),
    equal("dict", ""),
    equal("complex", "7"),
    Attack("equal to everything, class spoofed", SPOOF.format(EQUAL), "expected 3|TypeError"),
    Attack("mock object", "from unittest.mock import MagicMock, ANY\ndef f(xs):\n return ANY", WRONG),
    Attack("not a number", "def f(xs):\n return float('nan')", WRONG),
    Attack(
        "raising in __eq__", "class E:\n def __eq__(self, other): raise SystemExit(0)\ndef f(xs):\n return E()", WRONG
    ),
    Attack(
        "raising in __index__ and __int__",
        "class E(int):\n def __int__(self): raise SystemExit(0)\n __index__ = __int__\ndef f(xs):\n return E(3)",
        "exited before the last test|expected",
    ),
    Attack("type tag forged", "def f(xs):\n return {'$type': 'int', 'value': '0x3'}", WRONG),
    Attack(
        "unreadable value forged",
        'import os\nos.write(3, b\'{"value": {"$type": "int", "value": []}}\\n\')\n' + SUM,
        "unreadable output",
    ),
    Attack("sys.exit(0) at import", "import sys\nsys.exit(0)", "exited before the last test"),
    Attack("sys.exit(0) in the function", "import sys\ndef f(xs):\n sys.exit(0)", "exited before the last test"),
    Attack("os._exit(0) at import", "import os\nos._exit(0)", "exited before the last test"),
    Attack(
        "os._exit(0) after one test",
        "import os\ndef f(xs):\n return 3 if len(xs) == 2 else os._exit(0)",
        "exited before the last test",
    ),
    Attack(
        "exit in atexit",
        "import atexit, os\natexit.register(os._exit, 0)\ndef f(xs):\n raise SystemExit(0)",
        "exited before the last test",
    ),
    Attack(
        "bare exceptions", "def f(xs):\n raise BaseExceptionGroup('x', [KeyboardInterrupt()])", "BaseExceptionGroup"
    ),
    Attack(
        "raising in __str__ of an exception",
        "class E(BaseException):\n def __str__(self): raise E()\ndef f(xs):\n raise E()",
        "exit status 1",
    ),
    Attack("output without a good end, script", "print(input())\nraise SystemExit(3)", "exit status 3", script=True),
    Attack(
        "output without a good end, signal",
        "import os\nprint(input(), flush=True)\nos.abort()",
        "signal 6",
        script=True,
    ),
    Attack(
        "passed marker printed",
        "print('PASSED'); print('ok'); print('{\"outputs\": [3, 5], \"error\": null}')\ndef f(xs):\n return 'passed'",
        WRONG,
    ),
    Attack(
        "result forged on every descriptor",
        "import os\nfor fd in range(64):\n"
        ' for text in (b\'{"outputs": [0, 0], "error": null}\\n\', b\'{"value": true}\\n\'):\n'
        "  try: os.write(fd, text)\n  except OSError: pass\nos._exit(0)",
        "unreadable|expected",
    ),
    Attack(
        "frame forged on every descriptor",
        'import os, struct\nbody = b\'{"outputs": [3, 5], "error": null}\'\nfor fd in range(64):\n'
        " try: os.write(fd, struct.pack('>I', len(body)) + body)\n except OSError: pass\nos._exit(0)",
        "unreadable|exited",
    ),
    Attack(
        "report emptied",
        "import os\ndef f(xs):\n os.ftruncate(3, 0)\n return sum(xs)",
        "unreadable|exited|expected 3, found 5",
    ),
    Attack("report closed", "import os\nos.close(3)\n" + SUM, "exit status 1|Bad file"),
    Attack("all descriptors closed", "import os\nos.closerange(0, 99)\n" + SUM, "exit status 1|Bad file|exited"),
    Attack(
        "checker patched: json",
        "import json\njson.dumps = lambda *a, **k: '{\"value\": 3}'\n"
        "json.encoder.encode_basestring_ascii = None\ndef f(xs):\n return 0",
        "expected 3|exit status 1",
    ),
    Attack(
        "checker patched: builtins",
        "import builtins\nbuiltins.isinstance = lambda *a: True\nbuiltins.type = lambda x: int\n"
        "builtins.len = lambda x: 0\nbuiltins.abs = builtins.zip = None\ndef f(xs):\n return 0",
        "expected 3|Error|exit",
    ),
    Attack(
        "checker patched: builtins emptied",
        "import builtins\nvars(builtins).clear()\ndef f(xs):\n return 0",
        "Error|exit status|expected",
    ),
    Attack(
        "checker patched: modules",
        "import sys\nfor name in list(sys.modules): sys.modules[name] = None\ndef f(xs):\n return 0",
        WRONG,
    ),
    Attack(
        "checker patched: frames",
        "import sys\nframe = sys._getframe()\nwhile frame:\n"
        " for name, value in list(frame.f_globals.items()):\n"
        "  if callable(value) and name != 'sys': frame.f_globals[name] = lambda *a, **k: 0\n"
        " frame = frame.f_back\ndef f(xs):\n return 0",
        "expected 3|Error|exit|exited",
    ),
    Attack(
        "checker patched: garbage collector",
        "import gc, types\nfor one in gc.get_objects():\n"
        " if isinstance(one, types.FunctionType) and one.__name__ in ('say', 'encode', 'described', 'reporter'):\n"
        "  one.__code__ = (lambda *a, **k: 3).__code__\n"
        "def f(xs):\n return 0",
        "expected 3|Error|exit",
    ),
    Attack(
        "checker patched: trace",
        "import sys\nsys.settrace(lambda *a: 1/0)\nsys.setprofile(lambda *a: 1/0)\ndef f(xs):\n return 0",
        "expected 3|Error|exit",
    ),
    Attack(
        "main module replaced",
        "import __main__\nfor name in vars(__main__).copy(): setattr(__main__, name, 3)\ndef f(xs):\n return 0",
        WRONG,
    ),
    Attack("surrogates returned", "def f(xs):\n return '\\ud800'", WRONG),
    Attack("surrogates printed", "print('\\ud800')", "UnicodeEncodeError", script=True),
    Attack("bytes that are no text printed", "import os\nos.write(1, bytes(range(256)))", "expected", script=True),
    Attack("surrogate in the source", "\ud800", "UnicodeEncodeError"),
    Attack("null byte in the source", SUM + "\n\0", "SyntaxError|ValueError"),
    Attack(
        "pickle bomb returned",
        "import os\nclass E:\n def __reduce__(self): return os.system, ('touch x',)\ndef f(xs):\n return E()",
        WRONG,
    ),
    Attack("no source", "#", "no function 'f'"),
    Attack("function that is none", "f = 3", "TypeError"),
    harmless(
        "environment and arguments",
        "if dict(os.environ): return\nraise OSError",
        "if sys.argv != ['program.py']: return\nraise OSError",
        "if sys.stdin.read(): return\nraise OSError",
        "if os.getenv('HOME') or os.getenv('PATH'): return\nraise OSError",
        "if 'torch' not in sys.modules: raise OSError",
    ),
    harmless("descriptors", *(f"os.fstat({number})" for number in (*range(4, 64), 100, 101, 102, 103, 255))),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_only_right_outputs_count(verifier, host, attack):
    attacks.check(verifier, attack, host)


SECRET = "never-sent-to-the-program"
# Programs look for their word by a pattern that is not the word itself.
SEARCH = """
import gc, re, sys
def f():
 frame, seen = sys._getframe(), []
 while frame:
  seen += [*frame.f_globals.values(), *frame.f_locals.values()]
  frame = frame.f_back
 seen += [one for one in gc.get_objects() if isinstance(one, (list, dict, tuple)) and len(one) < 99]
 return any(re.search('never-sent-[t]o-the-program', repr(one)) for one in seen if one is not seen)
"""
# Whether the kernel can read an address, it tells by EFAULT: memory may be searched without a crash.
MEMORY = """
import ctypes, os, re
def f():
 libc = ctypes.CDLL(None, use_errno=True)
 r, w = os.pipe()
 found, here = 0, id(object()) & ~4095
 for page in range(here - 2**26, here + 2**26, 4096):
  if libc.write(w, ctypes.c_void_p(page), 4096) == 4096:
   found += bool(re.search(b'left-by-[a]n-earlier-program', os.read(r, 4096)))
 return found
"""


def probe(value) -> Prompt:
    answer = json.dumps({"fn_name": "f", "inputs": [[], []], "outputs": [value, SECRET]})
    return Prompt(uid=0, domain="code", dataset="d", text="", ids=[], answer=answer, source="row 1")


def test_expected_outputs_are_not_in_the_program_process(verifier):
    reason = verifier.verify([probe(False)], [SEARCH])[0].reason
    assert reason.startswith("test 2: expected")  # test 1 passed: nothing found


def test_inputs_of_earlier_programs_are_not_in_memory(verifier):
    if verifier.sandbox == "weak":
        pytest.skip("ctypes is closed there")
    earlier = json.dumps({"fn_name": "f", "inputs": [["left-by-an-earlier-program" * 999]], "outputs": [0]})
    prompt = Prompt(uid=0, domain="code", dataset="d", text="", ids=[], answer=earlier, source="row 1")
    for number in range(3):
        assert verifier.verify([prompt], [f"def f(x):\n return 0  # {number}"])[0].reward == 1.0
    assert verifier.verify([probe(0)], [MEMORY])[0].reason.startswith("test 2: expected")


LEAVE = """
import builtins, json, math, os, sys, threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
builtins.sum = builtins.len = lambda *a: 'left'
json.dumps = math.sqrt = lambda *a: 'left'
sys.path.insert(0, os.getcwd()); sys.modules['random'] = None
os.environ['LEFT'] = 'left'; os.umask(0o777)
for folder in ('.', '..', '/tmp'):
 try: open(folder + '/left.py', 'w').write('left')
 except OSError: pass
sys.setrecursionlimit(50)
"""
LOOK = """
import json, math, os, random, sys, threading
def f(xs):
 assert math.sqrt(4) == 2 and json.dumps(1) == '1' and random.random() >= 0 and sys.getrecursionlimit() > 99
 assert not os.environ and not os.listdir('.') and threading.active_count() == 1
 for folder in ('..', '/tmp'):
  try: assert not [name for name in os.listdir(folder) if name.startswith('left')]
  except OSError: pass
 return sum(xs)
"""


def test_nothing_is_left_for_the_next_program(verifier):
    assert (
        launch(verifier, Attack("state left", LEAVE + "def f(xs):\n return 1 + 2 if len([1]) else 0", "")).reward == 0
    )
    assert verifier.verify([task()], [LOOK])[0].reason == ""
