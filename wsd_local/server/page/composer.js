/** The message field, the threshold, and the button that sends or stops. */

import { conversation } from "./conversation.js";
import { byId } from "./dom.js";
import { trying } from "./notices.js";
import { NEVER, state } from "./state.js";

/** The slider's last step: the base never takes over. */
const LAST = 1.01;

export class Composer {
  constructor() {
    this.field = byId("message");
    this.send = byId("send");
    this.slider = byId("threshold");
    byId("composer").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      this.submit();
    });
    this.field.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.key(event));
    this.field.addEventListener("input", () => this.show());
    this.slider.addEventListener("input", () => {
      const value = Number(this.slider.value);
      state.threshold = value >= LAST ? NEVER : value;
    });
    byId("editing-end").addEventListener("click", () => this.endEditing());
    conversation.putBack = (text, instead) => this.put(text, instead);
    state.on("busy", () => this.show());
    state.on("settings", () => this.showSettings());
    state.on("conversation", () => this.show());
    this.showSettings();
    this.show();
  }

  /** Send what is typed, or stop the reply. */
  submit() {
    if (state.busy) {
      trying(() => conversation.stop());
      return;
    }
    const text = this.field.value;
    if (!text.trim() || state.model === undefined) return;
    this.field.value = "";
    this.show();
    trying(() => conversation.ask(text));
  }

  /**
   * Put a text into the field, in front of what is there; with `instead` in place of it.
   * @param {string} text
   * @param {boolean} [instead]
   */
  put(text, instead = false) {
    const typed = instead ? "" : this.field.value.trim();
    this.field.value = typed ? `${text}\n\n${typed}` : text;
    this.field.focus();
    this.show();
  }

  endEditing() {
    state.editing = null;
    this.field.value = "";
    this.show();
    this.field.focus();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      if (!state.busy) this.submit();
    } else if (event.key === "ArrowUp" && !this.field.value) {
      event.preventDefault();
      conversation.edit();
    }
  }

  show() {
    const { field, send } = this;
    field.style.height = "auto";
    field.style.height = `${Math.min(field.scrollHeight, 220)}px`;
    byId("editing").hidden = state.editing === null;
    send.classList.toggle("stops", state.busy);
    send.setAttribute("aria-label", state.busy ? "Stop" : "Send");
    send.title = state.busy ? "Stop (Esc)" : "Send (Enter)";
    send.disabled = !state.busy && (!field.value.trim() || state.model === undefined);
  }

  /** The slider: a confidence, which the rule `entropy` states in nats. */
  showThreshold() {
    const value = state.threshold;
    const nats = `${(-Math.log(value)).toFixed(2).replace("-", "")} nats`;
    const shown = value > 1 ? "never" : state.bound === "entropy" ? nats : value.toFixed(2);
    this.slider.max = state.bound === "entropy" ? "1" : String(LAST);
    this.slider.value = String(value > 1 ? LAST : value);
    this.slider.disabled = state.bound === null;
    this.slider.title = state.bound === null ? `The rule ${state.rule} of this server has no threshold.` : "";
    this.slider.setAttribute("aria-valuetext", value > 1 ? "never: the draft writes to its end" : shown);
    byId("threshold-value").textContent = state.bound === null ? "–" : shown;
  }

  showSettings() {
    this.showThreshold();
    const names = state.model?.names ?? {};
    const mode = state.model?.mode ?? "wsd";
    byId("legend-draft").textContent = names.draft ?? "draft";
    byId("legend-base").textContent = names.base ?? "base";
    byId("legend").dataset.mode = mode;
    byId("steer").hidden = mode !== "wsd";
  }
}
