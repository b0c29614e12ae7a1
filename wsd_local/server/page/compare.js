/** One question, three replies side by side: the base alone, the draft alone, and both. None of them is kept. */

import { stream } from "./api.js";
import { byId, el, plural } from "./dom.js";
import { LiveText } from "./live_text.js";
import { switchLabel, switchLabels } from "./messages.js";
import { announce, show } from "./notices.js";
import { state } from "./state.js";

const MODES = /** @type {const} */ ([
  ["base", "Base alone"],
  ["draft", "Draft alone"],
  ["wsd", "Draft, then base"],
]);

export class Compare {
  constructor() {
    this.dialog = byId("compare");
    /** @type {AbortController | null} */
    this.running = null;
    byId("compare-open").addEventListener("click", () => this.open());
    this.dialog.addEventListener("close", () => this.running?.abort());
  }

  /** Answer the last question of the open chat three times. */
  open() {
    const asked = state.entries.findLast((entry) => entry.role === "user");
    if (asked === undefined) {
      show("ask something first: the last question is compared", "note");
      return;
    }
    if (state.busy) {
      show("a reply is being written; Esc stops it", "note");
      return;
    }
    this.running?.abort();
    const running = (this.running = new AbortController());
    byId("compare-question").textContent = asked.text;
    const columns = MODES.flatMap(([mode, title]) => {
      const model = state.models.find((one) => one.pair === state.model?.pair && one.mode === mode);
      return model ? [this.column(mode, title, model, asked.id, running.signal)] : [];
    });
    byId("columns").replaceChildren(...columns.map((column) => column.box));
    this.dialog.showModal();
    announce("Three replies are being written");
    Promise.all(columns.map((column) => column.done)).then(
      () => !running.signal.aborted && announce("All three replies are complete"),
    );
  }

  /**
   * @param {string} mode
   * @param {string} title
   * @param {import("./state.js").Model} model
   * @param {number} head
   * @param {AbortSignal} signal
   * @returns {{box: HTMLElement, done: Promise<void>}}
   */
  column(mode, title, model, head, signal) {
    const text = el("div", { class: "text", dir: "auto" });
    const foot = el("footer", {}, el("span", { class: "phase" }, "waiting"));
    const names = mode === "wsd" ? `${model.names.draft} → ${model.names.base}` : model.names[mode];
    const head_ = el("header", {}, el("h3", {}, title), el("span", { class: "pair" }, names));
    const box = el("section", { class: `column reply ${mode}`, "aria-label": title, tabindex: "0" }, head_, text, foot);
    const live = new LiveText(text);
    return { box, done: this.follow(live, foot, { model: model.id, head, settings: state.settingsFor(model) }, signal) };
  }

  /**
   * @param {LiveText} live
   * @param {HTMLElement} foot
   * @param {object} body
   * @param {AbortSignal} signal
   */
  async follow(live, foot, body, signal) {
    /** @param {string} line */
    const say = (line) => foot.replaceChildren(line);
    try {
      for await (const event of stream("/ui/comparison", body, signal)) {
        if (event.event === "text") {
          if (!live.parts.length) say("writing");
          live.add(event.source, event.text);
        } else if (event.event === "switched") live.labels.push(switchLabel(event));
        else if (event.event === "reading")
          say(`reads ${event.done.toLocaleString("en")} of ${event.total.toLocaleString("en")} tokens`);
        else if (event.event === "failed") say(`failed: ${event.message}`);
        else if (event.event === "finished") {
          live.labels = switchLabels(event.reply);
          live.finish();
          const { draft, base, timings, finish_reason: reason } = event.reply;
          const tokens = plural(draft.kept_tokens + base.tokens, "token");
          const first = timings.first_text_s === null ? "" : ` · first text after ${timings.first_text_s.toFixed(2)} s`;
          say(`${tokens} · ${timings.total_s.toFixed(1)} s${first}${reason === "length" ? " · cut at its limit" : ""}`);
        }
      }
    } catch (error) {
      if (!signal.aborted) say(error instanceof Error ? error.message : String(error));
    }
  }
}
