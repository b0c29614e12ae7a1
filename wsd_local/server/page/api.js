/**
 * Requests to the server that sent this page, and to no other. An error is one line (`ApiError`). Where the server wants
 * a key, the person is asked for it once; it stays in this tab's session storage.
 */

import { Lines } from "./sse.js";

const KEY = "wsd-local.key";

/** An answer that is an error; `message` is for people. */
export class ApiError extends Error {
  /** @param {string} message @param {number} status */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** @type {() => Promise<string | null>} */
let askForKey = async () => null;

/**
 * How a person is asked for the server's key; null: not given.
 * @param {() => Promise<string | null>} ask
 */
export function onKeyWanted(ask) {
  askForKey = ask;
}

/**
 * A JSON answer.
 * @param {string} path
 * @param {{method?: string, body?: object}} [options]
 * @returns {Promise<any>}
 */
export async function request(path, options = {}) {
  return (await send(path, options)).json();
}

/**
 * A file.
 * @param {string} path
 * @returns {Promise<Blob>}
 */
export async function file(path) {
  return (await send(path, {})).blob();
}

/**
 * Events of a stream, as they come.
 * @param {string} path
 * @param {object} body
 * @param {AbortSignal} [signal] ends the stream, and with it what the server does for it
 * @returns {AsyncGenerator<any>}
 */
export async function* stream(path, body, signal) {
  const answer = await send(path, { method: "POST", body, signal });
  const reader = /** @type {ReadableStream<Uint8Array>} */ (answer.body).getReader();
  const decoder = new TextDecoder();
  const lines = new Lines();
  let complete = false;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      complete = done;
      if (done) return;
      for (const data of lines.add(decoder.decode(value, { stream: true }))) yield JSON.parse(data);
    }
  } catch (error) {
    if (signal?.aborted) return;
    throw new ApiError("the connection to the server was lost", 0);
  } finally {
    if (!complete) reader.cancel().catch(() => {});
  }
}

/**
 * @param {string} path
 * @param {{method?: string, body?: object, signal?: AbortSignal}} options
 * @returns {Promise<Response>}
 */
async function send(path, options) {
  for (;;) {
    const used = sessionStorage.getItem(KEY);
    const answer = await sendOnce(path, options);
    if (answer.ok) return answer;
    if (answer.status === 401) {
      if (sessionStorage.getItem(KEY) !== used) continue; // another request has received it meanwhile
      const key = await askForKey();
      if (key) {
        sessionStorage.setItem(KEY, key);
        continue;
      }
      sessionStorage.removeItem(KEY);
    }
    throw new ApiError(await messageOf(answer), answer.status);
  }
}

/**
 * @param {string} path
 * @param {{method?: string, body?: object, signal?: AbortSignal}} options
 * @returns {Promise<Response>}
 */
async function sendOnce(path, { method = "GET", body, signal }) {
  /** @type {Record<string, string>} */
  const headers = {};
  const key = sessionStorage.getItem(KEY);
  if (key) headers["Authorization"] = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  try {
    return await fetch(path, { method, headers, body: body && JSON.stringify(body), signal, credentials: "omit" });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError("the server cannot be reached: is it still running?", 0);
  }
}

/** @param {Response} answer @returns {Promise<string>} */
async function messageOf(answer) {
  try {
    const found = await answer.json();
    return found.error.message ?? found.error;
  } catch {
    return `the server answered ${answer.status}`;
  }
}
