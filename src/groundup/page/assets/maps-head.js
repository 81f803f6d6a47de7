// One opened attention head: its whole map with axes, exact weights at the cursor, and a table.
import { el, percent, table } from "./kit.js";
import { cut, quoted, tokenName } from "./inside-shared.js";
import { inks, onTheme, paintBytes, ramp } from "./maps-paint.js";

const MOST_CELLS = 400; // along a side; a longer text is pooled
const LABEL_SPACE = [24, 76]; // pixels for the token names of an axis, at least and at most
const LETTER = 6.7; // pixels
const LISTED = 10;

export class HeadMap {
  constructor({ onChoose, onReader }) {
    this.onChoose = onChoose;
    this.chosen = 0;
    this.reads = true;
    this.pointed = null;
    this.picture = document.createElement("canvas");
    this.canvas = el("canvas", {
      class: "head-canvas",
      role: "img",
      "aria-label": "Attention map",
      onpointermove: (event) => this.point(event),
      onpointerdown: (event) => this.point(event),
      onpointerleave: (event) => event.pointerType === "touch" || this.leave(),
      onclick: (event) => this.click(event),
    });
    this.cross = ["query", "key"].map((kind) => el("span", { class: `cross cross-${kind}` }));
    this.title = el("h3", { class: "head-title", "aria-live": "polite" });
    this.summary = el("p", { class: "head-summary", "aria-live": "polite" });
    this.readout = el("p", { class: "readout" });
    this.caption = el("p", { class: "small soft head-caption" });
    this.table = el("div", { class: "head-table" });
    this.element = this.layout(onReader);
    onTheme(() => this.repaint());
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  layout(onReader) {
    const option = (value, text) =>
      el("label", {}, el("input", {
        type: "radio", name: "attention-direction", value, onchange: () => {
          this.reads = value === "reads";
          this.showTable();
          this.draw();
          onReader();
        },
      }), el("span", {}, text));
    const reads = option("reads", "what it reads");
    reads.firstChild.checked = true;
    return el("div", { class: "head" },
      el("div", { class: "head-picture" }, this.title, this.summary,
        el("div", { class: "head-map" }, this.canvas, this.cross), this.readout),
      el("div", { class: "head-weights" },
        el("fieldset", { class: "switch" },
          el("legend", {}, "For the chosen token show"), reads, option("read", "who reads it")),
        this.caption, this.table));
  }

  /** Shows a head: `triangle` holds its weights over `tokens`. */
  setHead(layer, head, triangle, tokens, start) {
    this.start = start;
    this.triangle = triangle;
    this.tokens = tokens;
    this.longest = tokens.reduce((most, token) => Math.max(most, cut(token, 12).length), 1);
    this.title.textContent = `Layer ${layer + 1}, head ${head + 1}`;
    this.summary.textContent =
      `On average a token gives ${percent(triangle.meanBack(1))} of its attention to the token ` +
      `before it, ${percent(triangle.meanBack(0))} to itself, and ` +
      `${percent(triangle.meanFirst())} to the first token.`;
    this.canvas.setAttribute("aria-label",
      `Attention map of layer ${layer + 1}, head ${head + 1}, ${tokens.length} tokens: ` +
      `rows read, columns are read. The table below has the largest weights.`);
    this.repaint();
    this.leave();
    this.showTable();
  }

  /** Forgets the head of another text. */
  clear() {
    this.triangle = null;
    this.leave();
  }

  select(position) {
    this.chosen = position;
    this.leave();
    this.showTable();
    this.draw();
  }

  /** The weights that shade the text: each relative to the largest, so that small ones show. */
  shades() {
    if (!this.triangle) return null;
    const weights = this.weights();
    const largest = weights.reduce((most, weight) => Math.max(most, weight), 1e-9);
    return weights.map((weight) => weight / largest);
  }

  weights() {
    return this.reads ? this.triangle.row(this.chosen) : this.triangle.column(this.chosen);
  }

  showTable() {
    if (!this.triangle) return;
    const weights = this.weights();
    const first = this.reads ? 0 : this.chosen;
    const order = Array.from({ length: weights.length - first }, (_, index) => first + index)
      .sort((a, b) => weights[b] - weights[a])
      .slice(0, LISTED);
    const name = `${quoted(this.tokens[this.chosen])}, token ${this.start + this.chosen + 1}`;
    this.caption.textContent =
      this.reads ? `What ${name}, reads the most:` : `Who reads ${name}, the most:`;
    // Rows without a token keep the table's height, so that nothing below it moves.
    const rows = Array.from({ length: LISTED }, (_, rank) => this.row(order[rank], weights));
    const half = (from, to) => table(["Place", "Token", "Weight"], rows.slice(from, to),
      { caption: `The largest weights of the chosen token, ${from + 1} to ${to}` });
    this.table.replaceChildren(half(0, LISTED / 2), half(LISTED / 2, LISTED));
  }

  row(index, weights) {
    if (index === undefined) return ["\u00a0", "", ""];
    const bar = el("span", { class: "weight-bar", "aria-hidden": "true" });
    bar.style.inlineSize = `${100 * weights[index]}%`;
    const weight = el("span", { class: "weight" },
      el("span", { class: "weight-track" }, bar), percent(weights[index]));
    return [String(this.start + index + 1), tokenName(this.tokens[index]), weight];
  }

  repaint() {
    if (!this.triangle || !this.element.isConnected) return;
    const { size, bytes } = this.triangle.pooled(MOST_CELLS);
    this.picture.width = this.picture.height = size;
    paintBytes(this.picture, bytes, size, ramp(this.element));
    this.colours = inks(this.element, "ink", "ink-soft", "line-strong", "map-high");
    this.draw();
  }

  /** Where the map lies on the canvas, in CSS pixels. */
  frame() {
    const side = this.canvas.clientWidth;
    const [least, most] = LABEL_SPACE;
    const room = Math.min(most, side / 6, 10 + LETTER * this.longest);
    const margin = Math.round(Math.max(least, room));
    const inner = side - margin - 1;
    return { side, margin, inner, cell: inner / this.tokens.length };
  }

  draw() {
    if (!this.triangle || !this.canvas.clientWidth) return;
    const { side, margin, inner } = this.frame();
    const density = window.devicePixelRatio || 1;
    const pixels = Math.round(side * density);
    if (this.canvas.width !== pixels) this.canvas.width = this.canvas.height = pixels;
    const context = this.canvas.getContext("2d");
    context.setTransform(density, 0, 0, density, 0, 0);
    context.clearRect(0, 0, side, side);
    context.imageSmoothingEnabled = false;
    context.drawImage(this.picture, margin, margin, inner, inner);
    context.strokeStyle = this.colours["line-strong"];
    context.strokeRect(margin - 0.5, margin - 0.5, inner + 1, inner + 1);
    this.drawAxes(context);
    this.drawChosen(context);
  }

  /** Names along both axes: all where they fit, otherwise every second, third, ... token. */
  drawAxes(context) {
    const { margin, cell } = this.frame();
    const step = Math.max(1, Math.ceil(13 / cell));
    const longest = Math.floor((margin - 8) / LETTER);
    context.font = "11px ui-monospace, monospace";
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (let index = 0; index < this.tokens.length; index += step) {
      const name = cut(this.tokens[index], longest);
      const middle = margin + (index + 0.5) * cell;
      context.fillStyle = this.colours[index === this.chosen ? "ink" : "ink-soft"];
      context.fillText(name, margin - 5, middle, margin - 6);
      context.save();
      context.translate(middle, margin - 5);
      context.rotate(Math.PI / 2);
      context.fillText(name, 0, 0, margin - 6);
      context.restore();
    }
  }

  /** Outlines the row of the chosen token, or its column while it shows who reads it. */
  drawChosen(context) {
    const { margin, inner, cell } = this.frame();
    const first = margin + this.chosen * cell;
    const width = Math.max(cell, 2);
    context.strokeStyle = this.colours["map-high"];
    if (this.reads) context.strokeRect(margin, first, inner, width);
    else context.strokeRect(first, margin, width, inner);
  }

  point(event) {
    if (!this.triangle) return;
    const { margin, cell } = this.frame();
    this.pointCell(
      Math.floor((event.offsetY - margin) / cell), Math.floor((event.offsetX - margin) / cell));
  }

  /** Chooses the row, and keeps pointing at the cell: by touch no other event comes after it. */
  click(event) {
    if (!this.pointed) return;
    this.onChoose(this.pointed.query);
    this.point(event);
  }

  /** Points at the cell of the chosen token and another one of the text. */
  pointToken(index) {
    if (index === null || !this.triangle) return this.leave();
    if (this.reads) this.pointCell(this.chosen, index);
    else this.pointCell(index, this.chosen);
  }

  pointCell(query, key) {
    const inside = this.tokens[query] && this.tokens[key];
    if (!inside) return this.leave();
    if (this.pointed?.query === query && this.pointed.key === key) return;
    this.pointed = { query, key };
    this.readout.replaceChildren(...this.sentence(query, key));
    this.moveCross();
  }

  /** The crossing lines are elements over the canvas: moving them paints nothing anew. */
  moveCross() {
    const { margin, inner, cell } = this.frame();
    const width = `${Math.max(cell, 2)}px`;
    const place = (kind) => `${margin + this.pointed[kind] * cell}px`;
    const [row, column] = this.cross;
    Object.assign(row.style, {
      transform: `translate(${margin}px, ${place("query")})`, width: `${inner}px`, height: width,
    });
    Object.assign(column.style, {
      transform: `translate(${place("key")}, ${margin}px)`, width, height: `${inner}px`,
    });
    row.hidden = column.hidden = false;
  }

  sentence(query, key) {
    const [reader, read] = [tokenName(this.tokens[query]), tokenName(this.tokens[key])];
    if (key > query) return [reader, " can't read ", read, ": it stands later in the text."];
    return [reader, ` reads ${percent(this.triangle.at(query, key))} from `, read, "."];
  }

  leave() {
    this.pointed = null;
    this.readout.textContent = "Rows read, columns are read. Point at a cell, or click its row.";
    for (const line of this.cross) line.hidden = true;
  }
}
