/**
 * What models write, as elements: Markdown, with a mark where the writer changes.
 *
 * A model's text is hostile. marked makes HTML of it, in which HTML that the text itself holds is shown as text, and
 * pictures are links; DOMPurify leaves nothing but the elements and attributes listed here, as a fragment. What is added
 * afterwards (buttons, targets of links) is made of plain values. The page's policy would stop what slipped through.
 */

import DOMPurify from "./vendor/purify.es.mjs";
import { el, icon } from "./dom.js";
import { paint } from "./authors.js";
import { html } from "./parser.js";

/** @typedef {import("./authors.js").Writer} Writer */

const PURE = {
  ALLOWED_TAGS: [
    "a",
    "blockquote",
    "br",
    "code",
    "del",
    "em",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "kbd",
    "li",
    "ol",
    "p",
    "pre",
    "strong",
    "sub",
    "sup",
    "table",
    "tbody",
    "td",
    "th",
    "thead",
    "tr",
    "ul",
  ],
  ALLOWED_ATTR: ["href", "class", "align", "start"],
  ALLOWED_URI_REGEXP: /^(?:https?:\/\/|mailto:)/i,
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

/**
 * Elements for Markdown in which `authors.js` has set marks.
 * @param {string} marked
 * @param {Writer[]} writers who wrote the text before the first mark, and after each
 * @param {string[]} labels what each mark says at which the base takes over, in order
 * @returns {DocumentFragment}
 */
export function render(marked, writers, labels) {
  const fragment = /** @type {DocumentFragment} */ (/** @type {unknown} */ (DOMPurify.sanitize(html(marked), PURE)));
  paint(fragment, writers, labels);
  fragment.querySelectorAll("a").forEach(completeLink);
  fragment.querySelectorAll("pre").forEach(completeCode);
  fragment.querySelectorAll("table").forEach((table) => {
    const box = el("div", { class: "wide", tabindex: "0", role: "group", "aria-label": "table" });
    table.replaceWith(box);
    box.append(table);
  });
  fragment.querySelectorAll("[class]").forEach((found) => {
    if (found.localName === "code") found.removeAttribute("class");
  });
  return fragment;
}

/** A link shows where it leads, and takes nothing along. @param {HTMLAnchorElement} link */
function completeLink(link) {
  const href = link.getAttribute("href");
  link.removeAttribute("class");
  if (href === null) {
    link.replaceWith(...link.childNodes);
    return;
  }
  link.rel = "noopener noreferrer nofollow";
  link.target = "_blank";
  const shown = (link.textContent ?? "").trim();
  if (href !== shown && href !== `mailto:${shown}` && href !== `http://${shown}`) {
    link.after(el("span", { class: "target" }, ` (${href.replace(/^mailto:/, "")})`));
  }
}

/** A block of code gets its language's name and a button. @param {HTMLPreElement} pre */
function completeCode(pre) {
  const code = pre.querySelector("code");
  const language = /language-([\w+#.-]{1,20})/.exec(code?.className ?? "")?.[1] ?? "";
  const button = el("button", { type: "button", class: "plain small", "data-copy": "code" }, icon("copy"), "Copy code");
  const box = el("div", { class: "code" }, el("div", { class: "code-head" }, el("span", {}, language), button));
  pre.replaceWith(box);
  pre.tabIndex = 0;
  pre.setAttribute("role", "group");
  pre.setAttribute("aria-label", language ? `code, ${language}` : "code");
  box.append(pre);
}
