// What the model knew about one token: its bytes, its probability, and what could have stood there.

import { bars, button, count, el, hexadecimal, number, percent } from "./kit.js";
import { cut } from "./inside-shared.js";

const BYTES_SHOWN = 12;

/**
 * A panel of fixed height. onBranch(index, token), if given, goes on from an alternative;
 * onStep(1 or -1) goes to the next token or the one before: on a phone there are no arrow keys.
 */
export function makeTokenPanel(onBranch, onStep) {
  const step = (sign, label, by) =>
    button(sign, () => onStep(by), { class: "token-step", "aria-label": label });
  const name = el("p", { class: "token-big" });
  const facts = el("dl", { class: "facts" });
  const list = el("div", {});
  const hint = el("p", { class: "small soft" });
  const body = el("div", { class: "token-body", hidden: true },
    el("div", { class: "token-head" },
      name, step("←", "Previous token", -1), step("→", "Next token", 1)),
    facts, el("h3", {}, "What could have stood here"), list, hint);
  const empty = el("p", { class: "note small" },
    "Point at a token, or walk along the text with the arrow keys. Here you see how probable the "
    + "model held it, and what else it held for probable.");
  const element = el("aside", { class: "panel token-panel", "aria-label": "One token" },
    empty, body);
  let current = null;
  return {
    element,
    /** Shows token `index` of `total`, or the invitation if there is none. */
    show(token, index, total) {
      current = token ? { token, index } : null;
      empty.hidden = Boolean(token);
      body.hidden = !token;
      if (!token) return;
      name.textContent = cut(token, 28);
      facts.replaceChildren(...factsOf(token, index, total));
      const choosable = Boolean(onBranch) && (token.top ?? []).every(({ id }) => id !== undefined);
      list.replaceChildren(alternatives(token, choosable && ((each) => onBranch(index, each))));
      hint.textContent = hintFor(token, choosable);
    },
    /** Goes on from the alternative of a number key, if it's one. */
    takeKey({ key }) {
      const chosen = /^[1-9]$/.test(key) ? current?.token.top?.[Number(key) - 1] : undefined;
      if (onBranch && chosen?.id !== undefined) onBranch(current.index, chosen);
    },
  };
}

function known(logprob) {
  return logprob !== null && logprob !== undefined;
}

function factsOf(token, index, total) {
  const entries = [["Place", `${count(index + 1)} of ${count(total)}`]];
  if (known(token.logprob)) {
    entries.unshift(
      ["Probability", percent(Math.exp(token.logprob))],
      ["Loss", `${number(-token.logprob, 2)} nats`],
    );
  }
  if (token.id !== undefined) entries.push(["Id", String(token.id)]);
  if (token.bytes) entries.push(["Bytes", bytesOf(token)]);
  return entries.map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value)));
}

function bytesOf({ bytes }) {
  const first = hexadecimal(bytes.slice(0, BYTES_SHOWN));
  return bytes.length > BYTES_SHOWN ? `${first} … (${count(bytes.length)})` : first;
}

function alternatives(token, onChoose) {
  const top = token.top ?? [];
  const same = (each) => (known(each.id) ? each.id === token.id : each.text === token.text);
  const at = top.findIndex(same);
  const all = at < 0 && known(token.logprob) && top.length ? [...top, token] : top;
  const entries = all.map((each) => ({
    name: cut(each, 20), p: Math.exp(each.logprob), token: each,
  }));
  const list = bars(entries, {
    chosen: at < 0 ? all.length - 1 : at,
    onChoose: onChoose && ((entry) => onChoose(entry.token)),
    label: "Alternatives",
  });
  list.querySelectorAll("button").forEach((row, index) => {
    const { name, p } = entries[index];
    row.setAttribute("aria-label", `Go on with ${name}, ${percent(p)}`);
  });
  return list;
}

function hintFor(token, choosable) {
  if (!token.top?.length) return "Nothing stands before this token: the model didn't foresee it.";
  if (!choosable) return "";
  return matchMedia("(pointer: coarse)").matches
    ? "Tap one to go on there."
    : "Click one, or press 1 to 5, to go on there.";
}
