"""The gate refuses a tree that is out of shape, and names the place, both numbers and what to do."""

from __future__ import annotations

import pytest


@pytest.fixture
def tree(script, monkeypatch, tmp_path):
    """Return a function that writes files and returns the modules among them as the checks read them."""
    monkeypatch.setattr(script("tree"), "ROOT", tmp_path)

    def write(files: dict[str, str]):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return script("tree").modules_of(sorted(tmp_path.rglob("*.py")))

    return write


@pytest.fixture
def sentences(script):
    """Return a function that gives the gate's sentences about what was counted."""

    def found(counts, exceptions=None):
        return list(script("ratchet").complaints(counts, exceptions or {}))

    return found


# ------------------------------------------------------------------------------------------- circles


@pytest.mark.parametrize(
    "back",
    [
        "import streams.a\n",
        "from streams import a\n",
        "from streams.a import x\n",
        "def late():\n    from streams.a import x\n",
    ],
)
def test_circle_is_named_with_its_way_round(script, tree, sentences, back):
    modules = tree({"streams/__init__.py": "", "streams/a.py": "import actions.b\n", "actions/b.py": back})
    (sentence,) = sentences(script("imports").circles(modules))
    line = len(back.splitlines())
    assert sentence.startswith(
        f"actions/b.py: 2 modules in a circle of imports > 0 (actions/b.py:{line} -> streams/a.py:1 -> actions/b.py)"
    )


def test_modules_behind_a_circle_are_not_counted_into_it(script, tree, sentences):
    files = {
        "streams/a.py": "import streams.b\n",
        "streams/b.py": "import streams.c\n",
        "streams/c.py": "import streams.b\n",
    }
    (sentence,) = sentences(script("imports").circles(tree(files)))
    assert sentence.startswith("streams/b.py: 2 modules")


def test_import_for_type_checkers_closes_no_circle(script, tree, sentences):
    back = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from unship.a import x\nelse:\n    x = 1\n"
    modules = tree({"sdk/unship/a.py": "import unship.b\n", "sdk/unship/b.py": back})
    assert sentences(script("imports").circles(modules)) == []


def test_circle_among_the_exceptions_passes_until_it_is_gone(script, tree, sentences):
    imports = script("imports")
    circle = tree({"streams/a.py": "import streams.b\n", "streams/b.py": "import streams.a\n"})
    allowed = {("circle", "streams/a.py"): 2}
    assert sentences(imports.circles(circle), allowed) == []
    mended = tree({"streams/b.py": ""})
    assert "remove the line" in sentences(imports.circles(mended), allowed)[0]


# -------------------------------------------------------------------------------------------- layers

LAYERS = {"streams": ["app", "kafka | embedded", "join", "."]}
IN_ORDER = {
    "streams/app.py": "import streams.kafka.service\n",
    "streams/kafka/service.py": "from streams.join import window\nimport streams.units\n",
    "streams/embedded/monitor.py": "import streams.join.window\n",
    "streams/join/window.py": "import streams.units\nimport streams.join.tally\n",
    "streams/join/tally.py": "",
    "streams/units.py": "import streams.words\n",
    "streams/words.py": "",
}


def test_imports_from_the_top_down_pass(script, tree, sentences):
    modules = tree(IN_ORDER)
    assert sentences(script("imports").upward(modules, LAYERS)) == []
    assert list(script("imports").unplaced(modules, LAYERS)) == []


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("streams/join/tally.py", "import streams.app\n", "streams.join at level 3 imports streams.app at level 1"),
        (
            "streams/units.py",
            "\nimport streams.join.tally\n",
            "streams.units at level 4 imports streams.join at level 3",
        ),
        (
            "streams/kafka/service.py",
            "import streams.embedded.monitor\n",
            "streams.kafka at level 2 imports streams.embedded",
        ),
        (
            "streams/join/tally.py",
            "from streams import NAME\n",
            "streams.join at level 3 imports streams.__init__ at level 0",
        ),
    ],
)
def test_import_that_goes_up_is_named_with_both_levels(script, tree, sentences, path, text, expected):
    modules = tree({**IN_ORDER, "streams/__init__.py": "", path: text})
    (sentence,) = sentences(script("imports").upward(modules, LAYERS))
    assert sentence.startswith(f"{path}->streams.")
    assert "1 imports against [tool.unship.layers] > 0" in sentence
    assert expected in sentence
    assert f"line {len(text.splitlines())})" in sentence


def test_folder_without_a_level_is_named(script, tree):
    modules = tree({**IN_ORDER, "streams/fold/fold.py": ""})
    (sentence,) = script("imports").unplaced(modules, LAYERS)
    assert sentence.startswith(
        "streams.fold: expected one of the 5 places of streams in [tool.unship.layers], was none"
    )


def test_module_without_a_level_is_named_where_no_level_takes_the_others(script, tree):
    found = script("imports").unplaced(tree(IN_ORDER), {"streams": LAYERS["streams"][:-1]})
    assert [sentence.partition(":")[0] for sentence in found] == ["streams.units", "streams.words"]


def test_level_without_a_folder_is_named(script, tree):
    (sentence,) = script("imports").unplaced(tree(IN_ORDER), {"streams": [*LAYERS["streams"], "gone"]})
    assert sentence.endswith("gone is none of them: remove the name")


def test_folder_within_a_folder_has_an_order_of_its_own(script, tree, sentences):
    layers = {"unship": ["log"], "unship.log": ["kafka", "link"]}
    modules = tree({"sdk/unship/log/link.py": "import unship.log.kafka.reader\n", "sdk/unship/log/kafka/reader.py": ""})
    assert list(script("imports").unplaced(modules, layers)) == []
    (sentence,) = sentences(script("imports").upward(modules, layers))
    assert sentence.startswith("sdk/unship/log/link.py->unship.log.kafka: 1 imports")


# --------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("folder", ["streams/kafka", "sdk/unship", "tests/unit"])
def test_folder_of_16_modules_is_named(script, tree, tmp_path, sentences, folder):
    tree({f"{folder}/__init__.py": "", **{f"{folder}/m{number}.py": "" for number in range(15)}})
    sizes = script("sizes")
    assert sentences(sizes.folders(tmp_path.rglob("*.py"))) == []
    tree({f"{folder}/one_more.py": ""})
    (sentence,) = sentences(sizes.folders(tmp_path.rglob("*.py")))
    assert sentence == f"{folder}: 16 modules > 15: make a folder of those that belong together"


def assignments(count: int) -> str:
    return "".join(f"        self.a{number} = {number}\n" for number in range(count))


def fields(count: int) -> str:
    return "".join(f"    f{number}: int\n" for number in range(count))


@pytest.mark.parametrize(
    "text",
    [
        "class Service:\n    def __init__(self):\n" + assignments(13),
        "class Service:\n    def __init__(self):\n"
        + assignments(12)
        + "    async def go(this):\n        this.b += 1\n",
        "@dataclass(slots=True)\nclass Service:\n" + fields(12) + "    def go(self):\n        self.b = 1\n",
        "class Service(msgspec.Struct):\n" + fields(13) + "def go(service):\n    service.f1 = 2\n",
        "class Base(Struct): ...\nclass Service(Base):\n" + fields(13) + "    def go(self):\n        del self.f1\n",
    ],
)
def test_class_with_13_attributes_of_state_is_named(script, tree, sentences, text):
    (sentence,) = sentences(script("class_state").classes(tree({"streams/service.py": text})))
    assert sentence.startswith("streams/service.py:Service: 13 attributes > 12: give a part of this state a class")


@pytest.mark.parametrize(
    "text",
    [
        "class Service:\n    def __init__(self):\n" + assignments(12),
        "class Event(Struct, frozen=True):\n" + fields(30) + "    def __post_init__(self):\n        other.f1 = 1\n",
        "class Base(Struct, frozen=True): ...\nclass Event(Base):\n"
        + fields(30)
        + "def go(other):\n    other.f1 = 1\n",
        "class Saved(Struct):\n" + fields(30) + "class Fold:\n    def go(self):\n        self.f1 = 1\n",
        "class Row(NamedTuple):\n" + fields(30),
        "class Notes:\n" + fields(30) + "    def go(self):\n        self.b = 1\n",
    ],
)
def test_small_class_and_record_pass(script, tree, sentences, text):
    assert sentences(script("class_state").classes(tree({"streams/module.py": text}))) == []


# -------------------------------------------------------------------------------------------- writes

FOLD = """
class Fold:
    size: int
    def __init__(self):
        self.epoch = 0
        self._rows = []
class Other:
    fold: Fold
    def current(self) -> Fold: ...
def new_fold() -> Fold: ...
"""


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("def go(fold: Fold):\n    fold.epoch = 1\n", "Fold.epoch in line 2"),
        ("def go(fold: 'Fold | None'):\n    fold.epoch += 1\n", "Fold.epoch in line 2"),
        ("def go(fold):\n    fold.epoch = 1\n", "epoch in line 2"),
        ("def go(fold):\n    del fold.size\n", "size in line 2"),
        ("def go(other: Other):\n    other.fold.epoch = 1\n", "Fold.epoch in line 2"),
        ("def go(other: Other):\n    now = other.current()\n    now.epoch = 1\n", "Fold.epoch in line 3"),
        (
            "class A:\n    def go(self, fold: Fold):\n        self.fold = fold\n        self.fold.epoch = 1\n",
            "epoch in line 4",
        ),
        ("class A:\n    epoch = 0\ndef go(fold: Fold):\n    fold.epoch = 1\n", "Fold.epoch in line 4"),
        ("class A:\n    epoch = 0\ndef go():\n    new_fold().epoch = 1\n", "Fold.epoch in line 4"),
        ("class A:\n    epoch = 0\ndef go(o: Other):\n    n, f = 1, o.fold\n    f.epoch = n\n", "Fold.epoch in line 5"),
        (
            "class A:\n    epoch = 0\ndef go(f: Fold):\n    f = f if f else Fold()\n    f.epoch = 1\n",
            "Fold.epoch in line 5",
        ),
        ("def go(folds):\n    for fold, _ in folds:\n        fold.epoch = 1\n", "epoch in line 3"),
    ],
)
def test_attribute_written_outside_the_module_of_its_class_is_named(script, tree, sentences, text, what):
    modules = tree({"streams/fold.py": FOLD, "streams/b.py": f"{text}from streams.fold import Fold, Other, new_fold\n"})
    (sentence,) = sentences(script("writes").outside(modules))
    name = what.partition(" ")[0].rpartition(".")[2]
    assert sentence.startswith(f"streams/b.py:{name}: 1 writes from outside the class > 0 (")
    assert f"{what}): give the class a method" in sentence


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("def go(fold: Fold):\n    return fold._rows\n", "Fold._rows in line 2"),
        ("def go(fold):\n    fold._rows = []\n", "_rows in line 2"),
        ("def go():\n    fold = Fold()\n    fold._rows = []\n", "Fold._rows in line 3"),
        ("def go(consumer):\n    return consumer._client\n", "_client in line 2"),
        ("import aiokafka\ndef go():\n    return aiokafka.Consumer()._client\n", "Consumer._client in line 3"),
    ],
)
def test_private_attribute_used_outside_its_module_is_named(script, tree, sentences, text, what):
    modules = tree({"streams/fold.py": FOLD, "streams/b.py": f"{text}from streams.fold import Fold\n"})
    (sentence,) = sentences(script("writes").outside(modules))
    assert sentence.startswith(f"streams/b.py: 1 uses of others' private attributes > 0 ({what}): use what")


@pytest.mark.parametrize(
    "text",
    [
        "class A:\n    def go(self):\n        self.epoch = 1\n        def inner():\n            self.epoch += 1\n",
        "class A(Fold):\n    def go(self):\n        return super()._rows\n",
        "class A:\n    epoch: int\ndef go(a: A):\n    a.epoch = 1\n",
        "class A:\n    _epoch: int\n    def __eq__(self, other):\n        return self._epoch == other._epoch\n",
        "class A:\n    _rows: int\n    @classmethod\n    def of(cls):\n        made = cls.__new__(cls)\n"
        "        made._rows = made.epoch = 1\n",
        "def go():\n    fold = Fold()\n    fold.epoch = 1\n    return fold\n",
        "def go():\n    fold = Fold.restore()\n    fold.epoch = 1\n    return fold\n",
        "import faust\ndef go():\n    app = faust.App()\n    app.size = 1\n",
        "def go():\n    text = ', '.join([])\n    text.title = str(text)\n",
        "def go(context):\n    context.no_class_of_ours_has_this = 1\n",
        "def go(row):\n    return row._replace(a=1)\n",
    ],
)
def test_what_a_module_does_to_its_own_passes(script, tree, sentences, text):
    modules = tree({"streams/fold.py": FOLD, "streams/b.py": f"{text}from streams.fold import Fold\n"})
    assert sentences(script("writes").outside(modules)) == []


# ------------------------------------------------------------------------------------------- ratchet


def test_written_exceptions_are_read_again_and_kinds_that_grow_are_refused(script, monkeypatch, tmp_path):
    ratchet, growth = script("ratchet"), script("ratchet_write").growth
    monkeypatch.setattr(ratchet, "RATCHET", tmp_path / "ratchet.txt")
    exceptions = {("writes", "streams/a.py:epoch"): 2, ("lines", "streams/a.py"): 700}
    ratchet.RATCHET.write_text(ratchet.lines_of(exceptions), encoding="utf-8")
    assert ratchet.read_ratchet("writes", "lines") == exceptions
    assert ratchet.read_ratchet("lines") == {("lines", "streams/a.py"): 700}
    assert growth(exceptions, {("writes", "streams/b.py:epoch"): 2}) == []
    assert growth(exceptions, {("writes", "streams/b.py:epoch"): 3}) == ["writes: 3 > 2"]


def test_exception_of_an_unknown_kind_is_refused(script, monkeypatch, tmp_path):
    ratchet = script("ratchet")
    monkeypatch.setattr(ratchet, "RATCHET", tmp_path / "ratchet.txt")
    ratchet.RATCHET.write_text("rows streams/a.py 3\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="was rows"):
        ratchet.read_ratchet("lines")
