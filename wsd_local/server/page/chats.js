/** The list of chats: searching, opening, restoring from the bin. They are the same chats as those of `wsd-chat`. */

import { request } from "./api.js";
import { conversation } from "./conversation.js";
import { byId, el, iconButton } from "./dom.js";
import { trying } from "./notices.js";
import { state } from "./state.js";
import { visible } from "./authors.js";

/** @typedef {import("./state.js").Chat} Chat */
/** @typedef {{chat: number, message: number, title: string, role: string, snippet: string, marks: [number, number][]}} Hit */

/** After the last key in the search field, in milliseconds. */
const PAUSE = 150;

/** Chats that are shown at once; the rest on request. */
const SHOWN = 200;

export class ChatList {
  constructor() {
    this.list = byId("chats");
    this.field = byId("search");
    this.bin = false;
    this.all = false;
    this.timer = 0;
    this.asked = 0;
    this.field.addEventListener("input", () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => trying(() => this.load()), PAUSE);
    });
    byId("bin").addEventListener("click", () => {
      this.bin = !this.bin;
      byId("bin").setAttribute("aria-pressed", String(this.bin));
      trying(() => this.load());
    });
    state.on("chats", () => this.load().catch(() => {}));
    state.on("conversation", () => this.mark());
    this.list.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.key(event));
  }

  async load() {
    const asked = (this.asked += 1);
    const query = this.field.value.trim();
    const found = await request(`/ui/chats?query=${encodeURIComponent(query)}&deleted=${this.bin}`);
    if (asked === this.asked) this.draw(found.chats, found.hits, query);
  }

  /** @param {Chat[]} chats @param {Hit[]} hits @param {string} query */
  draw(chats, hits, query) {
    const shown = this.all || query ? chats : chats.slice(0, SHOWN);
    /** @type {Node[]} */
    const rows = [];
    let day = "";
    for (const chat of shown) {
      const own = query || this.bin ? "" : dayOf(chat.updated);
      if (own !== day) rows.push(el("li", { class: "day", role: "presentation" }, own));
      day = own;
      rows.push(this.row(chat));
    }
    if (shown.length < chats.length) {
      const all = () => {
        this.all = true;
        trying(() => this.load());
      };
      rows.push(
        el("li", {}, el("button", { type: "button", class: "plain small", onclick: all }, `all ${chats.length} chats`)),
      );
    }
    if (hits.length)
      rows.push(el("li", { class: "day", role: "presentation" }, "In messages"), ...hits.map((hit) => this.hit(hit)));
    const empty = query ? "Nothing was found." : this.bin ? "The bin is empty." : "No chats yet.";
    this.list.replaceChildren(...(rows.length ? rows : [el("li", { class: "none" }, empty)]));
    byId("found").textContent = query ? `${chats.length} chats, ${hits.length} messages found` : "";
    this.mark();
  }

  /** @param {Chat} chat @returns {HTMLElement} */
  row(chat) {
    const title = el("span", { class: "name", dir: "auto" }, visible(chat.title) || "Untitled chat");
    const pair = el("span", { class: "pair" }, visible(chat.pair));
    if (this.bin) {
      const restore = () =>
        trying(async () => {
          await request(`/ui/chats/${chat.id}/restored`, { method: "PUT", body: {} });
          await this.load();
        });
      return el(
        "li",
        { class: "row" },
        el("span", { class: "open" }, title, pair),
        iconButton("restore", `Restore ${chat.title}`, restore),
      );
    }
    const open = () => this.open(chat.id);
    return el(
      "li",
      { class: "row" },
      el("button", { type: "button", class: "open", "data-chat": chat.id, onclick: open }, title, pair),
    );
  }

  /** @param {Hit} hit @returns {HTMLElement} */
  hit(hit) {
    /** @type {(Node | string)[]} */
    const parts = [];
    let at = 0;
    const signs = [...hit.snippet];
    for (const [start, end] of hit.marks) {
      parts.push(signs.slice(at, start).join(""), el("mark", {}, signs.slice(start, end).join("")));
      at = end;
    }
    parts.push(signs.slice(at).join(""));
    const open = () => this.open(hit.chat, hit.message);
    const who = hit.role === "user" ? "You" : "Reply";
    return el(
      "li",
      { class: "row" },
      el(
        "button",
        { type: "button", class: "open hit", onclick: open },
        el("span", { class: "pair" }, `${who} in ${hit.title}`),
        el("span", { class: "snippet", dir: "auto" }, ...parts),
      ),
    );
  }

  /** @param {number | null} chat @param {number} [message] */
  open(chat, message) {
    trying(async () => {
      await conversation.open(chat, message);
      byId("app").classList.remove("with-list");
      byId("message").focus();
    });
  }

  /** Show which chat is open. */
  mark() {
    for (const button of this.list.querySelectorAll("[data-chat]")) {
      const own = Number(button.getAttribute("data-chat")) === state.chat?.id;
      if (own) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  }

  /** Up and Down go through the list. @param {KeyboardEvent} event */
  key(event) {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const buttons = [...this.list.querySelectorAll("button.open")];
    const at = buttons.indexOf(/** @type {any} */ (document.activeElement));
    const next = buttons[at + (event.key === "ArrowDown" ? 1 : -1)];
    if (next) next.focus();
    event.preventDefault();
  }
}

/** @param {string} time @returns {string} */
function dayOf(time) {
  const day = new Date(time);
  const ago = Math.floor((new Date().setHours(0, 0, 0, 0) - new Date(day).setHours(0, 0, 0, 0)) / 86_400_000);
  if (ago <= 0) return "Today";
  if (ago === 1) return "Yesterday";
  if (ago < 7) return "This week";
  return day.toLocaleDateString("en", { month: "long", year: "numeric" });
}
