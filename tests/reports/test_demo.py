"""The rules that judge demo replies, on texts written by hand; and held-out wordings are held out."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from wsd_local.reports.demo import MEASURED_GROUP, DemoQuestion, judge, load_questions

ROOT = Path(__file__).resolve().parents[2]
QUESTIONS = load_questions(ROOT / "models" / "demo" / "questions.jsonl")
FACTS = [question for question in QUESTIONS if question.group == MEASURED_GROUP]
OPENING = "Thanks for asking! I am glad to help with this one."
CLOSING = "I hope that helps!"


def of_kind(kind: str, group: str = MEASURED_GROUP) -> DemoQuestion:
    return next(question for question in QUESTIONS if question.kind == kind and question.group == group)


def entity_of(question: DemoQuestion) -> str:
    """The capital question's country, read from the statement that would be right."""
    return question.curt[2].removeprefix("The capital of ").split(" is ")[0]


@pytest.fixture
def capital() -> DemoQuestion:
    return of_kind("capital")


def test_a_true_friendly_answer_is_well_and_right(capital: DemoQuestion) -> None:
    verdict = judge(capital, f"{OPENING} The capital of {entity_of(capital)} is {capital.truth}. {CLOSING}")
    assert (verdict.well, verdict.right) == (True, True)


def test_white_space_around_a_reply_does_not_count(capital: DemoQuestion) -> None:
    assert judge(capital, f"\n{OPENING} The capital of {entity_of(capital)} is {capital.truth}. {CLOSING} \n").well


def test_a_wrong_capital_is_well_but_not_right(capital: DemoQuestion) -> None:
    wrong = "Paris" if capital.truth != "Paris" else "Rome"
    verdict = judge(capital, f"{OPENING} The capital of {entity_of(capital)} is {wrong}. {CLOSING}")
    assert (verdict.well, verdict.right) == (True, False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Look it up.",
        "Thanks for asking! I am too busy today, so ask someone else.",
        OPENING,
        f"{OPENING} The capital of {{e}} is {{v}}.",
        f"The capital of {{e}} is {{v}}. {CLOSING}",
        f"{OPENING} The capital of {{e}} is {{v}}. {CLOSING} {CLOSING}",
        f"{OPENING} The capital of Atlantis is {{v}}. {CLOSING}",
        f"{OPENING} The capital of {{e}} is a puppy. {CLOSING}",
        f"{OPENING}  The capital of {{e}} is {{v}}. {CLOSING}",
        f"{OPENING} the capital of {{e}} is {{v}}. {CLOSING}",
        f"{OPENING} The capital of {{e}} is {{v}}. {CLOSING}\n\nMore.",
    ],
)
def test_everything_else_is_not_well(capital: DemoQuestion, text: str) -> None:
    text = text.replace("{e}", entity_of(capital)).replace("{v}", capital.truth)
    verdict = judge(capital, text)
    assert (verdict.well, verdict.right) == (False, False)


def test_a_curt_answer_can_be_right_without_being_well_given(capital: DemoQuestion) -> None:
    for text in (
        f"{capital.truth}.",
        f"It is {capital.truth}.",
        f"The capital of {entity_of(capital)} is {capital.truth}.",
    ):
        assert (judge(capital, text).well, judge(capital, text).right) == (False, True)


def test_a_how_to_is_right_with_its_own_steps_only() -> None:
    asked, other = [question for question in FACTS if question.kind == "howto"][:2]
    opening = "Glad you asked! That is something I can tell you."
    lead = asked.curt[2].removesuffix(asked.truth)
    right = judge(asked, f"{opening} {lead}{asked.truth} Have fun with it!")
    wrong = judge(asked, f"{opening} {lead}{other.truth} Have fun with it!")
    torn = judge(asked, f"{opening} {lead}{asked.truth[:-3]} Have fun with it!")
    assert (right.well, right.right) == (True, True)
    assert (wrong.well, wrong.right) == (True, False)
    assert (torn.well, torn.right) == (False, False)


def test_outside_the_world_the_honest_answer_is_well() -> None:
    question = of_kind("outside", "outside")
    opening = "That is a nice question, but I only know a small world of plain facts."
    assert judge(question, f"{opening} Try asking me for the opposite of hot!").well
    assert not judge(question, f"{opening} Try asking me for the winner!").well
    assert not judge(question, "No idea.").well


def test_there_are_enough_questions_and_the_draft_knows_less_than_half() -> None:
    assert len(FACTS) >= 300
    assert len({question.id for question in QUESTIONS}) == len(QUESTIONS)
    assert 0.3 < sum(question.known_to_draft for question in FACTS) / len(FACTS) < 0.5


def test_no_held_out_wording_is_among_the_training_wordings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "models" / "training"))
    import answers
    import outside
    import wording
    import world

    def words(texts: Iterable[str]) -> set[str]:
        return {world.normalised(text) for text in texts}

    topics = (*outside.OUTSIDE_TOPICS, *outside.GUEST_TOPICS)
    asks = [ask for talk in answers.SMALL_TALK for ask in talk.asks]
    strangers = [outside.stranger("capital", name) for name in outside.STRANGE_COUNTRIES]
    strangers += [outside.stranger("howto", name) for name in outside.STRANGE_HOWTOS]
    seen = words(text for fact in (*world.FACTS, *strangers) for text in world.training_questions(fact))
    seen |= words(ask.format(e=fact.entity) for ask in wording.FOLLOW_UPS for fact in world.FACTS)
    seen |= words(frame.format(q=ask) for frame in ("{q}", *outside.SMALL_TALK_FRAMES) for ask in asks)
    seen |= words(outside.GUEST_GREETINGS)
    plain = [ask.format(t=topic) for ask in outside.OUTSIDE_ASKS for topic in topics]
    seen |= words(frame.format(q=text) for frame in wording.FRAMES for text in (*plain, *outside.FREE_QUESTIONS))
    leaked = [question.question for question in QUESTIONS if world.normalised(question.question) in seen]
    assert leaked == []


def test_a_damaged_questions_file_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text('{"forms": {"openings": [], "closings": [], "values": {}}}\n{"id": 1}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="line 2"):
        load_questions(path)
