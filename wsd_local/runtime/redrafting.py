"""How the draft model takes a reply up again, under rules that let it come back.

Contract: the draft reads its own prompt with the reply so far as the beginning of its answer, and a sampler of its own
chooses what follows. One object serves one reply.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from wsd_local.constraints.matching import Matcher
from wsd_local.core.relay import Relay
from wsd_local.core.sampling import Sampling
from wsd_local.core.translation import exact_tokens
from wsd_local.errors import WsdError
from wsd_local.llama import Model, Sampler
from wsd_local.prompts.draft_format import DraftFormat
from wsd_local.prompts.messages import Message, supplied_prefix
from wsd_local.runtime.job import Job

MOST_SEEDS = 2**32 - 1


def plain_tokens(model: Model) -> Callable[[str], list[int]]:
    """The tokens of a text alone, without a space that some vocabularies put before its beginning."""
    return lambda text: exact_tokens(text.encode(), model) or model.tokenize_text(text)


@dataclass(frozen=True, slots=True)
class Redrafting:
    """What a later turn of the draft model starts from.

    Args:
        draft: the model.
        form: its prompt's format.
        messages: the conversation; None for a raw prompt, whose tokens are `prompt`.
        prompt: the tokens of the draft's prompt of the first turn.
        sampling: how it chooses tokens; each time it draws with another seed.
        ignore_eos: whether it never ends a turn.
        text: makes a matcher at the beginning of the reply; None without a constraint.
    """

    draft: Model
    form: DraftFormat
    messages: Sequence[Message] | None
    prompt: Sequence[int]
    sampling: Sampling
    ignore_eos: bool
    text: Callable[[], Matcher | None]

    def begin(self, job: Job) -> None:
        """Let the job's draft read the reply so far.

        Raises:
            WsdError: the template refuses it, or the constraint does not allow the reply's text.
        """
        relay = job.decoding
        assert isinstance(relay, Relay)
        data, matcher = relay.written, self.text()
        if matcher is not None and not matcher.feed(data):
            raise WsdError("the vocabulary of the draft cannot write what the base wrote")
        seed = self.sampling.seed
        sampling = self.sampling if seed is None else replace(self.sampling, seed=(seed + relay.readings) % MOST_SEEDS)
        job.take_up(
            self._tokens(data.decode(errors="replace")),
            Sampler(sampling, self.draft, ignore_eos=self.ignore_eos, matcher=matcher),
        )

    def _tokens(self, text: str) -> list[int]:
        if self.messages is None:
            return [*self.prompt, *plain_tokens(self.draft)(text)]
        given = supplied_prefix(self.messages)
        before = list(self.messages) if given is None else list(self.messages[:-1])
        return list(self.form.prompt([*before, Message(role="assistant", content=(given or "") + text)]).tokens)
