// A growing text as coloured tokens: one focusable widget that arrows and pointer walk along.

import { el, named, percent, shownInText, tokenColour, uniqueName } from "./kit.js";

const HELD_AT_MOST = 24;
const NEAR_END = 48; // pixels from the end at which a growing text is followed

/**
 * Tokens are {text, bytes, logprob, special}. Listeners: onPoint(index or null) when the pointer
 * comes and goes, onChoose(index) by click or key. A token once painted never moves.
 */
export function makeTokenText({ label, onPoint = () => {}, onChoose = () => {} }) {
  return new TokenText(label, onPoint, onChoose);
}

class TokenText {
  constructor(label, onPoint, onChoose) {
    const role = { role: "listbox", "aria-label": label, tabindex: "0" };
    this.element = el("div", { class: "token-text", ...role });
    this.prefix = uniqueName("token");
    this.onPoint = onPoint;
    this.onChoose = onChoose;
    this.clear();
    this.listen();
  }

  clear() {
    Object.assign(this, { tokens: [], spans: [], chosen: -1, pointed: -1 });
    this.element.replaceChildren();
    this.element.removeAttribute("aria-activedescendant");
  }

  /** Shows other tokens, all at once. */
  show(tokens) {
    this.clear();
    this.tokens.push(...tokens);
    this.release();
    this.element.scrollTop = 0;
  }

  /** Adds tokens at the end; a word is painted when it is whole, so that no line breaks anew. */
  append(tokens) {
    this.tokens.push(...tokens);
    let whole = this.tokens.length;
    if (whole - this.spans.length <= HELD_AT_MOST) {
      do whole -= 1;
      while (whole > this.spans.length && !/^\s/.test(this.tokens[whole].text));
    }
    this.paint(whole);
  }

  /** Paints what is still held back at the end. */
  release() {
    this.paint(this.tokens.length);
  }

  /** Takes what is known better now, from an index on: colours change, places don't. */
  update(first, tokens) {
    tokens.forEach((token, index) => {
      this.tokens[first + index] = token;
      dress(this.spans[first + index], token);
    });
  }

  paint(end) {
    const { element, spans } = this;
    const follows = element.scrollTop + element.clientHeight > element.scrollHeight - NEAR_END;
    const fresh = this.tokens.slice(spans.length, end).map((token, index) => {
      const at = spans.length + index;
      const span = el("span", { role: "option", id: `${this.prefix}-${at}`, "data-index": at });
      dress(span, token);
      return span;
    });
    spans.push(...fresh);
    element.append(...fresh);
    if (follows) element.scrollTop = element.scrollHeight;
  }

  // -- pointing and choosing --

  listen() {
    const indexOf = ({ target }) => Number(target.closest("[data-index]")?.dataset.index ?? -1);
    const point = (index) => {
      if (index === this.pointed) return;
      this.pointed = index;
      this.onPoint(index < 0 ? null : index);
    };
    this.element.addEventListener("pointerover", (event) => {
      if (event.pointerType !== "touch") point(indexOf(event));
    });
    this.element.addEventListener("pointerleave", () => point(-1));
    this.element.addEventListener("click", (event) => {
      if (indexOf(event) >= 0) this.onChoose(indexOf(event));
    });
    this.element.addEventListener("keydown", (event) => {
      const { key, ctrlKey, metaKey, altKey } = event;
      const next = ctrlKey || metaKey || altKey ? undefined : this.nextBy(key);
      if (!(next in this.spans)) return;
      event.preventDefault();
      this.onChoose(next);
    });
  }

  nextBy(key) {
    const last = this.spans.length - 1;
    const from = Math.max(0, this.chosen);
    if (key === "ArrowLeft") return Math.max(0, from - 1);
    if (key === "ArrowRight") return Math.min(last, this.chosen + 1);
    if (key === "ArrowUp") return this.acrossLines(from, -1);
    if (key === "ArrowDown") return this.acrossLines(from, 1);
    return { Home: 0, End: last }[key];
  }

  /** The token above or below: the nearest one of the next line that way. */
  acrossLines(from, step) {
    const { spans } = this;
    const { offsetTop, offsetLeft } = spans[from];
    const distance = (index) => Math.abs(spans[index].offsetLeft - offsetLeft);
    let at = from;
    while (spans[at]?.offsetTop === offsetTop) at += step;
    if (!spans[at]) return from;
    let best = at;
    for (const line = spans[at].offsetTop; spans[at]?.offsetTop === line; at += step) {
      if (distance(at) < distance(best)) best = at;
    }
    return best;
  }

  /** Marks a token, or none for -1. */
  choose(index) {
    this.spans[this.chosen]?.removeAttribute("aria-selected");
    this.element.removeAttribute("aria-activedescendant");
    this.chosen = index in this.spans ? index : -1;
    const span = this.spans[this.chosen];
    if (!span) return;
    const { logprob } = this.tokens[index];
    const share = Number.isFinite(logprob) ? `, ${percent(Math.exp(logprob))}` : "";
    span.setAttribute("aria-label", named(this.tokens[index]) + share);
    span.setAttribute("aria-selected", "true");
    this.element.setAttribute("aria-activedescendant", span.id);
    this.bringToSight(span);
  }

  /** Scrolls the text alone, never the page. */
  bringToSight(span) {
    const box = this.element.getBoundingClientRect();
    const { top, bottom } = span.getBoundingClientRect();
    if (top < box.top) this.element.scrollTop -= box.top - top + 8;
    else if (bottom > box.bottom) this.element.scrollTop += bottom - box.bottom + 8;
  }
}

function dress(span, token) {
  const text = shownInText(token);
  if (span.textContent !== text) span.textContent = text;
  if (!text.trim()) span.setAttribute("aria-label", named(token)); // white space says nothing
  span.classList.toggle("special", Boolean(token.special));
  span.style.backgroundColor = tokenColour(token.logprob);
}
