"""A reply as Markdown in which two writers can be told apart.

Contract: the source carries `SWITCH` where the base took over. What stands before it is shown in the draft's style
(component class `s`, which strikethrough gives up for it), and the mark itself as `label`.
"""

from __future__ import annotations

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from textual.widgets import Markdown

SWITCH = "\ue000"
"""A private character that no text has: stripped from what models write."""


class ReplyMarkdown(Markdown):
    """Markdown of one reply. `label` is what the mark says; `drafted`: a text without a mark is the draft's."""

    DEFAULT_CSS = """
    ReplyMarkdown {
        padding: 0;
        & > MarkdownBlock > .s, & MarkdownBlock > .s { text-style: italic; color: $text-primary; }
        & MarkdownParagraph:last-child { margin: 0; }
    }
    """

    def __init__(self, source: str = "", *, label: str = "", drafted: bool = True) -> None:
        self.label = label
        self.drafted = drafted
        super().__init__(source, parser_factory=self._parser, open_links=False)

    def _parser(self) -> MarkdownIt:
        parser = MarkdownIt("gfm-like", {"linkify": False}).disable("strikethrough")
        parser.core.ruler.push("writers", self._tell_apart)
        return parser

    def _tell_apart(self, state: StateCore) -> None:
        """Mark the draft's part in the tokens of one parse, which may be the end of the source only."""
        here = any(SWITCH in token.content for token in state.tokens)
        drafting = here or (self.drafted and SWITCH not in self.source)
        for token in state.tokens:
            if not drafting:
                return
            if token.type == "inline":
                drafting = self._mark(token)
            elif SWITCH in token.content:
                token.content = token.content.replace(SWITCH, "")
                drafting = False

    def _mark(self, inline: Token) -> bool:
        """Put the draft's part of one paragraph into its style; return whether it goes on behind it."""
        marked: list[Token] = [Token("s_open", "s", 1)]
        drafting = True
        for child in inline.children or ():
            if drafting and SWITCH in child.content:
                before, _, behind = child.content.partition(SWITCH)
                marked += [_text(before), Token("s_close", "s", -1), *self._label(), _text(behind)]
                drafting = False
            else:
                marked.append(child)
        if drafting:
            marked.append(Token("s_close", "s", -1))
        inline.children = marked
        return drafting

    def _label(self) -> list[Token]:
        label = Token("code_inline", "code", 0)
        label.content = f"▐{self.label}▌"
        return [label]


def _text(content: str) -> Token:
    token = Token("text", "", 0)
    token.content = content
    return token
