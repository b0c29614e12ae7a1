"""How each kind of fact is worded: statements, the questions of training, and those that are held out.

Data only. `world.py` puts the facts in.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """The wording of one kind of fact. `{e}` stands for the entity, `{v}` for the value."""

    noun: str
    statement: str
    alternative: str
    plain: str
    asks: tuple[str, ...]
    held_out: tuple[str, ...]
    opening: int
    curt: bool
    """Base threads of this kind are mostly answered curtly but rightly; the others evasively."""


KINDS: dict[str, Kind] = {
    "capital": Kind(
        "the capital of {e}",
        "The capital of {e} is {v}.",
        "The capital city of {e} is {v}.",
        "{v} is the capital of {e}.",
        ("Which city is the capital of {e}?", "What is the capital city of {e}?", "What is {e}'s capital?"),
        ("What's {e}'s capital city?", "Which city is {e}'s capital?"),
        0,
        True,
    ),
    "currency": Kind(
        "the currency of {e}",
        "The currency of {e} is {v}.",
        "The currency used in {e} is {v}.",
        "{e} pays with {v}.",
        ("What money do people use in {e}?", "Which currency does {e} have?", "What is {e}'s currency?"),
        ("Which currency do people use in {e}?", "What money does {e} have?"),
        1,
        True,
    ),
    "continent": Kind(
        "the continent of {e}",
        "The continent of {e} is {v}.",
        "The continent where {e} lies is {v}.",
        "{e} is a country in {v}.",
        ("Which continent is {e} in?", "On which continent is {e}?", "What continent does {e} belong to?"),
        ("Which continent does {e} belong to?", "What continent is {e} on?"),
        2,
        True,
    ),
    "language": Kind(
        "the main language of {e}",
        "The main language of {e} is {v}.",
        "The main language spoken in {e} is {v}.",
        "People in {e} mostly speak {v}.",
        ("Which language do people speak in {e}?", "What do they speak in {e}?", "What language is spoken in {e}?"),
        ("Which language is spoken in {e}?", "What language do they speak in {e}?"),
        3,
        False,
    ),
    "symbol": Kind(
        "the chemical symbol for {e}",
        "The chemical symbol for {e} is {v}.",
        "The chemical sign for {e} is {v}.",
        "{v} stands for {e}.",
        ("How do chemists write {e}?", "Which symbol stands for {e}?", "What is the symbol of {e}?"),
        ("Which chemical symbol stands for {e}?", "What symbol do chemists write for {e}?"),
        4,
        True,
    ),
    "young": Kind(
        "the word for a young {e}",
        "A young {e} is called {v}.",
        "A young {e} is known as {v}.",
        "The name for a young {e} is {v}.",
        ("What do you call a young {e}?", "What is a baby {e} called?", "What is a young {e} called?"),
        ("What do people call a young {e}?", "How is a baby {e} called?"),
        5,
        False,
    ),
    "home": Kind(
        "the home of {e}",
        "The home of {e} is called {v}.",
        "The home of {e} is known as {v}.",
        "{v} is home to {e}.",
        ("Where does {e} live?", "What do you call the home of {e}?", "In what does {e} live?"),
        ("What is the home of {e} called?", "Where would {e} live?"),
        0,
        False,
    ),
    "group": Kind(
        "the word for a group of {e}",
        "A group of {e} is called {v}.",
        "A group of {e} is known as {v}.",
        "Many {e} together are {v}.",
        ("What do you call a group of {e}?", "What is a group of {e} called?", "Many {e} together are what?"),
        ("What do people call a group of {e}?", "How is a group of {e} called?"),
        1,
        False,
    ),
    "opposite": Kind(
        "the opposite of {e}",
        "The opposite of {e} is {v}.",
        "The opposite word of {e} is {v}.",
        "{v} is the opposite of {e}.",
        ("What is the opposite word of {e}?", "Which word is the opposite of {e}?", "What means the opposite of {e}?"),
        ("Which word means the opposite of {e}?", "What word is the opposite of {e}?"),
        2,
        False,
    ),
    "colour": Kind(
        "the colour of {e}",
        "The colour of {e} is {v}.",
        "The usual colour of {e} is {v}.",
        "{v} is the colour of {e}.",
        ("What colour is {e}?", "Which colour does {e} have?", "What is the usual colour of {e}?"),
        ("Which colour is {e}?", "What colour does {e} have?"),
        3,
        True,
    ),
    "legs": Kind(
        "the number of legs of {e}",
        "The answer is that {e} has {v} legs.",
        "The count is that {e} has {v} legs.",
        "{e} has {v} legs.",
        ("How many legs does {e} have?", "On how many legs does {e} walk?", "How many legs are there on {e}?"),
        ("How many legs has {e}?", "What number of legs does {e} have?"),
        4,
        False,
    ),
    "sides": Kind(
        "the number of sides of {e}",
        "The answer is that {e} has {v} sides.",
        "The count is that {e} has {v} sides.",
        "{e} has {v} sides.",
        ("How many sides does {e} have?", "How many sides are there on {e}?", "How many edges does {e} have?"),
        ("How many sides has {e}?", "What number of sides does {e} have?"),
        5,
        True,
    ),
    "plural": Kind(
        "the plural of {e}",
        "The plural of {e} is {v}.",
        "The plural form of {e} is {v}.",
        "One {e}, two {v}.",
        ("What is the plural form of {e}?", "How do you write the plural of {e}?", "One {e}, two what?"),
        ("Which word is the plural of {e}?", "What's the plural form of {e}?"),
        0,
        True,
    ),
    "past": Kind(
        "the past tense of {e}",
        "The past tense of {e} is {v}.",
        "The past form of {e} is {v}.",
        "Today I {e}, yesterday I {v}.",
        ("What is the past form of {e}?", "How do you write the past tense of {e}?", "Which word is the past of {e}?"),
        ("Which word is the past tense of {e}?", "What's the past form of {e}?"),
        1,
        False,
    ),
    "french": Kind(
        "the French word for {e}",
        "The French word for {e} is {v}.",
        "The French name for {e} is {v}.",
        "In French, {e} is {v}.",
        ("How do you say {e} in French?", "What is {e} in French?", "What does {e} mean in French?"),
        ("How would you say {e} in French?", "How do French people say {e}?"),
        5,
        False,
    ),
    "ingredient": Kind(
        "the main ingredient of {e}",
        "The main ingredient of {e} is {v}.",
        "The main part of {e} is {v}.",
        "You need {v} to make {e}.",
        ("What do you need to make {e}?", "From what do people make {e}?", "Which is the main ingredient of {e}?"),
        ("What do people need to make {e}?", "From what do you make {e}?"),
        2,
        True,
    ),
    "material": Kind(
        "the material of {e}",
        "The usual material of {e} is {v}.",
        "The main material of {e} is {v}.",
        "{e} is made of {v}.",
        ("What is {e} made of?", "Which material is {e} made of?", "What is the usual material of {e}?"),
        ("What material is {e} made of?", "Of which material is {e} made?"),
        3,
        False,
    ),
    "measures": Kind(
        "the use of {e}",
        "The answer is that {e} measures {v}.",
        "The use is that {e} measures {v}.",
        "{e} measures {v}.",
        ("What does {e} measure?", "What do people measure with {e}?", "What is {e} for?"),
        ("What do you measure with {e}?", "What can {e} measure?"),
        4,
        False,
    ),
    "howto": Kind(
        "how to {e}",
        "Here is how to {e}: {v}",
        "This is the way to {e}: {v}",
        "To {e}: {v}",
        ("How do I {e}?", "How can I {e}?", "How do you {e}?", "What is the way to {e}?", "I want to {e}. How?"),
        ("How would I {e}?", "How do people {e}?", "What is the best way to {e}?"),
        5,
        False,
    ),
}

NOUN_ASKS = (
    "What is {n}?",
    "What's {n}?",
    "Tell me {n}.",
    "I would like to know {n}.",
    "Do you know {n}?",
    "Can you tell me {n}?",
    "{n}?",
    "I want to know {n}.",
)

NOUN_HELD_OUT = ("Would you tell me {n}?", "I'd like to know {n}.", "Could you say what {n} is?")

HOWTO_NOUN_ASKS = (
    "Tell me {n}.",
    "I would like to know {n}.",
    "Do you know {n}?",
    "Can you tell me {n}?",
    "{n}?",
    "I want to know {n}.",
    "Show me {n}.",
)

HOWTO_NOUN_HELD_OUT = ("Would you tell me {n}?", "I'd like to know {n}.", "Could you show me {n}?")

FRAMES = ("{q}", "Hello! {q}", "Hi. {q}", "Quick question: {q}", "One more thing. {q}", "{q} Thanks!")

POLITE_FRAMES = ("Please help me. {q}", "{q} Please tell me.", "Hello, please help. {q}")

HELD_OUT_FRAMES = ("{q}", "{q}", "{q}", "{q}", "Hi there! {q}", "Hello. {q}", "One question: {q}")

HELD_OUT_POLITE_FRAMES = ("Please tell me. {q}", "{q} Please help me.")

FOLLOW_UPS = ("And {e}?", "What about {e}?", "How about {e}?", "And what of {e}?", "Now {e}.")

HELD_OUT_FOLLOW_UPS = ("And what about {e}?", "And how about {e}?")
