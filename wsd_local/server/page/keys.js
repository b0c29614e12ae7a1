/** Keys that hold on the whole page. Each has a button too, and none is a single letter. */

import { copy } from "./clipboard.js";
import { conversation } from "./conversation.js";
import { byId } from "./dom.js";
import { trying } from "./notices.js";
import { state } from "./state.js";

/**
 * @param {{newChat: () => void, compare: () => void, why: () => void}} actions
 */
export function listen({ newChat, compare, why }) {
  /** @type {Record<string, () => void>} */
  const shifted = {
    KeyN: newChat,
    KeyR: () => trying(() => conversation.again()),
    KeyE: () => conversation.edit(),
    KeyG: () => trying(() => conversation.continue_()),
    KeyC: () => {
      const last = state.entries.findLast((entry) => entry.role === "assistant");
      if (last) copy(last.text);
    },
    KeyV: compare,
    KeyW: why,
  };
  document.addEventListener("keydown", (event) => {
    const dialog = document.querySelector("dialog[open]");
    if (event.key === "Escape" && dialog === null) {
      if (byId("app").classList.contains("with-list")) byId("list-toggle").click();
      else if (state.busy) trying(() => conversation.stop());
      else if (state.editing !== null) byId("editing-end").click();
      else byId("message").focus();
    } else if (dialog !== null) {
      return;
    } else if ((event.ctrlKey || event.metaKey) && event.key === "k") {
      event.preventDefault();
      byId("app").classList.add("with-list");
      byId("search").focus();
    } else if ((event.ctrlKey || event.metaKey) && event.key === "/") {
      event.preventDefault();
      byId("help").showModal();
    } else if (event.altKey && event.shiftKey && shifted[event.code]) {
      event.preventDefault();
      shifted[event.code]();
    }
  });
}
