/**
 * What is shown, and what the next reply is made with. Parts of the page listen for changes by name.
 *
 * Settings stay in the browser's local storage; chats are the server's.
 */

/**
 * @typedef {object} Entry a message, as `/ui/chats/{id}` has it
 * @property {number} id
 * @property {number} chat
 * @property {number | null} parent
 * @property {"user" | "assistant"} role
 * @property {string} text
 * @property {"writing" | "finished" | "cancelled" | "failed"} state
 * @property {[number, number]} place its number among the answers to the same message, and their number
 * @property {import("./authors.js").Part[]} [spans] who wrote what
 * @property {string | null} [error]
 * @property {string | null} [finish_reason]
 * @property {any} [report] switch, timings, counts
 *
 * @typedef {object} Chat
 * @property {number} id
 * @property {string} title
 * @property {string} pair
 * @property {string | null} system
 * @property {string} updated
 * @property {number} messages
 *
 * @typedef {object} Model
 * @property {string} id
 * @property {string} pair
 * @property {"wsd" | "base" | "draft"} mode
 * @property {boolean} loaded
 * @property {number | null} n_ctx
 * @property {Record<string, string>} names
 *
 * @typedef {object} Kept what the browser keeps
 * @property {string} [model]
 * @property {number} [threshold]
 * @property {number} [entropy] the threshold of the rule of that name, in nats
 * @property {number} [max_tokens]
 * @property {number} [temperature]
 * @property {number} [window]
 * @property {number} [seed]
 * @property {boolean} [probabilities]
 * @property {"light" | "dark"} [theme]
 * @property {boolean} [why] whether the chart is shown
 */

const KEPT = "wsd-local.page";

/** Above every confidence: the base never takes over. */
export const NEVER = 2;

/** More than the entropy of any distribution over a vocabulary. */
const MOST_NATS = 100;

class State extends EventTarget {
  constructor() {
    super();
    /** @type {Model[]} */
    this.models = [];
    /** @type {Record<string, any>} defaults of the server's settings */
    this.defaults = {};
    /** @type {Chat | null} */
    this.chat = null;
    /** @type {Entry[]} */
    this.entries = [];
    /** @type {Entry | null} the question that the next message replaces */
    this.editing = null;
    /** A reply is requested or written by this page. */
    this.busy = false;
    /** @type {string | null} system prompt of a chat that is not there yet */
    this.system = null;
    /** @type {Kept} */
    this.kept = readKept();
  }

  /** @returns {Model | undefined} what answers next */
  get model() {
    return this.models.find((model) => model.id === this.kept.model) ?? this.models[0];
  }

  /** @returns {string} the server's rule of who writes next */
  get rule() {
    return this.defaults.rule ?? "window";
  }

  /** @returns {"threshold" | "entropy" | null} the setting that the rule takes over by; null: one that is not known here */
  get bound() {
    if (this.rule === "entropy") return "entropy";
    return this.rule === "window" || this.rule === "return" ? "threshold" : null;
  }

  /** @returns {number} the confidence at which the base takes over in the next reply; above 1 it never does */
  get threshold() {
    if (this.bound === "entropy") return Math.exp(-(this.kept.entropy ?? this.defaults.entropy ?? 0.5));
    return this.kept.threshold ?? this.defaults.threshold ?? 0.8;
  }

  set threshold(value) {
    if (this.bound === "entropy") this.keep({ entropy: value < 1 ? Math.min(MOST_NATS, -Math.log(value)) : 0 });
    else if (this.bound === "threshold") this.keep({ threshold: value });
  }

  /**
   * Settings of the next reply that differ from the server's.
   * @param {Model} model who writes it; one alone follows no rule
   * @returns {Record<string, any>}
   */
  settingsFor(model) {
    /** @type {Record<string, any>} */
    const found = {};
    const own = model.mode === "wsd" && this.bound ? [this.bound, "window"] : [];
    for (const name of [...own, "max_tokens", "temperature", "seed"]) {
      const value = /** @type {Record<string, any>} */ (this.kept)[name];
      if (value !== undefined) found[name] = value;
    }
    if (this.kept.probabilities) found.probabilities = true;
    return found;
  }

  /** @returns {number | null} the message that is shown last */
  get head() {
    return this.entries.at(-1)?.id ?? null;
  }

  /**
   * Keep settings; undefined: the default again.
   * @param {Kept} changes
   */
  keep(changes) {
    Object.assign(this.kept, changes);
    try {
      localStorage.setItem(KEPT, JSON.stringify(this.kept));
    } catch {
      // A browser that keeps nothing still works.
    }
    this.changed("settings");
  }

  /**
   * @param {"settings" | "conversation" | "chats" | "busy" | "scores"} what
   */
  changed(what) {
    this.dispatchEvent(new Event(what));
  }

  /**
   * @param {string} what
   * @param {() => void} then
   */
  on(what, then) {
    this.addEventListener(what, then);
  }
}

/** @returns {Kept} */
function readKept() {
  try {
    const found = JSON.parse(localStorage.getItem(KEPT) ?? "{}");
    return found && typeof found === "object" ? found : {};
  } catch {
    return {};
  }
}

export const state = new State();
