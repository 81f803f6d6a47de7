// Where the numbers come from: the server that sent this page, or a recording inside it.

import { float16s, float32s } from "./kit.js";
import { expanded } from "./recording.js";

const KEY = "groundup-key";
const SENDABLE = /^[\x21-\x7e\xa0-\xff]+$/; // what a header can hold
const BUSY_TRIES = 60;
const LOADING_TRIES = 600;
const REMEMBERED = 24; // answers kept; one for 1,000 tokens is about a megabyte
const SENTENCES = {
  401: "The server asks for a key, and it got none or another one.",
  429: "The server is busy. Please try again in a moment.",
  503: "The server isn't ready: it loads the model, or it is about to stop.",
};

/** The source of this page, live or recorded. `askKey(refused)` resolves to a key or null. */
export function makeSource(askKey) {
  const recording = document.getElementById("recording");
  return recording ? recorded(expanded(JSON.parse(recording.textContent))) : live(askKey);
}

/** What went wrong, as a sentence to show. */
export class SourceError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

// ---- the server ----

function live(askKey) {
  const ask = asker(askKey);
  const answers = new Map();
  const remembered = (name, make) => remember(answers, name, make);
  const inspected = async (prompt, fields) => {
    const answer = await ask("v1/inspect", { prompt, scores: false, ...fields });
    const { id, shape } = source.model; // a server that was started again may have another one
    if (answer.model !== id || JSON.stringify(answer.shape) !== JSON.stringify(shape)) {
      answers.clear();
      throw new SourceError("The server has another model now. Reload the page.");
    }
    return answer;
  };
  const about = (prompt, fields) =>
    remembered(JSON.stringify([prompt, fields]), () => inspected(prompt, fields));
  const source = {
    isLive: true,
    recording: null,
    model: null,
    inspect: (tokens) => about(tokens, { scores: true, top: 5 }),
    thumbnails: async (tokens) => (await about(tokens, { thumbnails: 64 })).thumbnails,
    heads: async (tokens, pairs) =>
      (await about(tokens, { attention: pairs })).attention.map(decodedMap),
    lens: async (tokens, positions) => (await about(tokens, { lens: positions })).lens,
    stages: async (tokens, wanted) => (await about(tokens, { stages: wanted })).stages,
    distribution: async (tokens, position) =>
      decodedDistribution((await about(tokens, { distribution: position })).distribution),
    run: () => remembered("run", () => ask("v1/run")),
    encode: async (text) => (await about(text, {})).tokens,
    stream: (tokens, settings, options) => stream(ask, tokens, settings, options),
  };
  source.ready = describe(ask, source);
  return source;
}

/** The newest answers by their questions; one that failed is asked again. */
function remember(answers, name, make) {
  const found = answers.get(name) ?? make();
  answers.delete(name);
  answers.set(name, found);
  found.catch(() => answers.delete(name));
  if (answers.size > REMEMBERED) answers.delete(answers.keys().next().value);
  return found;
}

async function describe(ask, source) {
  const { data } = await ask("v1/models");
  const answer = await ask("v1/inspect", { prompt: [0], top: 20 });
  const words = answer.next.top.map(({ text }) => text.trim());
  source.model = {
    id: data[0].id,
    context: data[0].max_model_len ?? answer.shape.block_size,
    shape: answer.shape,
    fingerprint: answer.system_fingerprint,
    opening: words.find((word) => /^\p{L}+$/u.test(word)) ?? "", // what it can read for certain
  };
}

/** A function that asks the server: with the key, patiently while it is busy or loading. */
function asker(askKey) {
  let asked = null; // one dialog for all requests that lack the key
  const newKey = (refused) => {
    asked ??= askKey(refused).finally(() => {
      asked = null;
    });
    return asked;
  };
  return async function ask(path, body = null, { signal, whole = true } = {}) {
    for (let tries = 0; ; tries += 1) {
      const key = sessionStorage.getItem(KEY);
      const response = await fetched(path, body, key, signal);
      if (response.ok) return whole ? response.json() : response;
      const error = await errorOf(response);
      if (response.status === 401) {
        const fresh = await newKey(Boolean(key));
        if (!fresh) throw error;
        if (SENDABLE.test(fresh)) sessionStorage.setItem(KEY, fresh); // if not, it's asked again
      } else if (whole && patient(response.status, tries)) {
        await new Promise((resolve) => setTimeout(resolve, 1000));
      } else throw error;
    }
  };
}

function patient(status, tries) {
  return (status === 429 && tries < BUSY_TRIES) || (status === 503 && tries < LOADING_TRIES);
}

async function fetched(path, body, key, signal) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  if (body) headers["Content-Type"] = "application/json";
  const method = body ? "POST" : "GET";
  try {
    return await fetch(path, { method, headers, body: body && JSON.stringify(body), signal });
  } catch (error) {
    throw error.name === "AbortError" ? error : lost();
  }
}

function lost() {
  return new SourceError("The connection to the server was lost. Is `groundup serve` running?");
}

async function errorOf(response) {
  const { status } = response;
  const body = await response.json().catch(() => ({}));
  const message = body.error?.message;
  const sentence = SENTENCES[status] ?? message ?? `The server answered with status ${status}.`;
  return new SourceError(sentence, status);
}

// ---- a text while it is written ----

async function stream(ask, tokens, settings, { onTokens, signal }) {
  const body = {
    prompt: tokens,
    stream: true,
    logprobs: 5,
    return_token_ids: true,
    ...settings,
  };
  const response = await ask("v1/completions", body, { signal, whole: false });
  const pairs = { ids: [], names: [], logprobs: [], tops: [], given: 0 };
  let finish = null;
  for await (const event of events(response)) {
    if (event.error) throw new SourceError(event.error.message);
    const choice = event.choices?.[0];
    if (!choice) continue;
    finish = choice.finish_reason ?? finish;
    const fresh = paired(pairs, choice);
    if (fresh.length) onTokens(fresh);
  }
  return finish;
}

/** The data of server-sent events, in order. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read().catch((error) => {
      throw error.name === "AbortError" ? error : lost();
    });
    if (done) throw lost(); // a whole stream ends with [DONE]
    const blocks = (rest + value).split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.replace(/^data: ?/, "");
      if (data === "[DONE]") return;
      if (block.startsWith("data:")) yield JSON.parse(data);
    }
  }
}

/** Ids and log-probabilities may come in different events: the tokens that have both now. */
function paired(pairs, { token_ids: ids = [], logprobs }) {
  pairs.ids.push(...ids);
  pairs.names.push(...(logprobs?.tokens ?? []));
  pairs.logprobs.push(...(logprobs?.token_logprobs ?? []));
  pairs.tops.push(...(logprobs?.top_logprobs ?? []));
  const fresh = [];
  for (; pairs.given < Math.min(pairs.ids.length, pairs.names.length); pairs.given += 1) {
    const at = pairs.given;
    const top = Object.entries(pairs.tops[at] ?? {}).map(([name, logprob]) => ({
      ...tokenOfName(name), logprob,
    }));
    top.sort((a, b) => b.logprob - a.logprob);
    const token = tokenOfName(pairs.names[at]);
    fresh.push({ ...token, id: pairs.ids[at], logprob: pairs.logprobs[at], top });
  }
  return fresh;
}

/** Completions spell bytes that are no text as "bytes:\xe2\x80". */
function tokenOfName(name) {
  const isText = !/^bytes:(\\x[0-9a-f]{2})+$/.test(name);
  if (isText) return { text: name, bytes: Array.from(new TextEncoder().encode(name)) };
  const bytes = name.match(/[0-9a-f]{2}(?=\\|$)/g).map((pair) => parseInt(pair, 16));
  return { text: "\ufffd", bytes };
}

// ---- a recording ----

function recorded(recording) {
  let chosen = recording.models[0];
  const serve = () => `\`groundup serve ${chosen.inspection.model}\` has it for all.`;
  const missing = (what) => new SourceError(`This file has no ${what}; ${serve()}`);
  const source = {
    isLive: false,
    recording,
    /** The one token whose way and distribution are there. */
    get position() {
      return chosen.stages.position;
    },
    model: null,
    ready: Promise.resolve(),
    /** Turns to another of the recorded models. */
    turnTo(index) {
      chosen = recording.models[index];
      source.model = recordedModel(chosen);
    },
    inspect: async () => chosen.inspection,
    thumbnails: async () => chosen.inspection.thumbnails,
    heads: async (_tokens, pairs) => pairs.map(([layer, head]) => {
      const found = chosen.inspection.attention
        ?.find((map) => map.layer === layer && map.head === head);
      if (!found) throw missing(`map of layer ${layer + 1}, head ${head + 1}`);
      return decodedMap(found);
    }),
    lens: async (_tokens, positions) => positions.map((position) => {
      const found = chosen.inspection.lens?.find((column) => column.position === position);
      if (!found) throw missing(`lens of token ${position + 1}`);
      return found;
    }),
    async stages(_tokens, { position, layer, head }) {
      const { stages } = chosen;
      if (stages?.position !== position) throw onlyOne("step by step", stages, serve);
      const all = Object.values(stages.by_layer).flat();
      const found = all.find((each) => each.layer === layer && each.head === head);
      if (!found) throw missing(`step by step for layer ${layer + 1}, head ${head + 1}`);
      return found;
    },
    async distribution(_tokens, position) {
      const found = chosen.distributions?.find((each) => each.position === position);
      if (!found) throw onlyOne("the distribution", chosen.distributions?.[0], serve);
      return decodedDistribution(found);
    },
    run: async () => chosen.run ?? null,
  };
  source.turnTo(0);
  return source;
}

function onlyOne(what, has, serve) {
  if (!has) return new SourceError(`This file lacks ${what}; ${serve()}`);
  return new SourceError(`This file has ${what} for token ${has.position + 1} alone; ${serve()}`);
}

function recordedModel({ inspection }) {
  const { model: id, shape, system_fingerprint: fingerprint } = inspection;
  return { id, shape, context: shape.block_size, fingerprint };
}

// ---- numbers that travel as base64 ----

function decodedMap({ layer, head, weights }) {
  return { layer, head, weights: float16s(weights) };
}

function decodedDistribution({ position, logprobs, tokens }) {
  return { position, logprobs: float32s(logprobs), tokens };
}
