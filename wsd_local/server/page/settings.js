/** Settings of the next replies, the system prompt of the chat, and the page's colours. An empty field is the default. */

import { request } from "./api.js";
import { byId } from "./dom.js";
import { trying } from "./notices.js";
import { state } from "./state.js";

/** Numbers among the settings, by the ids of their fields. */
const NUMBERS = /** @type {const} */ (["max_tokens", "temperature", "window", "seed"]);

export class Settings {
  constructor() {
    this.dialog = byId("settings");
    byId("settings-open").addEventListener("click", () => this.open());
    byId("settings-form").addEventListener("submit", () => trying(() => this.use()));
    byId("theme").addEventListener("change", () => this.theme(byId("theme").value));
    this.theme(state.kept.theme ?? "");
  }

  open() {
    for (const name of NUMBERS) {
      const field = byId(`set-${name}`);
      field.value = state.kept[name] ?? "";
      field.placeholder = String(state.defaults[name] ?? "random");
    }
    byId("set-probabilities").checked = Boolean(state.kept.probabilities);
    byId("set-system").value = (state.chat === null ? state.system : state.chat.system) ?? "";
    byId("theme").value = state.kept.theme ?? "";
    this.dialog.showModal();
  }

  async use() {
    /** @type {any} */
    const changes = { probabilities: byId("set-probabilities").checked || undefined };
    for (const name of NUMBERS) {
      const text = byId(`set-${name}`).value;
      changes[name] = text === "" ? undefined : Number(text);
    }
    state.keep(changes);
    const system = byId("set-system").value.trim() || null;
    if (state.chat === null) state.system = system;
    else if (system !== state.chat.system) {
      state.chat = await request(`/ui/chats/${state.chat.id}/system`, { method: "PUT", body: { system } });
    }
  }

  /** @param {string} name "light", "dark", or "" for that of the system */
  theme(name) {
    if (name) document.documentElement.dataset.theme = name;
    else delete document.documentElement.dataset.theme;
    if ((state.kept.theme ?? "") !== name) state.keep({ theme: /** @type {any} */ (name || undefined) });
    state.dispatchEvent(new Event("theme"));
  }
}
