/** Copying to the clipboard, and saying so. */

import { byId, el } from "./dom.js";
import { announce, clear, show } from "./notices.js";

/**
 * Put text into the clipboard.
 * @param {string} text
 */
export async function copy(text) {
  try {
    if (window.isSecureContext) await navigator.clipboard.writeText(text);
    else if (!copyByCommand(text)) throw new Error("refused");
    announce("Copied");
    show("copied", "note");
    setTimeout(() => byId("notice").dataset.kind === "note" && clear(), 1500);
  } catch {
    show("the browser does not let this page use the clipboard");
  }
}

/** The way in which pages that came over plain HTTP from another machine may copy. @param {string} text */
function copyByCommand(text) {
  const field = /** @type {HTMLTextAreaElement} */ (el("textarea", { class: "hidden" }));
  field.value = text;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  return done;
}
