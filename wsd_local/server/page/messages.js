/** Messages as elements: questions as they were typed, replies as Markdown with who wrote what and how it was made. */

import { el, iconButton, plural } from "./dom.js";
import { LiveText } from "./live_text.js";
import { switchMark, visible } from "./authors.js";

/** @typedef {import("./state.js").Entry} Entry */

/**
 * @typedef {object} Actions what can be done with a message
 * @property {(entry: Entry) => void} edit
 * @property {(entry: Entry) => void} again
 * @property {(entry: Entry) => void} continue_
 * @property {(entry: Entry) => void} why
 * @property {(entry: Entry) => void} copy
 * @property {(entry: Entry, by: number) => void} step
 */

/** Why drafting ended, where no window passed the threshold. */
const REASONS = {
  draft_end: "draft ended",
  draft_limit: "draft limit",
  length: "length",
  loop: "repeated itself",
  stop: "stop string",
  user: "by hand",
  match: "same word",
  veto: "refused",
};

/**
 * What the mark at the switch says; empty where there was none.
 * @param {any} found
 * @returns {string}
 */
export function switchLabel(found) {
  if (!found || ["none", "cancelled", null, undefined].includes(found.reason)) return "";
  if (typeof found.confidence === "number" && found.reason === "threshold") return found.confidence.toFixed(2);
  return REASONS[/** @type {keyof typeof REASONS} */ (found.reason)] ?? String(found.reason);
}

/**
 * What the marks of a reply say, in order; with a rule that calls the draft back there are several.
 * @param {any} report
 * @returns {string[]}
 */
export function switchLabels(report) {
  const turns = (report?.turns ?? []).filter((/** @type {any} */ turn) => turn.who === "draft" && turn.to > turn.from);
  return (turns.length > 1 ? turns.map(switchLabel) : [switchLabel(report?.switch)]).filter(Boolean);
}

/**
 * A question.
 * @param {Entry} entry
 * @param {Actions} actions
 * @returns {HTMLElement}
 */
export function question(entry, actions) {
  const text = el("div", { class: "typed", dir: "auto" }, visible(entry.text));
  const tools = el(
    "div",
    { class: "tools" },
    ...places(entry, actions),
    iconButton("edit", "Edit this question", () => actions.edit(entry), { "data-needs": "idle" }),
    iconButton("copy", "Copy this question", () => actions.copy(entry)),
  );
  return el("article", { class: "question", "data-id": entry.id, "aria-label": "You" }, text, tools);
}

/** A reply, which may be being written. */
export class ReplyView {
  /**
   * @param {Entry} entry
   * @param {Actions} actions
   * @param {() => void} drawn called after each drawing
   */
  constructor(entry, actions, drawn) {
    this.actions = actions;
    this.text = el("div", { class: "text", dir: "auto" });
    this.foot = el("footer", {});
    this.box = el("article", { class: "reply", "data-id": entry.id, "aria-label": "Reply" }, this.text, this.foot);
    this.live = new LiveText(this.text, drawn);
    this.entry = entry;
    this.show(entry);
  }

  /**
   * Show a reply as it is kept.
   * @param {Entry} entry
   */
  show(entry) {
    this.entry = entry;
    this.live.labels = switchLabels(entry.report);
    this.live.show(entry.spans?.length ? entry.spans : entry.text ? [["given", entry.text]] : []);
    this.box.classList.toggle("writing", entry.state === "writing");
    this.box.setAttribute("aria-busy", String(entry.state === "writing"));
    if (entry.state === "writing") this.phase("the draft is about to write");
    else this.foot.replaceChildren(...this.footer(entry));
  }

  /**
   * Say what happens.
   * @param {string} line
   * @param {{done: number, total: number}} [reading]
   */
  phase(line, reading) {
    const bar = reading && el("progress", { max: reading.total, value: reading.done, "aria-label": line });
    this.foot.replaceChildren(
      el("span", { class: "phase" }, el("span", { class: "pulse", "aria-hidden": "true" }), line),
      bar || "",
    );
  }

  /** @param {Entry} entry @returns {(Node | string)[]} */
  footer(entry) {
    const { actions } = this;
    const ended = el("span", { class: `ended ${entry.state}` }, stateOf(entry));
    const going = entry.state !== "finished" || entry.finish_reason === "length";
    const tools = el(
      "div",
      { class: "tools" },
      ...places(entry, actions),
      going &&
        iconButton("continue", "Continue this reply", () => actions.continue_(entry), { "data-needs": "idle last" }),
      iconButton("again", "Answer again", () => actions.again(entry), { "data-needs": "idle" }),
      iconButton("copy", "Copy this reply", () => actions.copy(entry)),
      iconButton("chart", "Why the base took over", () => actions.why(entry)),
    );
    return [share(entry), el("div", { class: "facts" }, ended.textContent ? ended : "", facts(entry)), tools].filter(
      (one) => one !== null,
    );
  }
}

/** @param {Entry} entry @returns {string} how a reply ended, where that needs to be said */
function stateOf(entry) {
  if (entry.state === "failed") return `failed: ${entry.error ?? ""}`;
  if (entry.state === "cancelled") return entry.text ? "stopped" : "stopped before its first word";
  if (entry.finish_reason === "length") return "cut at its length limit";
  if (entry.finish_reason === "loop") return "ended, because it repeated itself";
  return entry.text ? "" : "an empty reply";
}

/** @param {Entry} entry @returns {Node} which model wrote how much */
function facts(entry) {
  const { draft, base, timings } = entry.report ?? {};
  /** @param {string} role @param {string} name @param {number} tokens */
  const part = (role, name, tokens) =>
    el("span", { class: "part" }, el("span", { class: `who ${role}` }, name), ` ${plural(tokens, "token")}`);
  return el(
    "span",
    { class: "counts" },
    draft?.kept_tokens > 0 && part("draft", draft.model ?? "draft", draft.kept_tokens),
    draft?.kept_tokens > 0 && base?.tokens > 0 && " → ",
    base?.tokens > 0 && part("base", base.model ?? "base", base.tokens),
    timings?.total_s > 0 && " · ",
    timings?.total_s > 0 && el("span", { class: "part" }, `${timings.total_s.toFixed(1)} s`),
  );
}

/** @param {Entry} entry @returns {Node | null} a bar that shows how much of the reply each model wrote */
function share(entry) {
  const kept = entry.report?.draft?.kept_tokens ?? 0;
  const written = entry.report?.base?.tokens ?? 0;
  if (!kept && !written) return null;
  const draft = el("span", { class: "draft" });
  const base = el("span", { class: "base" });
  draft.style.flexGrow = String(kept);
  base.style.flexGrow = String(written);
  return el("div", { class: "share", "aria-hidden": "true" }, kept ? draft : "", written ? base : "");
}

/** @param {Entry} entry @param {Actions} actions @returns {Node[]} steps between the answers to the same message */
function places(entry, actions) {
  const [at, of] = entry.place;
  if (of < 2) return [];
  const what = entry.role === "user" ? "question" : "reply";
  return [
    iconButton("left", `Previous ${what}`, () => actions.step(entry, -1), { "data-needs": "idle" }),
    el("span", { class: "place" }, `${at}/${of}`),
    iconButton("right", `Next ${what}`, () => actions.step(entry, 1), { "data-needs": "idle" }),
  ];
}

/** @returns {HTMLElement} what the two colours and the mark mean */
export function legend() {
  return el(
    "p",
    { class: "legend" },
    el("span", { class: "by-draft" }, "the draft opens"),
    " ",
    switchMark("0.91"),
    " ",
    el("span", { class: "by-base" }, "the base continues"),
  );
}
