// The real numbers of a stage: vectors as strips, token values beside their tokens, bytes, bars.
import { bars, el, number, percent, scrollable, strip } from "./kit.js";
import { cut, tokenName } from "./inside-shared.js";

const MASK = "seen"; // 1 for a token that may be read, 0 for a later one
const BARS_SHOWN = 12;
const FIGURES_SHOWN = 4; // so few numbers need no strip of colours

/** The element that shows one entry of a stage's `values`; `tokens` are those of the text. */
export function valueOf(value, tokens) {
  const label = `${value.name} [${value.shape.join(", ")}]`;
  const bytes = `${label}: hexadecimal, decimal`;
  if (value.name === "bytes") return labelled(bytes, bytesOf(value.data));
  if (value.kind === "tokens") return labelled(label, tokenValues(value, tokens));
  if (value.kind === "vocabulary") return labelled(label, vocabularyBars(value));
  if (value.data.length <= FIGURES_SHOWN) return figures(value);
  return el("div", { class: "value" }, strip(value.data.map(finite), { label }));
}

/** JSON has no infinity, so that a masked score arrives as null. */
function finite(entry) {
  return entry ?? -Infinity;
}

function labelled(label, content) {
  return el("div", { class: "value" }, el("p", { class: "value-label" }, label), content);
}

function figures(value) {
  const texts = value.data.map(finite).map((entry) =>
    Number.isInteger(entry) ? String(entry) : number(entry, 4));
  return el("p", { class: "value value-figures" },
    el("span", { class: "value-label" }, value.name), ` ${texts.join(", ")}`);
}

function bytesOf(data) {
  return el("ul", { class: "byte-list" }, data.map((byte) => el("li", {},
    el("span", { class: "byte-hex" }, byte.toString(16).padStart(2, "0")),
    el("span", { class: "byte-decimal" }, String(byte)))));
}

/** Each token of the text with its number below, shaded by it; a long text scrolls. */
function tokenValues(value, tokens) {
  const data = value.data.map(finite);
  const words = entryWords(value);
  const sizes = data.filter(Number.isFinite).map(Math.abs);
  const largest = sizes.reduce((most, size) => Math.max(most, size), 1e-9);
  const list = el("ol", { class: "token-values" }, data.map((entry, index) => {
    const item = el("li", { class: `token-value ${signClass(entry, value.range)}` },
      tokenName(tokens[index], 14), el("span", { class: "figure" }, words(entry)));
    const share = Number.isFinite(entry) ? Math.abs(entry) / largest : 0;
    item.style.setProperty("--weight", share.toFixed(3));
    return item;
  }));
  const area = scrollable(list, `${value.name}, one number for each token`);
  if (value.name === MASK) return area;
  const top = data.indexOf(Math.max(...data));
  return el("div", {}, area, el("p", { class: "readout" },
    "The largest: ", tokenName(tokens[top], 14),
    `, at place ${top + 1}, with ${words(data[top])}.`));
}

function entryWords({ name, range }) {
  if (name === MASK) return (entry) => (entry ? "seen" : "masked");
  return range === "probability" ? percent : (entry) => number(entry, 2);
}

function signClass(entry, range) {
  if (!Number.isFinite(entry)) return "is-masked";
  if (range === "probability") return "is-probability";
  return entry < 0 ? "is-negative" : "is-positive";
}

function vocabularyBars(value) {
  const data = value.data.map(finite);
  const isProbability = value.range === "probability";
  const [low, high] = [Math.min(...data, 0), Math.max(...data, 1e-9)];
  const entries = value.tokens.map((token, index) => ({
    name: cut(token, 14),
    p: isProbability ? data[index] : (data[index] - low) / (high - low),
    note: isProbability ? percent(data[index]) : number(data[index], 2),
  }));
  const list = bars(entries, { label: value.name });
  return entries.length > BARS_SHOWN ? scrollable(list, `${value.name}, all entries`) : list;
}

/** The line from 0 to 1 with the part of the drawn token, and the random number that fell on it. */
export function drawLine(values) {
  const named = (name) => values.find((value) => value.name === name)?.data;
  const [uniform] = named("uniform") ?? [];
  const [from, to] = named("from, to") ?? [];
  if (uniform === undefined || from === undefined) return "";
  const part = el("span", { class: "draw-part" });
  const mark = el("span", { class: "draw-mark" });
  part.style.insetInlineStart = `${100 * from}%`;
  part.style.inlineSize = `${100 * (to - from)}%`;
  mark.style.insetInlineStart = `${100 * uniform}%`;
  return el("div", {
    class: "draw-line", role: "img",
    "aria-label": `The random number ${number(uniform, 4)} falls between ${number(from, 4)} and ` +
      `${number(to, 4)}, the part of the drawn token on the line from 0 to 1.`,
  }, part, mark, el("span", { class: "draw-zero" }, "0"), el("span", { class: "draw-one" }, "1"));
}
