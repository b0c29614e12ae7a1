/**
 * The conversation on the page: asking, answering again, editing, continuing, stopping, going between branches.
 *
 * The server keeps all of it; the page shows what the server has, and what it has not kept goes back into the message
 * field. One reply is in progress at a time.
 */

import { request, stream } from "./api.js";
import { copy } from "./clipboard.js";
import { byId, el } from "./dom.js";
import { legend, question, ReplyView, switchLabel } from "./messages.js";
import { watchLoading } from "./loading.js";
import { announce, clear, show, trying } from "./notices.js";
import { Scores } from "./scores.js";
import { state } from "./state.js";

/** @typedef {import("./state.js").Entry} Entry */

/** How near to the end of the conversation it follows what is added, in pixels. */
const NEAR = 60;

/** How often a reply that another program writes is read, in milliseconds. */
const POLL = 1000;

const EXAMPLES = ["How do I boil an egg?", "What is the capital of France?", "Write a haiku about rain."];

class Conversation {
  constructor() {
    this.log = byId("log");
    this.scroller = byId("scroller");
    /** @type {Map<number, ReplyView>} */
    this.views = new Map();
    this.follows = true;
    this.stopping = this.reading = this.asks = false;
    /** @type {number | null} the reply in progress */
    this.writing = null;
    /** @type {ReplyView | null} */
    this.live = null;
    /** Scores of the reply whose chart is shown. */
    this.scores = new Scores();
    this.poll = 0;
    /** @type {Entry | null} the question that the last one was asked in place of */
    this.edited = null;
    /** @type {(text: string, instead?: boolean) => void} */
    this.putBack = () => {};
    /** @type {() => void} */
    this.openWhy = () => {};
    this.scroller.addEventListener("scroll", () => this.scrolled(), { passive: true });
    byId("to-end").addEventListener("click", () => this.toEnd(true));
    state.on("busy", () => this.allow());
  }

  // -- showing ------------------------------------------------------------------------------------------------------

  /**
   * Show another chat; null: an empty one.
   * @param {number | null} chat
   * @param {number} [message] the branch of this message, which is scrolled to
   */
  async open(chat, message) {
    if (state.busy) await this.stop();
    state.editing = null;
    if (chat === null) this.take({ chat: null, entries: [] });
    else if (message !== undefined) {
      this.take(await request(`/ui/chats/${chat}/shown`, { method: "PUT", body: { message } }));
    } else this.take(await request(`/ui/chats/${chat}`));
    this.toEnd(true);
    if (message !== undefined) this.reveal(message);
  }

  /** Read the open chat again: another program may have changed it. */
  async refresh() {
    if (state.busy || state.chat === null) return;
    const found = await request(`/ui/chats/${state.chat.id}`);
    if (state.busy || found.chat.id !== state.chat?.id) return;
    if (JSON.stringify(found.entries) !== JSON.stringify(state.entries)) this.take(found);
    else state.chat = found.chat;
  }

  /** @param {{chat: any, entries: Entry[]}} found */
  take(found) {
    state.chat = found.chat;
    state.entries = found.entries;
    const hash = found.chat === null ? " " : `#chat=${found.chat.id}`;
    history.replaceState(null, "", hash.trim() ? hash : location.pathname);
    this.draw();
    state.changed("conversation");
    state.changed("busy");
    clearTimeout(this.poll);
    if (found.entries.some((entry) => entry.state === "writing" && entry.id !== this.writing)) {
      this.poll = setTimeout(() => this.refresh().catch(() => {}), POLL);
    }
  }

  draw() {
    this.views.clear();
    const shown = state.entries.map((entry) => this.element(entry));
    this.log.replaceChildren(...(shown.length ? shown : [this.greeting()]));
    byId("title").textContent = state.chat?.title || "New chat";
    document.title = state.chat?.title ? `${state.chat.title} · wsd-local` : "wsd-local";
    const last = state.entries.findLast((entry) => entry.role === "assistant");
    if (last !== undefined && last.id !== this.writing) this.scores.load(last).catch(show);
    else if (last === undefined) this.scores.clear();
  }

  /** @param {Entry} entry @returns {HTMLElement} */
  element(entry) {
    if (entry.role === "user") return question(entry, this.actions);
    const view = new ReplyView(entry, this.actions, () => this.drawn());
    this.views.set(entry.id, view);
    return view.box;
  }

  greeting() {
    const offers = EXAMPLES.map((text) =>
      el("button", { type: "button", class: "offer", onclick: () => trying(() => this.ask(text)) }, text),
    );
    return el(
      "section",
      { class: "greeting", "aria-label": "What this is" },
      el("h2", {}, "One model opens, another continues"),
      el(
        "p",
        {},
        "A small aligned model drafts the opening; the large base model takes over as soon as it is confident.",
      ),
      legend(),
      el("div", { class: "offers" }, ...offers),
    );
  }

  // -- following the end --------------------------------------------------------------------------------------------

  scrolled() {
    const left = this.scroller.scrollHeight - this.scroller.scrollTop - this.scroller.clientHeight;
    this.follows = left < NEAR;
    byId("to-end").hidden = this.follows;
  }

  drawn() {
    if (this.follows) this.toEnd(false);
  }

  /** @param {boolean} follow */
  toEnd(follow) {
    if (follow) this.follows = true;
    this.scroller.scrollTop = this.scroller.scrollHeight;
    byId("to-end").hidden = true;
  }

  /** @param {number} message */
  reveal(message) {
    const found = this.log.querySelector(`[data-id="${message}"]`);
    if (found === null) return;
    found.scrollIntoView({ block: "center" });
    found.classList.add("found");
    setTimeout(() => found.classList.remove("found"), 2000);
  }

  // -- asking -------------------------------------------------------------------------------------------------------

  /**
   * Ask a question, in place of the one that is edited if there is one.
   * @param {string} text
   */
  async ask(text) {
    this.edited = state.editing;
    const edits = state.editing?.id ?? null;
    state.editing = null;
    const chat = state.chat?.id ?? null;
    await this.write({ action: "ask", text, chat, head: state.head, edits, system: state.system });
  }

  /**
   * Answer the question of a reply again, on another branch.
   * @param {number | null} head
   */
  async again(head = state.head) {
    if (head !== null) await this.write({ action: "again", head });
  }

  /** Continue the last reply. */
  async continue_() {
    if (state.head !== null) await this.write({ action: "continue", head: state.head });
  }

  /**
   * Request a reply, and follow it to its end.
   * @param {Record<string, any>} wanted
   */
  async write(wanted) {
    if (state.busy || state.model === undefined) return;
    clear();
    clearTimeout(this.poll);
    this.asks = wanted.action === "ask";
    state.busy = true;
    state.changed("busy");
    announce("Sent");
    watchLoading();
    let kept = false;
    try {
      const body = { ...wanted, model: state.model.id, settings: state.settingsFor(state.model) };
      for await (const event of stream("/ui/replies", body)) {
        if (event.event === "begun") {
          this.began(event);
          kept = true;
        } else this.follow(event);
      }
    } catch (error) {
      show(error);
      if (!kept && wanted.text) this.giveBack(wanted.text);
    } finally {
      await this.ended();
    }
  }

  /** @param {{chat: any, question: Entry | null, reply: Entry}} event */
  began({ chat, question: asked, reply }) {
    state.chat = chat;
    state.system = null;
    this.writing = reply.id;
    const until = asked === null ? reply.id : asked.parent;
    const at = until === null ? -1 : state.entries.findIndex((entry) => entry.id === until);
    state.entries = [...state.entries.slice(0, asked === null ? at : at + 1), ...(asked ? [asked] : []), reply];
    this.scores.begin(reply);
    this.take({ chat, entries: state.entries });
    this.live = this.views.get(reply.id) ?? null;
    this.toEnd(true);
    state.changed("chats");
    if (this.stopping) this.sendStop();
  }

  /** @param {any} event */
  follow(event) {
    const view = this.live;
    if (view === null) return;
    if (event.event === "text") {
      const turns = view.live.parts.at(-1)?.[0] !== event.source;
      if (turns || this.reading) this.turned(view, event.source, turns);
      view.live.add(event.source, event.text);
      this.scores.text(event);
    } else if (event.event === "checked") this.scores.checked(event);
    else if (event.event === "switched") {
      view.live.labels.push(switchLabel(event));
      this.scores.switched(event);
    } else if (event.event === "reading") {
      const line = `${event.model} reads ${event.done.toLocaleString("en")} of ${event.total.toLocaleString("en")} tokens`;
      view.phase(line, event);
      this.reading = true;
    } else if (event.event === "notice") show(event.message, "note");
    else if (event.event === "kept") this.replace(event.entry);
    else if (event.event === "unsaved") show(`${event.message}; the reply is written as soon as that is possible`);
    else if (event.event === "failed") {
      show(event.message);
      if (event.entry) this.replace(event.entry);
      else this.withdraw(view.entry);
    }
  }

  /**
   * A model writes, for the first time or after it has read.
   * @param {ReplyView} view
   * @param {"draft" | "base"} writer
   * @param {boolean} first
   */
  turned(view, writer, first) {
    this.reading = false;
    const name = state.model?.names[writer] ?? writer;
    view.phase(writer === "draft" ? `${name} drafts` : `${name} continues`);
    if (!first) return;
    const label = view.live.labels.at(-1);
    const sure = writer === "base" && label ? `, ${label}` : "";
    announce(writer === "draft" ? "The draft writes" : `The base continues${sure}`);
  }

  /** @param {Entry} entry */
  replace(entry) {
    state.entries = state.entries.map((one) => (one.id === entry.id ? entry : one));
    this.views.get(entry.id)?.show(entry);
    announce(
      entry.state === "finished" ? "The reply is complete" : entry.state === "failed" ? "The reply failed" : "Stopped",
    );
    this.scores.load(entry).catch(show);
  }

  /** A reply of which nothing was written: its question goes back into the message field. @param {Entry} entry */
  withdraw(entry) {
    const asked = state.entries.find((one) => one.id === entry.parent);
    if (asked === undefined || !this.asks) return;
    const entries = state.entries.filter((one) => one !== asked && one.id !== entry.id);
    if (!entries.length) state.system = state.chat?.system ?? null;
    this.take({ chat: entries.length ? state.chat : null, entries });
    this.giveBack(asked.text);
  }

  /** A question that could not be answered can be sent again, in place of the same one. @param {string} text */
  giveBack(text) {
    state.editing = this.edited;
    this.putBack(text);
  }

  async ended() {
    this.writing = this.live = null;
    this.stopping = this.reading = state.busy = false;
    state.changed("busy");
    state.changed("chats");
    if (state.chat === null) return;
    try {
      await this.refresh();
    } catch {
      await this.open(null).catch(() => {});
    }
  }

  /** Stop the reply in progress; its text stays. */
  async stop() {
    if (!state.busy) return;
    this.stopping = true;
    this.sendStop();
    await new Promise((done) => {
      const look = () => (state.busy ? setTimeout(look, 20) : done(null));
      look();
    });
  }

  sendStop() {
    if (this.writing !== null) request(`/ui/replies/${this.writing}/stop`, { method: "POST", body: {} }).catch(show);
  }

  // -- what can be done with a message ------------------------------------------------------------------------------

  /** @returns {import("./messages.js").Actions} */
  get actions() {
    return {
      edit: (entry) => this.edit(entry),
      again: (entry) => trying(() => this.again(entry.id)),
      continue_: () => trying(() => this.continue_()),
      copy: (entry) => copy(entry.text),
      step: (entry, by) => trying(() => this.step(entry, by)),
      why: (entry) => {
        this.scores.load(entry).catch(show);
        this.openWhy();
      },
    };
  }

  /**
   * Put a question into the message field; sending it makes another branch.
   * @param {Entry | undefined} [entry] the last question if not given
   */
  edit(entry = state.entries.findLast((one) => one.role === "user")) {
    if (entry === undefined || state.busy) return;
    this.putBack(entry.text, true);
    state.editing = entry;
    state.changed("busy");
  }

  /**
   * Another branch at a fork.
   * @param {Entry} entry
   * @param {number} by
   */
  async step(entry, by) {
    const path = `/ui/chats/${entry.chat}/shown`;
    this.take(await request(path, { method: "PUT", body: { message: entry.id, by } }));
  }

  /** Buttons that need an idle page, or the last reply. */
  allow() {
    const last = String(state.head ?? "");
    for (const button of this.log.querySelectorAll("[data-needs]")) {
      const needs = button.getAttribute("data-needs");
      const own = button.closest("[data-id]")?.getAttribute("data-id");
      button.disabled = state.busy || (needs.includes("last") && own !== last);
    }
  }
}

export const conversation = new Conversation();
