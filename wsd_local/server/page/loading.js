/** How far the models are loaded: one line above the message field, until they can answer. */

import { request } from "./api.js";
import { byId } from "./dom.js";

/** How often it is looked up, in milliseconds. */
const OFTEN = 400;

let watching = false;

/** Show how far the models are loaded, until they are. */
export async function watchLoading() {
  if (watching) return;
  watching = true;
  const line = byId("loading");
  try {
    for (;;) {
      const { state, progress } = await request("/ui/models");
      if (state !== "loading") return;
      line.textContent = lineOf(progress);
      line.hidden = false;
      await new Promise((done) => setTimeout(done, OFTEN));
    }
  } catch {
    // What is wrong is shown where something was asked for.
  } finally {
    watching = false;
    line.hidden = true;
  }
}

/** @param {{pair?: string, role?: string, fraction?: number}} progress @returns {string} */
function lineOf({ pair, role, fraction }) {
  if (!pair) return "loading the models";
  return `loading ${pair}: the ${role} ${Math.round(100 * (fraction ?? 0))}%`;
}
