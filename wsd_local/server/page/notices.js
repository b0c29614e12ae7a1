/** One line near the input for what went wrong, and one that screen readers read out when the state changes. */

import { byId } from "./dom.js";

/**
 * Show an error, or a notice that a person should know once.
 * @param {unknown} problem an error, or a line of text
 * @param {"error" | "note"} [kind]
 */
export function show(problem, kind = "error") {
  const box = byId("notice");
  byId("notice-text").textContent = problem instanceof Error ? problem.message : String(problem);
  box.dataset.kind = kind;
  box.hidden = false;
}

/** Nothing is wrong any more. */
export function clear() {
  byId("notice").hidden = true;
}

/**
 * For screen readers: a state, never the text of a reply.
 * @param {string} line
 */
export function announce(line) {
  byId("state").textContent = line;
}

/**
 * Do something, and show what goes wrong.
 * @param {() => Promise<any>} work
 */
export async function trying(work) {
  try {
    await work();
  } catch (error) {
    show(error);
  }
}
