/**
 * Who wrote which part of a text that is shown as Markdown.
 *
 * A sign that no text holds (`MARK`) is set where the writer changes, at the nearest place where it leaves the Markdown
 * structure as it is; after the text has become elements, `paint` takes the marks out and shows the parts.
 */

import { el } from "./dom.js";
import { blocks } from "./parser.js";

/** @typedef {"draft" | "base" | "given"} Writer */
/** @typedef {[Writer, string]} Part who wrote, and what */

export const MARK = "\ue000";

/** How many characters away from the change its mark may stand. */
const REACH = 80;

/** Characters after the change that may decide where its mark stands. */
const LOOK = 400;

/**
 * Text without marks, and with signs for characters that are invisible or change the direction of writing.
 * @param {string} text
 * @returns {string}
 */
export function visible(text) {
  return text
    .replaceAll(MARK, "\ufffd")
    .replace(/\r\n?/g, "\n")
    .replace(/[\u0000-\u0008\u000b-\u001f]/g, (sign) => String.fromCharCode(0x2400 + sign.charCodeAt(0)))
    .replace(
      /[\u202a-\u202e\u2066-\u2069\u007f-\u009f]/g,
      (sign) => `⟨U+${sign.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`,
    );
}

/**
 * Where a mark for a change at `at` can stand; null if nowhere near.
 * @param {string} text
 * @param {number} at
 * @returns {number | null}
 */
export function placed(text, at) {
  const shape = JSON.stringify(shapeOf(blocks(text)).shape);
  const near = [at];
  for (let step = 1; step <= REACH; step += 1) near.push(at - step);
  for (let step = 1; step <= REACH; step += 1) near.push(at + step);
  for (const place of near) {
    if (place < 0 || place > text.length) continue;
    const marked = shapeOf(blocks(text.slice(0, place) + MARK + text.slice(place)));
    if (marked.marks === 1 && JSON.stringify(marked.shape) === shape) return place;
  }
  return null;
}

/**
 * A text with marks where its writer changes. `from` is the beginning of the part that is wanted.
 * @param {Part[]} parts
 * @param {number} [from]
 * @returns {{marked: string, writers: Writer[]}}
 */
export function markedText(parts, from = 0) {
  const text = parts.map(([, one]) => one).join("");
  /** @type {{place: number, writer: Writer}[]} */
  const marks = [];
  /** @type {Writer} */
  let first = parts[0]?.[0] ?? "base";
  let end = 0;
  parts.forEach(([, one], index) => {
    end += one.length;
    const next = parts[index + 1];
    if (next === undefined || next[0] === parts[index][0]) return;
    if (end < from) {
      first = next[0];
      return;
    }
    const head = text.slice(0, end).trimEnd().length;
    const begin = Math.max(from, lineBefore(text, Math.max(from, head - REACH)));
    const place = placed(text.slice(begin, end + LOOK), Math.max(0, head - begin));
    if (place === null || begin + place < from) first = marks.length ? first : next[0];
    else marks.push({ place: begin + place, writer: next[0] });
  });
  let marked = "";
  let at = from;
  for (const { place } of marks) {
    marked += text.slice(at, place) + MARK;
    at = place;
  }
  return { marked: marked + text.slice(at), writers: [first, ...marks.map((mark) => mark.writer)] };
}

/**
 * Take the marks out of elements, and show who wrote what.
 * @param {DocumentFragment} fragment
 * @param {Writer[]} writers
 * @param {string[]} labels what each mark says at which the base takes over, in order
 */
export function paint(fragment, writers, labels) {
  let at = 0;
  let switches = 0;
  const walker = document.createTreeWalker(fragment, NodeFilter.SHOW_TEXT);
  /** @type {Text[]} */
  const texts = [];
  while (walker.nextNode()) texts.push(/** @type {Text} */ (walker.currentNode));
  for (const node of texts) {
    const pieces = node.data.split(MARK);
    if (pieces.length === 1 && writers[at] === "base") continue;
    /** @type {(Node | string)[]} */
    const made = [];
    pieces.forEach((piece, index) => {
      if (index > 0) {
        at = Math.min(at + 1, writers.length - 1);
        if (writers[at] === "base") made.push(switchMark(labels[switches++]));
      }
      if (writers[at] === "base" || !piece.trim()) made.push(piece);
      else made.push(el("span", { class: `by-${writers[at]}` }, piece));
    });
    node.replaceWith(...made.filter((one) => one !== ""));
  }
}

/**
 * The mark where the base takes over.
 * @param {string} [label]
 * @returns {HTMLElement}
 */
export function switchMark(label = "") {
  const said = /^[01]\./.test(label) ? `, confidence ${label}` : label && `, ${label}`;
  return el(
    "span",
    { class: "switch", title: `The base continues from here${said}` },
    el("span", { class: "hidden" }, `[the base continues${said}]`),
    el("span", { "aria-hidden": "true" }, label || "base"),
  );
}

/** @param {string} text @param {number} at @returns {number} the beginning of the block around `at`, as far as lines show it */
function lineBefore(text, at) {
  const found = text.lastIndexOf("\n\n", at);
  return found < 0 ? 0 : found + 2;
}

const LEAVES = new Set(["text", "codespan", "code", "escape"]);

/**
 * Kinds and texts of Markdown tokens, neighbouring texts as one, and the number of marks in them.
 * @param {any[]} tokens
 * @returns {{shape: any[], marks: number}}
 */
function shapeOf(tokens) {
  /** @type {any[]} */
  const shape = [];
  let marks = 0;
  /** @param {any} token */
  const visit = (token) => {
    const inner = token.tokens ?? [];
    if (LEAVES.has(token.type) && !inner.length) {
      const text = String(token.text ?? "");
      marks += text.split(MARK).length - 1;
      const last = shape.at(-1);
      const plain = text.replaceAll(MARK, "");
      if (token.type === "text" && last?.[0] === "text") last[1] += plain;
      else if (token.type !== "text" || plain) shape.push([token.type, plain, token.lang ?? ""]);
      return;
    }
    shape.push([
      token.type,
      token.depth,
      token.href,
      token.ordered,
      token.start,
      token.task,
      token.type === "html" ? token.text : "",
    ]);
    for (const one of inner) visit(one);
    for (const one of token.items ?? []) visit(one);
    if (token.type === "table") {
      for (const cell of [...token.header, ...token.rows.flat()]) visit({ type: "cell", tokens: cell.tokens });
    }
    shape.push([`/${token.type}`]);
  };
  tokens.filter((token) => token.type !== "space").forEach(visit);
  return { shape, marks };
}
