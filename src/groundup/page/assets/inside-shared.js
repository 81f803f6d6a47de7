// What Inside, Step by step and Compare share: token names in sentences, the model's window,
// shading a text, and asking only for the newest of many wishes.
import { el, named, prose } from "./kit.js";
import { SourceError } from "./source.js";

export const WRITING_NOTE = "The text is still being written.";

const SHADE = 45; // percent of the colour at most: the text on it keeps a contrast of 4.5 : 1

/** A token's text for a list, cut after `longest` characters. */
export function cut(token, longest = 24) {
  const text = token ? named(token) : "";
  const characters = Array.from(text.slice(0, 4 * longest));
  const whole = characters.length <= longest && text.length <= 4 * longest;
  return whole ? text : `${characters.slice(0, longest - 1).join("")}…`;
}

/** The same in quotation marks; the isolates keep its direction from turning the sentence. */
export function quoted(token, longest = 24) {
  return `“\u2068${cut(token, longest)}\u2069”`;
}

/** The same as an element of its own. */
export function tokenName(token, longest = 24) {
  return el("bdi", { class: "token-name" }, cut(token, longest));
}

/** Where the model's window begins in a text of `length` tokens: the engine's own rule. */
export function windowStart(length, context) {
  if (length <= context) return 0;
  const stride = context - Math.floor(context / 2);
  return stride * Math.ceil((length - context) / stride);
}

/** The part of the shared text that the model sees, and the chosen token's place in it. */
export function windowOf(source, store) {
  const { tokens, position } = store.get();
  const start = windowStart(tokens.length, source.model.context);
  const last = tokens.length - start - 1;
  return {
    start,
    outside: position < start ? position : null,
    tokens: tokens.slice(start),
    position: Math.min(Math.max((position ?? last + start) - start, 0), last),
  };
}

/** One sentence if the text is longer than the window, otherwise nothing. */
export function windowNote({ start, outside, tokens }) {
  if (!start) return "";
  const seen =
    "The text is longer than the model's context. This shows what the model sees now: " +
    `tokens ${start + 1} to ${start + tokens.length}, with the probabilities that they have there.`;
  return outside === null ? seen : `${seen} Token ${outside + 1}, which was chosen, isn't in it.`;
}

/** Shades the spans of a token text by weights in [0, 1]; those without a weight are clear. */
export function shade(text, weights) {
  Array.from(text.children).forEach((span, index) => {
    const share = Math.round(SHADE * (weights?.[index] ?? 0));
    if (span.dataset.share === String(share)) return;
    span.dataset.share = share;
    span.style.backgroundColor = share
      ? `color-mix(in srgb, var(--map-high) ${share}%, transparent)`
      : "transparent";
  });
}

/**
 * `run` calls `action` at once, or, while it still runs, once more afterwards: of many wishes the
 * newest counts. A failure of the source is told in `problem`, in the place of `content`, which
 * also stays hidden while the action returns false.
 */
export function guarded(content, action) {
  const problem = el("p", { class: "bad", role: "alert", hidden: true });
  const attempt = async () => {
    try {
      content.hidden = (await action()) === false;
      problem.hidden = true;
    } catch (error) {
      if (!(error instanceof SourceError)) throw error;
      problem.replaceChildren(...prose(error.message));
      problem.hidden = false;
      content.hidden = true;
    }
  };
  let running = false;
  let again = false;
  const run = async () => {
    again = running;
    if (running) return;
    running = true;
    await attempt().finally(() => {
      running = false;
    });
    if (again) await run();
  };
  return { run, problem };
}
