/**
 * The base's scores of one reply: probability and confidence of each token, where the base took over, and where another
 * threshold would have let it.
 */

import { request } from "./api.js";
import { state } from "./state.js";

/** @typedef {{text: string, source: string, prob: number | null, window: number | null}} Token */

export class Scores {
  constructor() {
    /** @type {number | null} */
    this.reply = null;
    /** @type {Token[]} tokens of the draft that the base has read, then those of the base */
    this.tokens = [];
    /** @type {any} */
    this.switch = null;
    this.threshold = state.threshold;
    this.drafted = 0;
  }

  clear() {
    this.reply = this.switch = null;
    this.tokens = [];
    this.threshold = state.threshold;
    this.drafted = 0;
    state.changed("scores");
  }

  /** A reply begins. @param {{id: number}} entry */
  begin(entry) {
    this.clear();
    this.reply = entry.id;
  }

  /** @param {{start: number, probs: number[], windows: (number | null)[]}} event */
  checked({ start, probs, windows }) {
    this.tokens.length = Math.min(this.tokens.length, start);
    while (this.tokens.length < start) this.tokens.push({ text: "", source: "base", prob: null, window: null });
    probs.forEach((prob, index) => {
      const text = this.tokens[start + index]?.text ?? "";
      this.tokens[start + index] = { text, source: "draft", prob, window: windows[index] };
    });
    this.drafted = Math.max(this.drafted, start + probs.length);
    state.changed("scores");
  }

  /** @param {{reason: string, index: number | null, confidence: number | null, kept_tokens: number}} event */
  switched(event) {
    this.switch ??= event;
    state.changed("scores");
  }

  /** @param {{text: string, source: string, prob: number | null}} event */
  text(event) {
    if (event.source !== "base") return;
    this.tokens.push({ text: event.text, source: "base", prob: event.prob, window: null });
    state.changed("scores");
  }

  /**
   * The scores of a reply that is kept.
   * @param {{id: number}} entry
   */
  async load(entry) {
    this.reply = entry.id;
    const found = await request(`/ui/messages/${entry.id}/scores`);
    if (this.reply !== entry.id) return;
    this.tokens = found.tokens;
    this.switch = found.switch;
    this.threshold = found.threshold;
    this.drafted = found.tokens.findLastIndex((/** @type {Token} */ token) => token.source === "draft") + 1;
    state.changed("scores");
  }

  /**
   * How many tokens of the draft would have been kept with a threshold; null if no window that is known reaches it.
   * @param {number} threshold
   * @returns {number | null}
   */
  keptWith(threshold) {
    const at = this.tokens.findIndex((token) => token.window !== null && token.window >= threshold);
    return at < 0 ? null : at + 1;
  }
}
