// What every view shares: elements, words for tokens and numbers, strips, bars, and one store.

const DECODER = new TextDecoder("utf-8", { fatal: true });
const INVISIBLE = /^[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Mn}\p{Default_Ignorable_Code_Point}]+$/u;
const MARKS = { "\n": "⏎", "\t": "⇥", "\r": "␍" };
const NO_BREAK_SPACE = "\u00a0";
const MINUS = "−";
const BLUE = [47, 111, 223];
const ORANGE = [224, 122, 31];
const SURPRISE_BITS = 12; // at 1 in 4,096 a token has the full colour

// ---- elements ----

/** An element with attributes, listeners (`onclick: fn`), `dataset`, `style` and children. */
export function el(tag, attributes = {}, ...children) {
  return furnish(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return furnish(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function furnish(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2).toLowerCase(), value);
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (name === "style") setStyle(element, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

function setStyle(element, style) {
  for (const [name, value] of Object.entries(style)) element.style.setProperty(name, value);
}

let lastName = 0;

/** A name that no other element of the page has, for `id`, `aria-controls` and the like. */
export function uniqueName(prefix) {
  lastName += 1;
  return `${prefix}-${lastName}`;
}

/** A sentence whose `words between backticks` are code, as nodes. */
export function prose(sentence) {
  return sentence.split("`").map((part, index) => (index % 2 ? el("code", {}, part) : part));
}

// ---- tokens as text ----

/** A token's text with signs for what can't be seen; bytes that are no character as figures. */
export function shown(token) {
  const text = token.bytes?.length ? decoded(token.bytes) : token.text;
  if (text.length && INVISIBLE.test(text)) {
    return [...text].map((sign) => MARKS[sign] ?? `⟨U+${codePoint(sign)}⟩`).join("");
  }
  return text.replace(/[\n\t\r]/g, (sign) => MARKS[sign]).replace(/\p{Cc}/gu, controlPicture);
}

/** The same for a running text: each sign for a new line is followed by the new line itself. */
export function shownInText(token) {
  return shown(token).replaceAll("⏎", "⏎\n");
}

/** The same for a list or a sentence: spaces at the ends can be seen. */
export function named(token) {
  return shown(token).replace(/^ +| +$/g, (spaces) => "␣".repeat(spaces.length)) || "⟨empty⟩";
}

function codePoint(sign) {
  return sign.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
}

function controlPicture(sign) {
  const code = sign.codePointAt(0);
  return code < 32 ? String.fromCodePoint(0x2400 + code) : `⟨U+${codePoint(sign)}⟩`;
}

function decoded(bytes) {
  const whole = character(bytes, 0, bytes.length);
  if (whole !== null) return whole;
  let text = "";
  let broken = [];
  const close = () => {
    if (broken.length) text += `⟨${hexadecimal(broken)}⟩`;
    broken = [];
  };
  for (let at = 0; at < bytes.length; ) {
    const lead = bytes[at];
    const length = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    const sign = at + length <= bytes.length ? character(bytes, at, at + length) : null;
    if (sign === null) broken.push(lead);
    else {
      close();
      text += sign;
    }
    at += sign === null ? 1 : length;
  }
  close();
  return text;
}

function character(bytes, first, last) {
  try {
    return DECODER.decode(Uint8Array.from(bytes.slice(first, last)));
  } catch {
    return null;
  }
}

/** Bytes as pairs of hexadecimal digits: "e2 80". */
export function hexadecimal(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
}

// ---- numbers as text ----

/** A probability: "12.3 %", "0.012 %", "<0.001 %". */
export function percent(probability) {
  const hundredths = probability * 100;
  if (!Number.isFinite(hundredths)) return "no value";
  if (hundredths > 0 && hundredths < 0.0005) return `<0.001${NO_BREAK_SPACE}%`;
  const digits = hundredths >= 9.995 || hundredths === 0 ? 1 : hundredths >= 0.995 ? 2 : 3;
  return `${hundredths.toFixed(digits)}${NO_BREAK_SPACE}%`;
}

/** A number with so many digits after the point, and with a true minus sign. */
export function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "no value";
  if (!Number.isFinite(value)) return value < 0 ? `${MINUS}∞` : "∞";
  const [sign, size] = [value < 0 ? MINUS : "", Math.abs(value)];
  if (size === 0 || size >= 0.5 * 10 ** -digits) return sign + grouped(size.toFixed(digits));
  if (digits > 2) return sign + size.toExponential(1).replace("e-", `e${MINUS}`);
  if (size >= 0.0005) return sign + size.toFixed(3);
  return sign ? `>${MINUS}0.001` : "<0.001";
}

/** A whole number with its thousands apart: "1,815,360". */
export function count(value) {
  return grouped(String(Math.round(value)));
}

function grouped(text) {
  return text.replace(/\B(?<!\.\d*)(?=(\d{3})+(?!\d))/g, ",");
}

// ---- colours ----

/** The colour of a token by the model's own probability of it: the less probable, the stronger. */
export function tokenColour(logprob) {
  if (logprob === null || logprob === undefined) return "transparent";
  const bits = Math.min(SURPRISE_BITS, -logprob / Math.LN2);
  const share = Math.round((100 * bits) / SURPRISE_BITS);
  return `color-mix(in srgb, var(--surprise) ${share}%, var(--paper))`;
}

/** Red, green, blue and alpha of a value: 0 is clear, so that pictures suit light and dark. */
export function valueColour(value, largest = 1) {
  const [red, green, blue] = value < 0 ? BLUE : ORANGE;
  return [red, green, blue, Math.round(255 * Math.min(1, Math.abs(value) / (largest || 1)))];
}

/** Draws values row after row, a pixel each; the style sheet scales the canvas, unsmoothed. */
export function paintValues(canvas, values, columns, largest) {
  canvas.width = columns;
  canvas.height = Math.ceil(values.length / columns);
  const context = canvas.getContext("2d");
  const picture = context.createImageData(canvas.width, canvas.height);
  for (let index = 0; index < values.length; index += 1) {
    picture.data.set(valueColour(values[index], largest), 4 * index);
  }
  context.putImageData(picture, 0, 0);
}

// ---- strips ----

const COLUMNS = 128;
const FIGURES_A_ROW = 8;

/**
 * A vector as a strip of colours: a button that opens into a table of figures. Blue is negative
 * and orange positive, and the largest size has the full colour.
 */
export function strip(values, { label } = {}) {
  const rows = Math.ceil(values.length / COLUMNS) || 1;
  const columns = Math.ceil(values.length / rows) || 1;
  let largest = 0;
  for (const value of values) largest = Math.max(largest, Math.abs(value));
  const style = { "--rows": rows };
  const canvas = el("canvas", { class: "strip-cells", "aria-hidden": "true", style });
  paintValues(canvas, values, columns, largest);
  const reading = el("span", { class: "strip-reading" }, reach(values));
  const figures = el("div", { class: "strip-figures", id: uniqueName("figures"), hidden: true });
  const button = el(
    "button",
    { type: "button", class: "strip-button", "aria-expanded": "false",
      "aria-controls": figures.id },
    el("span", { class: "strip-label" }, label),
    reading,
    canvas,
  );
  button.addEventListener("click", () => toggleFigures(button, figures, values, label));
  canvas.addEventListener("pointermove", (event) => {
    const column = Math.floor((event.offsetX / canvas.clientWidth) * columns);
    const row = Math.floor((event.offsetY / canvas.clientHeight) * rows);
    const index = row * columns + column;
    if (index in values) reading.textContent = `${index}: ${number(values[index])}`;
  });
  canvas.addEventListener("pointerleave", () => {
    reading.textContent = reach(values);
  });
  return el("div", { class: "strip" }, button, figures);
}

function reach(values) {
  const ends = values.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [0, 0]);
  return ends.map((end) => number(end, 2)).join(" to ");
}

function toggleFigures(button, figures, values, label) {
  const opens = figures.hidden;
  const name = `Figures: ${label}`;
  if (!figures.firstChild) figures.append(scrollable(figuresOf(values, label), name));
  figures.hidden = !opens;
  button.setAttribute("aria-expanded", String(opens));
}

function figuresOf(values, label) {
  const width = Math.min(FIGURES_A_ROW, values.length);
  const head = Array.from({ length: width }, (_, column) => `+${column}`);
  const rows = [];
  for (let first = 0; first < values.length; first += width) {
    const row = Array.from(values.slice(first, first + width), (value) => number(value));
    rows.push([String(first), ...row, ...Array(width - row.length).fill("")]);
  }
  return table(["index", ...head], rows, { caption: label });
}

// ---- controls and panels ----

export function button(name, onclick, attributes = {}) {
  return el("button", { type: "button", onclick, ...attributes }, name);
}

/** A list to choose from: entries of [value, text]. */
export function choice(label, entries, chosen, onChange) {
  const options = entries.map(([value, text]) =>
    el("option", { value, selected: value === chosen }, text));
  const id = uniqueName("choice");
  const select = el("select", { id, onchange: () => onChange(select.value) }, options);
  return el("span", { class: "choice" }, el("label", { for: id }, label), select);
}

/** A slider with its value as text, `say(value)`, beside it; `set(value)` moves it untold. */
export function slider({ label, name, value, say, onInput, ...range }) {
  const id = uniqueName(name);
  const input = el("input", { type: "range", id, name, ...range });
  const output = el("output", { for: id, "aria-live": "off" });
  const set = (given) => {
    input.value = given;
    output.textContent = say(Number(input.value));
    input.setAttribute("aria-valuetext", output.textContent);
  };
  input.addEventListener("input", () => {
    set(input.value);
    onInput(Number(input.value));
  });
  set(value);
  return { element: el("div", { class: "slider" }, el("label", { for: id }, label), output, input),
           set };
}

/** A part of a view, with a heading. */
export function panel(title, ...parts) {
  return el("section", { class: "panel" }, el("h2", {}, title), ...parts);
}

// ---- tables, scrolled areas, bars ----

/** A table with header cells above and at the left. Cells are texts or nodes. */
export function table(head, rows, { caption } = {}) {
  return el(
    "table",
    {},
    caption && el("caption", { class: "unseen" }, caption),
    el("thead", {}, el("tr", {}, head.map((cell) => el("th", { scope: "col" }, cell)))),
    el("tbody", {}, rows.map(([first, ...rest]) => el(
      "tr", {}, el("th", { scope: "row" }, first), rest.map((cell) => el("td", {}, cell)),
    ))),
  );
}

/** An area that scrolls inside itself and that the keyboard reaches. */
export function scrollable(content, label) {
  const role = { role: "region", "aria-label": label, tabindex: "0" };
  return el("div", { class: "scrollable", ...role }, content);
}

/**
 * Horizontal bars: entries of {name, p, note}. With `onChoose(entry, index)` each one is a button.
 * `chosen` is the index of one that is marked; `full` the probability that fills a whole bar.
 */
export function bars(entries, { chosen = -1, onChoose = null, full = 1, label = null } = {}) {
  return el("ol", { class: "bars", "aria-label": label }, entries.map((entry, index) => {
    const width = `${Math.min(100, (100 * entry.p) / full)}%`;
    const fill = el("span", { class: "bar-fill", style: { width } });
    const parts = [
      el("span", { class: "bar-name" }, entry.name),
      el("span", { class: "bar-track", "aria-hidden": "true" }, fill),
      el("span", { class: "bar-value" }, entry.note ?? percent(entry.p)),
    ];
    const current = index === chosen ? "true" : null;
    const row = onChoose
      ? el("button", { type: "button", class: "bar", "aria-current": current,
                       onclick: () => onChoose(entry, index) }, parts)
      : el("div", { class: "bar", "aria-current": current }, parts);
    return el("li", {}, row);
  }));
}

/** What the colours mean: entries of [class of the swatch, text]. */
export function legend(entries) {
  return el("p", { class: "legend small soft" }, entries.map(([name, text]) => el(
    "span", { class: "legend-entry" }, el("span", { class: `swatch ${name}` }), text)));
}

// ---- the one state of the page ----

const state = {
  tokens: [], // ids of the text that every view shows
  inspection: null, // the answer of source.inspect for them, or null while it is on its way
  position: 0, // index of the chosen token
  pieces: [], // what each request has drawn: {from, to, settings}, indices of tokens
  isWriting: false,
  layer: 0,
  head: 0,
  settings: { temperature: 1, top_k: 0, top_p: 1, min_p: 0, max_tokens: 128, seed: 1 },
};
const listeners = new Set();

export const store = {
  get: () => state,
  /** Takes the changed entries, and tells everybody who subscribed: fn(state, changed names). */
  set(patch) {
    const changed = Object.keys(patch).filter((name) => !Object.is(state[name], patch[name]));
    if (!changed.length) return;
    Object.assign(state, patch);
    for (const listener of listeners) listener(state, changed);
  },
  /** Returns a function that ends the subscription. */
  subscribe(listener) {
    listeners.add(listener);
    return () => listeners.delete(listener);
  },
};

/** Lets the browser do what waits, so that a long text never holds the page up. */
export function breath() {
  return new Promise((resolve) => setTimeout(resolve));
}

// ---- bytes that travel in JSON ----

// Plain loops: with callbacks the map of 1,000 tokens would be a long task.

export function base64Bytes(text) {
  const signs = atob(text);
  const bytes = new Uint8Array(signs.length);
  for (let at = 0; at < bytes.length; at += 1) bytes[at] = signs.charCodeAt(at);
  return bytes;
}

export function float32s(base64) {
  return new Float32Array(base64Bytes(base64).buffer);
}

const HALF = new Float32Array(2 ** 16);

function fillHalf() {
  for (let bits = 0; bits < HALF.length; bits += 1) {
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    let size = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
    if (exponent === 31) size = fraction ? NaN : Infinity;
    HALF[bits] = bits >> 15 ? -size : size;
  }
}

/** float16 through a table of all 65,536: browsers have no Float16Array everywhere yet. */
export function float16s(base64) {
  if (HALF[0x3c00] !== 1) fillHalf();
  const halves = new Uint16Array(base64Bytes(base64).buffer);
  const values = new Float32Array(halves.length);
  for (let at = 0; at < values.length; at += 1) values[at] = HALF[halves[at]];
  return values;
}
