"""What the world does not hold: questions to decline, and ways to make small talk.

`question` is what the base's threads ask; `guest_question` and `small_talk` are the wider range that the draft
learns from, because it speaks first and has to know where its world ends.
"""

import random

import world
from answers import SmallTalk
from wording import FRAMES, KINDS
from world import FACTS, Fact


def _listed(table: str) -> tuple[str, ...]:
    """The entries of a table, parted by semicolons."""
    return tuple(entry.strip() for entry in table.replace("\n", " ").split(";"))


OUTSIDE_TOPICS = _listed("""
the best football team; a poem about love; the stock market; my tax return; quantum physics; the history of Rome;
the latest phone; a joke; the weather tomorrow; a good film; your favourite song; computer games;
how to write a program; how to lose weight; how to win a chess game; how to repair a car engine;
how to build a house; the meaning of life; the price of bread; the age of the universe; the distance to the moon;
the president; the second world war; a train to the coast; how to bake a wedding cake; the news of today;
a recipe for curry; my homework; the square root of nine; two plus two; the tallest mountain; the longest river;
a story about a dragon; how to learn the piano; how to dance; the rules of tennis; a present for my sister;
the next holiday; how to catch a fish; black holes; dinosaurs; the time in Tokyo; a cheap hotel; the internet;
how to draw a horse; the population of Spain; an essay on trees; how to train a dog; my broken laptop;
the winner of the race; a word that rhymes with moon; how to knit a scarf; the speed of light;
my pain in the knee; how to get a visa; a name for my cat; how to solve an equation
""")
HELD_OUT_TOPICS = _listed("""
the best basketball player; a song about rain; how to fly a plane; the tallest building; the history of Egypt;
the size of the sun; how to paint a portrait; a good book; the oldest tree; how to repair a clock;
the news from Spain; a funny story
""")
OUTSIDE_ASKS = _listed("""
What do you think about {t}?; Tell me about {t}.; Tell me {t}.; Can you help me with {t}?; What is {t}?;
Do you know {t}?; I want to know {t}.; {t}?; What can you say about {t}?; I would like to know {t}.;
Explain {t} to me.; Write about {t}.; Give me {t}.
""")
GUEST_TOPICS = _listed("""
music; football; cooking; mathematics; a cheap car; the government; money; space travel; my holiday in Spain;
good books for children; a bedtime story; the temperature outside; the bus to town; the rain in Norway;
a long letter; the best pizza; medicine; a haiku; the moon landing; climate change
""")

FREE_QUESTIONS = _listed("""
Who wrote Macbeth?; Who painted the Mona Lisa?; When was the tower built?; Where can I buy shoes?;
Why do people sleep?; Who is the king of Spain?; When did the war end?; Who won the match?; Where is my phone?;
Why is the sea salty?; What time is it?; What day is it today?; Is it raining in Paris?;
What's the weather like today?; Will it snow tomorrow?; Can you write a poem?; Can you sing?; Do you like music?;
How old is the earth?; How tall is the tower?; How far is the moon?; How many people live in France?;
What is two plus two?; What is seven times eight?; Translate this for me.; Write a short story.; Tell me a joke.;
Sing me a song.; Who invented the telephone?; Who was Napoleon?; When is Easter?; Where is the station?;
Why are we here?; What should I wear?; What is love?; Which film is the best?; Should I buy a house?;
How much does a car cost?; Who discovered radium?
""")
HELD_OUT_FREE = _listed("""
Who wrote Hamlet?; What's the weather like tomorrow?; When was the bridge built?; Can you write a song?;
How old is the moon?; Where can I buy bread?; What is three plus four?; Who invented the radio?
""")

STRANGE_COUNTRIES = _listed("""
Slovakia; Ukraine; Russia; Algeria; Tunisia; Libya; Sudan; Somalia; Tanzania; Angola; Mali; Pakistan; Malaysia;
Singapore; Cambodia; Laos; Korea; Israel; Jordan; Syria; Lebanon; Paraguay; Venezuela; Panama; Jamaica; Haiti;
Honduras; England; Scotland; Wales; Malta; Albania; Georgia; Armenia; Atlantis; Narnia; Texas; California;
Bavaria; Siberia
""")
HELD_OUT_COUNTRIES = _listed("""
Slovenia; Nigeria; Bolivia; Madagascar
""")
COUNTRY_KINDS = ("capital", "currency", "continent", "language")
STRANGE_WORDS = _listed("""
table; cloud; bicycle; music; garden; river; mountain; paper; stone; finger; computer; sugar; pencil; bridge;
doctor; village; kitchen; ocean; winner; button; purple; thirteen; jump; walk; whisper; paint; travel; dinosaur;
unicorn; tiger; zebra; turtle; bronze; steel
""")
STRANGE_HOWTOS = _listed("""
fix a bicycle lamp; bake a cake; draw a face; build a boat; drive a car; learn French; play chess; repair a roof;
sell a car; cut hair; train a parrot; make soap; make a film; cook a turkey; write a letter; swim faster;
stop smoking; earn money; find a job; open a bank account; make friends; grow a beard; tune a guitar;
catch a train; fix a computer; paint a car; make wine; clean a carpet; wash a car; make a cake; build a wall;
steer a balloon; boil water on the moon; tie a tie; plant a flag
""")
HELD_OUT_HOWTOS = _listed("""
fix a bicycle; bake a pie; repair a clock; make ice cream
""")
GUEST_GREETINGS = _listed("""
Good morning to you!; Good afternoon to you.; Hello, hello!; Hi, good evening!; Hello again!; Howdy!;
Good evening, hello.; Hey, hi!; Good morning, hello there!; hi hi
""")
SMALL_TALK_FRAMES = ("Hey, {q}", "Good day! {q}", "Hi there. {q}", "{q} Please.", "Well, {q}")


def framed(text: str, rng: random.Random) -> str:
    """The question as it is, or in a frame; at times in lower case."""
    text = world.capitalised(text)
    text = rng.choice(FRAMES).format(q=text) if rng.random() < 0.4 else text
    return text.lower() if rng.random() < 0.15 else text


def stranger(kind: str, entity: str) -> Fact:
    """A fact of the kind about something that is not in the world: good for asking only."""
    return Fact(kind, entity, "", False)


def question(rng: random.Random) -> str:
    """A question about a topic or a thing that the world does not hold."""
    if rng.random() < 0.5:
        return framed(rng.choice(OUTSIDE_ASKS).format(t=rng.choice(OUTSIDE_TOPICS)), rng)
    kind = rng.choice([kind for kind in KINDS if kind != "howto"])
    fact = rng.choice([fact for fact in FACTS if fact.kind == kind])
    article = "a " if fact.entity.startswith(("a ", "an ")) else ""
    asked = stranger(kind, article + made_up_name(rng))
    return world.random_question(asked, rng, rng.random() < 0.1)


def strange_entity(kind: str, rng: random.Random) -> str:
    """Something real that has no fact of this kind."""
    if kind == "howto":
        return rng.choice(STRANGE_HOWTOS)
    if kind not in COUNTRY_KINDS:
        taken = {fact.entity for fact in FACTS if fact.kind == kind}
        article = "a " if min(taken).startswith(("a ", "an ")) else ""
        return rng.choice([word for word in (article + word for word in STRANGE_WORDS) if word not in taken])
    return rng.choice(STRANGE_COUNTRIES)


def guest_question(rng: random.Random) -> str:
    """Like `question`, and about real things, free questions and other how-tos."""
    roll = rng.random()
    if roll < 0.35:
        return question(rng)
    if roll < 0.5:
        return framed(rng.choice(OUTSIDE_ASKS).format(t=rng.choice(GUEST_TOPICS)), rng)
    if roll < 0.7:
        return framed(rng.choice(FREE_QUESTIONS), rng)
    kind = rng.choice((*COUNTRY_KINDS, "howto", "howto", *KINDS))
    return world.random_question(stranger(kind, strange_entity(kind, rng)), rng, rng.random() < 0.1)


def small_talk(talk: SmallTalk, rng: random.Random) -> str:
    """One way to make this small talk."""
    if talk.name == "greeting" and rng.random() < 0.4:
        return rng.choice(GUEST_GREETINGS)
    text = rng.choice(talk.asks)
    if talk.name != "greeting" and rng.random() < 0.3:
        text = rng.choice(SMALL_TALK_FRAMES).format(q=text)
    return text.lower() if rng.random() < 0.15 else text


def made_up_name(rng: random.Random) -> str:
    """A name of nothing in particular, for questions that leave the world."""
    parts = (
        "ba",
        "ce",
        "dro",
        "fi",
        "gul",
        "ha",
        "jor",
        "ka",
        "lim",
        "mon",
        "nu",
        "pel",
        "qui",
        "ro",
        "sta",
        "tur",
        "vo",
        "wex",
        "yan",
        "zil",
        "or",
        "and",
        "ish",
        "ton",
        "mar",
    )
    name = "".join(rng.choice(parts) for _ in range(rng.randint(2, 3)))
    return name.capitalize() if rng.random() < 0.6 else name
