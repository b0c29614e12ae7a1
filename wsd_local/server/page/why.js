/** The panel that shows why the base took over where it did: a chart, one sentence, and the tokens as a table. */

import { Chart } from "./chart.js";
import { byId, el, plural } from "./dom.js";
import { state } from "./state.js";

/** Rows of the table at most. */
const ROWS = 400;

/** @param {number | null | undefined} value @returns {string} */
const figure = (value) => (typeof value === "number" ? value.toFixed(2) : "");

/** @param {string} text @returns {string} a token whose spaces and line breaks can be seen */
const shown = (text) => text.replaceAll(" ", "·").replaceAll("\n", "⏎").replaceAll("\t", "⇥");

export class Why {
  /** @param {import("./scores.js").Scores} scores */
  constructor(scores) {
    this.scores = scores;
    this.panel = byId("why");
    this.frame = 0;
    this.chart = new Chart(
      byId("chart"),
      scores,
      () => (state.bound ? state.threshold : this.scores.threshold),
      (index) => this.pointed(index),
    );
    byId("why-close").addEventListener("click", () => this.show(false));
    byId("tokens").addEventListener("toggle", () => this.later());
    state.on("scores", () => this.later());
    state.on("settings", () => this.later());
    this.show(state.kept.why ?? matchMedia("(min-width: 1200px)").matches, false);
  }

  /** @returns {boolean} */
  get open() {
    return !this.panel.hidden;
  }

  /** @param {boolean} open @param {boolean} [keep] */
  show(open, keep = true) {
    this.panel.hidden = !open;
    byId("app").classList.toggle("with-why", open);
    byId("why-toggle").setAttribute("aria-expanded", String(open));
    if (keep) state.keep({ why: open });
    if (open) this.later();
  }

  later() {
    this.frame ||= requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.frame = 0;
    if (!this.open) return;
    this.chart.draw();
    const said = this.sentence();
    byId("why-text").textContent = said;
    byId("chart").setAttribute("aria-label", `Chart of the base's probabilities. ${said}`);
    byId("what-if").textContent = this.whatIf();
    this.pointed(null);
    if (byId("tokens").open) this.table();
  }

  /** @returns {string} what the chart shows, in words */
  sentence() {
    const { switch: found, tokens, drafted } = this.scores;
    if (!tokens.length && !found?.reason)
      return "The chart fills while a reply is written: each point is the base's probability of a token of the draft.";
    if (!found?.reason) return `The base has read ${plural(drafted, "token")} of the draft.`;
    const after = `after ${plural(found.kept_tokens ?? (found.index ?? -1) + 1, "token")}`;
    const reasons = /** @type {Record<string, string>} */ ({
      threshold: `The base took over ${after}: its confidence of ${figure(found.confidence)} reached the threshold of ${figure(this.scores.threshold)}.`,
      draft_end: "The draft ended before the base was confident; the base continued.",
      draft_limit: "The draft reached its limit before the base was confident; the base continued.",
      loop: "The draft began to repeat itself; the base continued.",
      match: "The draft's next word began with the base's most probable token; the base took over.",
      veto: "The base refused a word of the draft and wrote its own; the draft led again from there.",
      none: "One model wrote this reply alone.",
      cancelled: "The reply was stopped while the draft wrote.",
    });
    return reasons[found.reason] ?? `Drafting ended: ${String(found.reason).replaceAll("_", " ")}.`;
  }

  /** @returns {string} what another threshold would have changed, as far as the scores show it */
  whatIf() {
    const threshold = state.threshold;
    if (!state.bound || !this.scores.drafted || threshold === this.scores.threshold || state.busy) return "";
    const kept = this.scores.keptWith(threshold);
    const named = threshold > 1 ? "Without a threshold" : `With ${figure(threshold)}`;
    if (kept !== null) return `${named} the base would have taken over after ${plural(kept, "token")}.`;
    return `${named} the draft would have written more than these ${plural(this.scores.drafted, "token")}.`;
  }

  /** @param {number | null} index */
  pointed(index) {
    const token = index === null ? undefined : this.scores.tokens[index];
    const parts = token && [
      `${(index ?? 0) + 1} “${shown(token.text).trim()}”`,
      figure(token.prob) && `probability ${figure(token.prob)}`,
      figure(token.window) && `confidence ${figure(token.window)}`,
    ];
    byId("pointed").textContent = parts ? parts.filter(Boolean).join(" · ") : "";
  }

  table() {
    const rows = this.scores.tokens
      .slice(0, ROWS)
      .map((token, index) =>
        el(
          "tr",
          { class: token.source },
          el("td", {}, String(index + 1)),
          el("td", { class: "token" }, shown(token.text)),
          el("td", {}, token.source),
          el("td", {}, figure(token.prob)),
          el("td", {}, figure(token.window)),
        ),
      );
    byId("token-rows").replaceChildren(...rows);
  }
}
