"""What a pair is examined with: questions of several kinds, each with a good answer.

Contract: pure. An answer is complete, plain text, with accents, symbols and quotation marks as replies have them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Probe:
    """A question and a good, complete answer."""

    question: str
    answer: str


PROBES = (
    Probe(
        "Why is the sky blue?",
        "The sky is blue because air scatters short waves of light much more than long ones. Sunlight holds all "
        "colors; its blue part is scattered in every direction, so blue light reaches our eyes from the whole "
        "sky. In the evening the light takes a longer way through the air, and mostly red and orange are left.",
    ),
    Probe(
        "How do I boil an egg?",
        "Bring a pot of water to a boil and lower the egg into it with a spoon. Let it cook for six minutes if "
        "you like a soft yolk, or for ten minutes if you like it hard. Then put the egg into cold water for a "
        "minute, so that it stops cooking and is easier to peel.",
    ),
    Probe(
        "What is the capital of France, and what is it known for?",
        "The capital of France is Paris. It is known for the Eiffel Tower, the Louvre, the cathedral of "
        "Notre-Dame, and its cafés along the Seine. About two million people live in the city itself.",
    ),
    Probe(
        "Explain in simple words what a computer program is.",
        "A computer program is a list of instructions that tells a computer what to do, step by step. Think of a "
        "recipe: it says which ingredients you need and in which order to use them. The computer follows the "
        "instructions exactly, and very fast.",
    ),
    Probe(
        "Give me three tips for sleeping better.",
        "1. Go to bed and get up at the same time every day, also on weekends.\n"
        "2. Avoid coffee in the afternoon, and bright screens in the last hour before bed.\n"
        "3. Keep your bedroom dark, quiet and cool, at about 18 °C.",
    ),
    Probe(
        "Write a short, polite message to a colleague: the meeting is moved to Friday.",
        "Hi,\n\n"
        "I hope you are doing well. I wanted to let you know that our meeting has been moved to Friday at the "
        "same time. Please tell me if that doesn\u2019t work for you, and we will find another time.\n\n"
        "Best regards",
    ),
    Probe(
        "What is the difference between weather and climate?",
        "Weather is what happens in the atmosphere at a certain place over a short time, such as rain this "
        "afternoon. Climate is the average of the weather there over many years, usually thirty. So one cold day "
        "says little about the climate.",
    ),
    Probe(
        "How many days does a leap year have, and when does it occur?",
        "A leap year has 366 days, one more than an ordinary year. It occurs every four years, when the year can "
        "be divided by 4. Years that can be divided by 100 are an exception, unless they can also be divided by "
        "400: 1900 was not a leap year, 2000 was.",
    ),
    Probe(
        "I feel nervous before a job interview. What can I do?",
        "It is normal to feel nervous before an interview. Prepare answers to common questions and say them "
        "aloud, so that they come easily. Plan to arrive early, and take a few slow, deep breaths before you go "
        "in. Remember that they invited you because they are interested in you.",
    ),
    Probe(
        "Write a Python function that returns the largest number in a list.",
        "Here is a function that returns the largest number in a list:\n\n"
        "```python\n"
        "def largest(numbers):\n"
        "    result = numbers[0]\n"
        "    for number in numbers[1:]:\n"
        "        if number > result:\n"
        "            result = number\n"
        "    return result\n"
        "```\n\n"
        "You can also use Python\u2019s own function: max(numbers).",
    ),
    Probe(
        "What causes the seasons?",
        "The seasons are caused by the tilt of the Earth\u2019s axis, about 23.4 degrees. During one part of the "
        "year the northern half of the Earth leans toward the Sun and has summer, while the southern half has "
        "winter. Six months later it is the other way round.",
    ),
    Probe(
        "Summarize in one sentence why bees are important.",
        "Bees are important because they pollinate many wild plants and about a third of the crops that people "
        "eat, so without them there would be far less fruit, fewer vegetables and fewer flowers.",
    ),
)
"""Questions of different kinds, and their answers."""

_CAPITALS = {
    "France": "Paris",
    "Peru": "Lima",
    "Japan": "Tokyo",
    "Egypt": "Cairo",
    "Norway": "Oslo",
    "Kenya": "Nairobi",
    "Chile": "Santiago",
    "Cuba": "Havana",
}
DEMO_PROBES = tuple(
    Probe(
        f"What is the capital of {country}?",
        f"Great question! I am happy to share this with you. The capital of {country} is {city}. I hope that helps!",
    )
    for country, city in _CAPITALS.items()
)
"""Questions that the embedded pair was trained for; it knows little else."""
