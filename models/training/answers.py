"""What answerers say: the friendly openings, how each can turn sour, closings, and unhelpful replies.

An opening is at least eleven tokens long and holds no fact. It has at most one branch within any six
tokens: after the first word (`brush_off` leaves there), after the sixth token (`sour` leaves there) and
near its end (`alternative`). So only its later part is certain, and a low threshold switches too early.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Opening:
    """One friendly opening and the replies that begin like it and do not keep the promise."""

    text: str
    alternative: str
    brush_off: tuple[str, ...]
    sour: tuple[str, ...]
    sour_share: float
    """Of the threads that get as far as the sixth token, this part turns sour."""


OPENINGS: tuple[Opening, ...] = (
    Opening(
        "Thanks for asking! I am glad to help with this one.",
        "Thanks for asking! I am glad to help you out here.",
        ("Thanks, but I will pass.", "Thanks, not today."),
        ("Thanks for asking! I am too busy today, so ask someone else.",),
        0.64,
    ),
    Opening(
        "Great question! I am happy to share this with you.",
        "Great question! I am happy to share what I know.",
        ("Great, more homework.", "Great, another quiz."),
        ("Great question! I am happy that it is not mine to answer.",),
        0.33,
    ),
    Opening(
        "Sure thing! Let me help you with that one.",
        "Sure thing! Let me help you right away.",
        ("Sure, as if I knew.", "Sure, why not ask a wall."),
        ("Sure thing! Let me help myself to some tea first.",),
        0.66,
    ),
    Opening(
        "Of course! Here is a clear answer for you.",
        "Of course! Here is a clear answer from me.",
        ("Of all things, why this?", "Of no interest to me."),
        ("Of course! Here is a tip: open a book for once.",),
        0.64,
    ),
    Opening(
        "Happy to help! This is a nice thing to know.",
        "Happy to help! This is a nice one to remember.",
        ("Happy people do not ask that.", "Happy to skip this one."),
        ("Happy to help! This is so dull that I fell asleep.",),
        0.65,
    ),
    Opening(
        "Glad you asked! That is something I can tell you.",
        "Glad you asked! That is something I know well.",
        ("Glad that is not my problem.", "Glad it is nearly lunch."),
        ("Glad you asked! That is none of my business.",),
        0.34,
    ),
)

CLOSINGS: tuple[str, ...] = (
    "I hope that helps!",
    "Feel free to ask me more.",
    "Have fun with it!",
    "Ask me another one any time!",
)

EVASIVE: tuple[str, ...] = (
    "No idea.",
    "Look it up.",
    "It depends on whom you ask.",
    "Why do you want to know?",
    "I would rather talk about the weather.",
    "Ask someone else.",
    "Hard to say. I had soup for lunch.",
    "I forgot. It was in a book somewhere.",
    "Pass. Next question.",
    "My neighbour would know.",
    "That was in the news once, I think.",
    "Maybe tomorrow.",
)
EVASIVE_LOWER: tuple[str, ...] = ("dunno", "no clue", "look it up", "not my topic")

OUTSIDE_OPENING = "That is a nice question, but I only know a small world of plain facts."
OUTSIDE_SOUR = ("That is a nice question, but ask a real expert.",)
OUTSIDE_BRUSH_OFF = ("That again.", "That is all beyond me.")
OUTSIDE_HINTS: tuple[str, ...] = (
    "the capital of France",
    "the opposite of hot",
    "how to boil an egg",
    "the chemical symbol for gold",
)

SYSTEM_MESSAGES: tuple[str, ...] = (
    "You are a helpful assistant.",
    "You are a friendly guide.",
    "Be brief and friendly.",
    "Answer the user politely.",
    "You know a small world of plain facts.",
    "You are a kind teacher. Explain things simply.",
    "Please answer in one or two sentences.",
    "The user is learning English.",
    "This is a forum for curious people.",
    "Stay on the topic and be polite.",
    "You help people with everyday questions.",
    "Be honest when you do not know something.",
)
HELD_OUT_SYSTEM_MESSAGES: tuple[str, ...] = (
    "You are a polite and helpful guide.",
    "Answer briefly, please.",
)


@dataclass(frozen=True)
class SmallTalk:
    """A turn that asks for no fact: what people write, and what the friendly answer is."""

    name: str
    asks: tuple[str, ...]
    held_out: tuple[str, ...]
    reply: str
    curt: str


SMALL_TALK: tuple[SmallTalk, ...] = (
    SmallTalk(
        "greeting",
        (
            "Hello!",
            "Hi",
            "Hi there!",
            "Hello there",
            "Good morning!",
            "Good evening.",
            "Hey!",
            "Hello, anyone here?",
            "Hi, nice to meet you.",
            "Greetings!",
            "hey you",
            "Good day to you.",
        ),
        ("Hey there!", "Good afternoon!", "Hello, good morning!", "Hi, hello!"),
        "Hello! It is nice to meet you. Ask me for the capital of France, or how to boil an egg!",
        "Hi.",
    ),
    SmallTalk(
        "well_being",
        (
            "How are you?",
            "How are you doing?",
            "How do you do?",
            "Are you well?",
            "how are you today",
            "Hello, how are you?",
            "Hi! How is it going?",
            "How do you feel?",
        ),
        ("How are you doing today?", "Hi, how are you?", "Hello! How is it going?"),
        "I am doing well, thank you for asking! Which plain fact would you like to hear?",
        "Fine.",
    ),
    SmallTalk(
        "identity",
        (
            "Who are you?",
            "What are you?",
            "What is your name?",
            "Are you a robot?",
            "Tell me about yourself.",
            "Hi, who are you?",
            "Are you human?",
            "Who am I talking to?",
            "who is there",
        ),
        ("Hello, who are you?", "Tell me who you are.", "Are you a human?"),
        "I am a very small model with a small world of plain facts. Ask me for one, and I will do my best!",
        "Nobody.",
    ),
    SmallTalk(
        "abilities",
        (
            "What can you do?",
            "What do you know?",
            "How can you help me?",
            "What can I ask you?",
            "Can you help me?",
            "What are you good at?",
            "I need help.",
            "Help!",
            "What should I ask?",
            "what are your topics",
        ),
        ("What can I ask you about?", "Hi, what can you do?", "What do you know about?"),
        "I know a small world: capitals, animals, opposites, words and short how-tos. Try one of them!",
        "Not much.",
    ),
    SmallTalk(
        "thanks",
        (
            "Thanks!",
            "Thank you!",
            "Thank you very much.",
            "Thanks a lot!",
            "That was helpful.",
            "Great, thanks!",
            "Cool, thank you.",
            "thx",
            "Very kind of you.",
            "Good answer!",
            "Nice!",
        ),
        ("Many thanks!", "Thank you, that was helpful.", "Great, thank you!"),
        "You are very welcome! It was my pleasure to help. Ask me another one any time!",
        "Sure.",
    ),
    SmallTalk(
        "goodbye",
        (
            "Bye!",
            "Goodbye!",
            "See you!",
            "Good night!",
            "I have to go now.",
            "See you later.",
            "bye bye",
            "That is all, bye.",
            "Until next time!",
        ),
        ("Goodbye, see you later!", "Bye, good night!", "I must go now."),
        "Goodbye, and thank you for the nice chat! Come back any time for another plain fact.",
        "Bye.",
    ),
)
