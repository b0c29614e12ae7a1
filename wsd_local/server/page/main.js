/** The page's beginning: puts the parts together, and shows the chat that the address names. */

import { ApiError, file, onKeyWanted, request } from "./api.js";
import { ChatList } from "./chats.js";
import { copy } from "./clipboard.js";
import { Compare } from "./compare.js";
import { Composer } from "./composer.js";
import { conversation } from "./conversation.js";
import { askLine, closeByBackdrop } from "./dialogs.js";
import { byId, el } from "./dom.js";
import { listen } from "./keys.js";
import { watchLoading } from "./loading.js";
import { announce, clear, show, trying } from "./notices.js";
import { Settings } from "./settings.js";
import { state } from "./state.js";
import { Why } from "./why.js";

const MODES = { wsd: "draft, then base", base: "base alone", draft: "draft alone" };

/** How often models are asked for until they are there, in milliseconds. */
const AGAIN = 2000;

onKeyWanted(() => askLine("This server wants a key", { label: "API key", secret: true, confirm: "Use it" }));

const chats = new ChatList();
const why = new Why(conversation.scores);
const composer = new Composer();
const settings = new Settings();
const compare = new Compare();
conversation.openWhy = () => why.show(true);
state.on("theme", () => why.chart.restyle());

const newChat = () => chats.open(null);
listen({ newChat, compare: () => compare.open(), why: () => why.show(!why.open) });

byId("new").addEventListener("click", newChat);
byId("why-toggle").addEventListener("click", () => why.show(!why.open));
byId("notice-close").addEventListener("click", clear);
byId("help-open").addEventListener("click", () => byId("help").showModal());
for (const id of ["list-toggle", "veil"]) byId(id).addEventListener("click", toggleList);
for (const dialog of document.querySelectorAll("dialog")) closeByBackdrop(dialog);
for (const button of document.querySelectorAll("[data-closes]")) {
  button.addEventListener("click", () => byId(button.getAttribute("data-closes") ?? "").close());
}
document.addEventListener("click", (event) => {
  const target = /** @type {Element} */ (event.target);
  const button = target.closest("[data-copy]");
  if (button) copy(button.closest(".code")?.querySelector("pre")?.innerText ?? "");
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(target) || target.closest("button")) menu.removeAttribute("open");
  }
});

function toggleList() {
  const open = byId("app").classList.toggle("with-list");
  byId("list-toggle").setAttribute("aria-expanded", String(open));
  if (open) byId("search").focus();
}

// -- the open chat ---------------------------------------------------------------------------------------------------

/** @param {string} name @param {() => Promise<void>} work */
const onMenu = (name, work) => byId(name).addEventListener("click", () => trying(work));

onMenu("rename", async () => {
  if (state.chat === null) return;
  const { id } = state.chat;
  const title = await askLine("Rename the chat", { value: state.chat.title, label: "Title", confirm: "Rename" });
  if (title === null || !title.trim()) return;
  state.chat = await request(`/ui/chats/${id}/title`, { method: "PUT", body: { title } });
  conversation.draw();
  await chats.load();
});

onMenu("delete", async () => {
  if (state.chat === null) return;
  const { id } = state.chat;
  await conversation.stop();
  await request(`/ui/chats/${id}`, { method: "DELETE" });
  await conversation.open(null);
  await chats.load();
  show("the chat is in the bin, and is erased after 30 days", "note");
});

for (const kind of ["markdown", "json"]) {
  onMenu(`export-${kind}`, async () => {
    if (state.chat === null) return;
    const blob = await file(`/ui/chats/${state.chat.id}/export?kind=${kind}`);
    const url = URL.createObjectURL(blob);
    el("a", { href: url, download: `chat-${state.chat.id}.${kind === "json" ? "json" : "md"}` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  });
}

state.on("conversation", () => {
  byId("menu").hidden = state.chat === null;
  byId("compare-open").disabled = !state.entries.length;
  const own = state.models.find((model) => model.pair === state.chat?.pair);
  if (own && state.model?.pair !== own.pair && !state.entries.some((entry) => entry.state === "writing")) {
    state.keep({ model: own.id });
  }
});

// -- models ----------------------------------------------------------------------------------------------------------

byId("model").addEventListener("change", () => state.keep({ model: byId("model").value }));
state.on("settings", () => {
  byId("model").value = state.model?.id ?? "";
});

async function loadModels() {
  const found = await request("/ui/models");
  state.models = found.models;
  state.defaults = found.settings;
  const pairs = [...new Set(state.models.map((model) => model.pair))];
  const groups = pairs.map((pair) => {
    const own = state.models.filter((model) => model.pair === pair);
    const options = own.map((model) => el("option", { value: model.id }, `${pair} · ${MODES[model.mode]}`));
    return pairs.length === 1 ? options : [el("optgroup", { label: pair }, ...options)];
  });
  byId("model").replaceChildren(...groups.flat());
  byId("version").textContent = `wsd-local ${found.version}`;
  state.changed("settings");
  state.changed("busy");
}

async function begin() {
  try {
    await loadModels();
    watchLoading();
    await chats.load();
    const named = /^#chat=(\d+)$/.exec(location.hash);
    await conversation.open(named ? Number(named[1]) : null);
    byId("message").focus();
  } catch (error) {
    show(error);
    conversation.draw();
    if (error instanceof ApiError && [0, 503].includes(error.status)) setTimeout(begin, AGAIN);
  }
}

window.addEventListener("focus", () => {
  chats.load().catch(() => {});
  conversation.refresh().catch(() => {});
});
window.addEventListener("hashchange", () => {
  const named = /^#chat=(\d+)$/.exec(location.hash);
  if (named && Number(named[1]) !== state.chat?.id) trying(() => conversation.open(Number(named[1])));
});

byId("app").hidden = false;
begin().then(() => {
  document.documentElement.dataset.ready = "true";
  announce("");
});

export { composer, settings };
