/** Markdown into blocks and HTML, by marked. HTML in the text is text, and so are pictures but for a link to them. */

import { Marked } from "./vendor/marked.esm.js";

const HARMLESS = /^<\/?(?:br|sub|sup|kbd)\s*\/?>$/i;

/** @param {string} text @returns {string} */
const escaped = (text) => text.replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);

const parser = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    html: (/** @type {any} */ { text }) => (HARMLESS.test(text.trim()) ? text : escaped(text)),
    image: (/** @type {any} */ { href, text }) => `<a href="${escaped(href)}">${escaped(text || "picture")}</a>`,
    checkbox: (/** @type {any} */ { checked }) => (checked ? "☑ " : "☐ "),
  },
});

/**
 * The blocks of a text: paragraphs, lists, code, tables …
 * @param {string} text
 * @returns {{type: string, raw: string, [name: string]: any}[]}
 */
export function blocks(text) {
  return parser.lexer(text);
}

/**
 * HTML of Markdown; it is not safe yet.
 * @param {string} text
 * @returns {string}
 */
export function html(text) {
  return /** @type {string} */ (parser.parse(text));
}
