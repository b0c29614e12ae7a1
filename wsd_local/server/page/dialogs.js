/** Small dialogs: a line of text, a confirmation, the server's key. */

import { byId } from "./dom.js";

/**
 * Ask for one line; null: cancelled.
 * @param {string} title
 * @param {{value?: string, label?: string, secret?: boolean, confirm?: string}} [options]
 * @returns {Promise<string | null>}
 */
export function askLine(title, { value = "", label = "", secret = false, confirm = "OK" } = {}) {
  const dialog = byId("ask");
  const field = byId("ask-field");
  byId("ask-title").textContent = title;
  byId("ask-label").textContent = label;
  byId("ask-ok").textContent = confirm;
  field.type = secret ? "password" : "text";
  field.autocomplete = "off";
  field.value = value;
  return new Promise((done) => {
    dialog.returnValue = "";
    dialog.addEventListener("close", () => done(dialog.returnValue === "ok" ? field.value : null), { once: true });
    dialog.showModal();
    field.select();
  });
}

/** A click outside of a dialog closes it. @param {HTMLDialogElement} dialog */
export function closeByBackdrop(dialog) {
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
}
