"""Sixty conversations of all kinds: short questions, several turns, system messages, Chinese, code, long prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

Conversation = Sequence[Mapping[str, str]]

QUESTIONS = (
    "What is the capital of France?",
    "How do I boil an egg?",
    "Why is the sky blue?",
    "Give me three tips for sleeping better.",
    "What is photosynthesis?",
    "Write a short poem about autumn.",
    "How far away is the moon?",
    "Explain what inflation is to a ten year old.",
    "What should I pack for a weekend in the mountains?",
    "Name five animals that live in the sea.",
    "How does a bicycle stay upright?",
    "What is the difference between weather and climate?",
    "Suggest a name for a bakery.",
    "How do I remove a coffee stain from a shirt?",
    "Who wrote Romeo and Juliet?",
    "What are the primary colours?",
    "Write an email asking for a day off.",
    "How many legs does a spider have?",
    "Is it safe to eat raw potatoes?",
    "Tell me a joke about cats.",
)
LATER = (
    ("What is a volcano?", "A volcano is an opening in the crust of a planet.", "Name two of them."),
    ("I want to learn to cook.", "Great! Start with simple dishes such as soups.", "Which soup is the easiest?"),
    ("Who painted the Mona Lisa?", "Leonardo da Vinci painted it.", "When did he live?"),
    ("My plant has yellow leaves.", "Perhaps it gets too much water.", "How often should I water it?"),
    ("What is 7 times 8?", "7 times 8 is 56.", "And 8 times 8?"),
    ("Recommend a book.", "Try The Hobbit by J. R. R. Tolkien.", "What is it about?"),
    ("What does a judge do?", "A judge decides cases in a court.", "How does one become a judge?"),
    ("How old is the Earth?", "About 4.5 billion years.", "And the Sun?"),
    ("Translate 'good morning' into Spanish.", "It is 'buenos días'.", "And into French?"),
    ("I feel tired all day.", "I am sorry to hear that. Do you sleep enough?", "About six hours. Is that enough?"),
)
SYSTEMS = (
    ("Answer in one sentence.", "What is gravity?"),
    ("You are a pirate.", "How do I get to the harbour?"),
    ("Answer as a list.", "What do I need for a picnic?"),
    ("Be brief and friendly.", "Can you help me with my homework?"),
    ("You are a doctor who speaks plainly.", "What is a fever?"),
    ("Never mention numbers.", "How tall is the Eiffel Tower?"),
    ("Write for children.", "What is electricity?"),
    ("You are a travel guide.", "What can I see in Rome?"),
)
CHINESE = (
    "法国的首都是哪里？",
    "请介绍一下长城。",
    "怎样做番茄炒蛋？",
    "为什么天空是蓝色的？",
    "写一首关于春天的短诗。",
    "人工智能是什么？请用简单的话解释。",
    "我应该怎样学习英语？",
    "北京的天气怎么样？",
)
CODE = (
    "Write a Python function that adds two numbers.",
    "What does this do?\n\n```python\nfor i in range(3):\n    print(i)\n```",
    "Write a SQL query that counts the rows of a table called users.",
    "Fix this code:\n\ndef f(x)\n    return x + 1",
    "How do I reverse a string in JavaScript?",
    'Explain this JSON: {"name": "x", "values": [1, 2, 3]}',
    "Write a shell command that lists all files ending in .txt.",
    "What is the difference between a list and a tuple in Python?",
)
_PLACES = ("harbour", "market", "library", "station", "school", "garden", "museum", "bridge", "mill", "tower")
_THINGS = ("clock", "bell", "stone", "door", "window", "lamp", "bench", "map", "fountain", "gate")


def long_text(sentences: int, first: int) -> str:
    """So many different sentences, about twenty tokens each."""
    lines = []
    for number in range(first, first + sentences):
        place, thing = _PLACES[number % 10], _THINGS[number // 10 % 10]
        lines.append(
            f"In the year {1500 + number} the {place} of the town was given a {thing} that {number} people paid for."
        )
    return " ".join(lines)


def conversations() -> list[Conversation]:
    """All sixty, in an order that has each kind everywhere: every sixth of them is a sample of all."""
    kinds: list[list[Conversation]] = [
        [_asked(text) for text in (*QUESTIONS[:10], *QUESTIONS[10:])],
        [_turns(*texts) for texts in LATER],
        [[{"role": "system", "content": system}, *_asked(text)] for system, text in SYSTEMS],
        [_asked(text) for text in CHINESE],
        [_asked(text) for text in CODE],
        [_asked(f"{long_text(58 + number, 10 * number)}\n\nSum this up in one sentence.") for number in range(6)],
    ]
    found = list(_dealt(kinds))
    assert len(found) == 60
    return found


def _dealt(kinds: list[list[Conversation]]) -> Iterator[Conversation]:
    """One of each kind in turn, each time beginning with another kind, until none is left."""
    turn = 0
    while any(kinds):
        for place in range(len(kinds)):
            kind = kinds[(place + turn) % len(kinds)]
            if kind:
                yield kind.pop(0)
        turn += 1


def _asked(text: str) -> list[Mapping[str, str]]:
    return [{"role": "user", "content": text}]


def _turns(*texts: str) -> list[Mapping[str, str]]:
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]
