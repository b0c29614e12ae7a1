/**
 * A text that grows, as Markdown on the page.
 *
 * What has been added is drawn at most once per frame, and only the blocks at the end that more text may still change:
 * a long reply costs no more per frame than a short one. `finish` draws the whole once more, from its parts.
 */

import { el } from "./dom.js";
import { MARK, markedText, visible } from "./authors.js";
import { render } from "./markdown.js";
import { blocks } from "./parser.js";

/** @typedef {import("./authors.js").Part} Part */
/** @typedef {import("./authors.js").Writer} Writer */

/** Blocks at the end that more text may still change. */
const OPEN = 2;

export class LiveText {
  /**
   * @param {HTMLElement} box where the text is drawn
   * @param {() => void} [drawn] called after each drawing
   */
  constructor(box, drawn = () => {}) {
    this.box = box;
    this.drawn = drawn;
    /** @type {string[]} what the marks say at which the base takes over, in order */
    this.labels = [];
    this.switches = 0;
    /** @type {Part[]} */
    this.parts = [];
    this.settled = 0;
    /** @type {ChildNode[]} */
    this.open = [];
    this.frame = 0;
  }

  /** @returns {string} */
  get text() {
    return this.parts.map(([, text]) => text).join("");
  }

  /**
   * Show a text that is there already.
   * @param {Part[]} parts
   */
  show(parts) {
    cancelAnimationFrame(this.frame);
    this.frame = this.settled = this.switches = 0;
    this.open = [];
    this.parts = parts.map(([writer, text]) => [writer, visible(text)]);
    try {
      const { marked, writers } = markedText(this.parts);
      this.box.replaceChildren(render(marked, writers, this.labels));
    } catch (error) {
      console.error(error); // a text that cannot be laid out is still shown
      this.box.replaceChildren(el("p", { class: "plain-text" }, this.text));
    }
    this.drawn();
  }

  /**
   * More text.
   * @param {Writer} writer
   * @param {string} text
   */
  add(writer, text) {
    const last = this.parts.at(-1);
    if (last?.[0] === writer) last[1] += visible(text);
    else this.parts.push([writer, visible(text)]);
    this.frame ||= requestAnimationFrame(() => this.draw());
  }

  /** Draw what has been added. */
  draw() {
    this.frame = 0;
    const { marked, writers } = markedText(this.parts, this.settled);
    const found = blocks(marked);
    let left = OPEN;
    let cut = found.length;
    while (cut > 0 && left > 0) {
      cut -= 1;
      if (found[cut].type !== "space") left -= 1;
    }
    const ready = found
      .slice(0, cut)
      .map((block) => block.raw)
      .join("");
    const used = ready.split(MARK).length - 1;
    let labels = this.labels.slice(this.switches);
    for (const node of this.open) node.remove();
    if (ready) {
      this.box.append(render(ready, writers, labels));
      this.switches += writers.slice(1, used + 1).filter((writer) => writer === "base").length;
      labels = this.labels.slice(this.switches);
      this.settled += ready.length - used;
    }
    const tail = render(marked.slice(ready.length), writers.slice(used), labels);
    this.open = [...tail.childNodes];
    this.box.append(tail);
    this.drawn();
  }

  /** Nothing more follows. */
  finish() {
    this.show(this.parts);
  }
}
