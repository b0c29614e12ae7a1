/**
 * Elements made of plain values. Nothing here, or in any module of the page, parses HTML: text becomes text nodes, and
 * what models write goes through `markdown.js`.
 */

/** @typedef {Node | string | null | undefined | false} Child */

/**
 * An element with attributes, listeners (`onclick`, …) and children.
 * @param {string} tag
 * @param {Record<string, any>} [properties] `class`, attributes, `on…` listeners; null, undefined and false are left out
 * @param {...Child} children
 * @returns {HTMLElement}
 */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(
    ...children.filter((child) => child || child === "").map((child) => /** @type {Node | string} */ (child)),
  );
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

/**
 * A drawing of the sprite in `index.html`, hidden from screen readers.
 * @param {string} name
 * @returns {SVGElement}
 */
export function icon(name) {
  const made = document.createElementNS(SVG, "svg");
  made.setAttribute("class", "icon");
  made.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  made.append(use);
  return made;
}

/**
 * A button with a drawing and a name.
 * @param {string} drawing
 * @param {string} name what it does, for screen readers and as its tip
 * @param {() => void} action
 * @param {Record<string, any>} [properties]
 * @returns {HTMLButtonElement}
 */
export function iconButton(drawing, name, action, properties = {}) {
  const all = { type: "button", class: "plain", "aria-label": name, title: name, onclick: action, ...properties };
  return /** @type {HTMLButtonElement} */ (el("button", all, icon(drawing)));
}

/**
 * The element with an id, which `index.html` has.
 * @param {string} id
 * @returns {any}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`index.html has no ${id}`);
  return found;
}

/** @param {number} count @param {string} noun @returns {string} "1 token", "2 tokens" */
export function plural(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}
