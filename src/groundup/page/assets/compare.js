// The view Compare: two models on one text, span by span, and where they differ most.
import {
  choice, el, legend, named, number, panel, percent, scrollable, shownInText, table,
} from "./kit.js";
import { cut, tokenName } from "./inside-shared.js";

const LISTED = 20;
const FULL_COLOUR = 4; // nats of difference at which a span has its full colour
const LEGEND =
  "Each span of the text has the colour of the model that predicts it better. A stronger colour " +
  "is a larger difference.";

/** The view Compare, by the contract of a view: for recordings of two models. */
export function makeCompare({ source }) {
  return new Compare(source.recording);
}

class Compare {
  constructor({ models, comparison }) {
    this.inspections = models.map(({ inspection }) => inspection);
    // The first span has no log-probability, because nothing predicts the first token of a text.
    this.spans = comparison.spans.map((span) => ({
      ...span, difference: span.logprob_a - span.logprob_b, predicted: span.logprob_a !== null,
    }));
    this.names = this.inspections.map(({ model }) => model);
    if (this.names[0] === this.names[1]) this.names = ["First model", "Second model"];
    this.chosen = 0;
    this.element = this.layout(comparison.total);
    this.sortBy("size");
    const sizes = this.spans.map(({ difference, predicted }) => predicted * Math.abs(difference));
    this.choose(sizes.indexOf(Math.max(...sizes)));
  }

  show() {}

  hide() {}

  layout(total) {
    this.makeText();
    this.detail = el("div", { class: "compare-detail", "aria-live": "polite" });
    this.listed = scrollable("", "The spans that differ most");
    return el("div", { class: "compare" },
      panel("Who predicts this text better?",
        totals(this.names, total), el("p", { class: "note" }, LEGEND), this.text, this.detail),
      panel(`The ${Math.min(LISTED, this.spans.filter(({ predicted }) => predicted).length)} ` +
        "spans that differ most", this.sorting(), this.listed));
  }

  makeText() {
    const spans = this.spans.map((span, index) => {
      const element = el("span", {
        role: "option", id: `span-${index}`, dataset: { index }, "aria-selected": "false",
        class: span.difference > 0 ? "compare-span is-a" : "compare-span is-b",
        "aria-label": span.text.trim() ? null : named({ text: span.text }),
      }, shownInText({ text: span.text }));
      const share = Math.min(Math.abs(span.difference) / FULL_COLOUR, 1);
      element.style.setProperty("--share", `${Math.round(60 * share)}%`);
      return element;
    });
    const at = (event) => {
      const span = event.target.closest("[data-index]");
      if (span) this.choose(Number(span.dataset.index));
    };
    this.text = el("div", {
      class: "compare-text", role: "listbox", tabindex: "0",
      "aria-label": "The text in spans: choose one to see both models",
      onpointerover: at, onclick: at, onkeydown: (event) => this.key(event),
    }, spans);
  }

  key(event) {
    const last = this.spans.length - 1;
    const moves = {
      ArrowRight: this.chosen + 1, ArrowDown: this.chosen + 1,
      ArrowLeft: this.chosen - 1, ArrowUp: this.chosen - 1, Home: 0, End: last,
    };
    if (!(event.key in moves) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.choose(Math.min(Math.max(moves[event.key], 0), last));
  }

  choose(index) {
    this.text.children[this.chosen]?.setAttribute("aria-selected", "false");
    this.chosen = index;
    const element = this.text.children[index];
    if (!element) return;
    element.setAttribute("aria-selected", "true");
    this.text.setAttribute("aria-activedescendant", element.id);
    const span = this.spans[index];
    this.detail.replaceChildren(
      this.side(0, span.a, span.logprob_a), this.side(1, span.b, span.logprob_b));
  }

  /** One model's tokens of a span with their probabilities. */
  side(which, [first, last], logprob) {
    const tokens = this.inspections[which].tokens.slice(first, last);
    return el("div", {
      class: `compare-side is-${"ab"[which]}`,
      role: "region", tabindex: "0", "aria-label": `By ${this.names[which]}`,
    },
      el("h3", {}, this.names[which]),
      el("p", {}, logprob === null
        ? "The text begins here, so this isn't predicted."
        : `${number(-logprob, 2)} nats, probability ${percent(Math.exp(logprob))}`),
      el("ol", { class: "said" }, tokens.map((token) => el("li", { class: "said-token" },
        tokenName(token, 16),
        el("span", { class: "said-share" },
          token.logprob === null ? "not predicted" : percent(Math.exp(token.logprob)))))));
  }

  sorting() {
    const [a, b] = this.names;
    const options = [
      ["size", "largest difference first"],
      ["a", `best for ${a} first`],
      ["b", `best for ${b} first`],
    ];
    return choice("Order", options, "size", (order) => this.sortBy(order));
  }

  sortBy(order) {
    const merit = {
      size: ({ difference }) => Math.abs(difference),
      a: ({ difference }) => difference,
      b: ({ difference }) => -difference,
    }[order];
    const rows = this.spans.map((span, index) => ({ span, index }))
      .filter(({ span }) => span.predicted)
      .sort((one, other) => merit(other.span) - merit(one.span))
      .slice(0, LISTED)
      .map(({ span, index }) => this.row(span, index));
    const losses = this.names.map((name) => `Loss of ${name} (nats)`);
    const heads = ["Text", ...losses, "Difference"];
    this.listed.replaceChildren(table(heads, rows, { caption: "The spans that differ most" }));
  }

  row(span, index) {
    const sign = span.difference > 0 ? "+" : "";
    const open = el("button", {
      type: "button", class: "compare-open", onclick: () => this.choose(index),
    }, el("bdi", {}, cut({ text: span.text }, 32)));
    return [
      open,
      number(-span.logprob_a, 2),
      number(-span.logprob_b, 2),
      `${sign}${number(span.difference, 2)}`,
    ];
  }
}

/** One line of totals, and which model needs fewer bits for a byte of this text. */
function totals([a, b], { bits_per_byte_a: bitsA, bits_per_byte_b: bitsB }) {
  const verdict = bitsA === bitsB
    ? "Both need the same."
    : `${bitsA < bitsB ? a : b} needs ${number(Math.abs(bitsA - bitsB), 3)} bits per byte fewer.`;
  return el("div", { class: "compare-total" },
    legend([
      ["is-a", `${a}: ${number(bitsA, 3)} bits per byte`],
      ["is-b", `${b}: ${number(bitsB, 3)} bits per byte`],
    ]),
    el("p", {}, verdict));
}
