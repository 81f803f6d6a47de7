// The view Inside: what the model attends to, what it would say at each point, and what each adds.
import { breath, button, el, number, panel, percent } from "./kit.js";
import { guarded, quoted, shade, windowNote, windowOf, WRITING_NOTE } from "./inside-shared.js";
import { BlockTable } from "./inside-blocks.js";
import { Lens } from "./inside-lens.js";
import { LossStrip } from "./inside-losses.js";
import { HeadMap } from "./maps-head.js";
import { MapGrid } from "./maps-grid.js";
import { Triangle } from "./maps-paint.js";
import { makeTokenText } from "./text.js";

const MAPS_NOTE =
  "Each small map is one head. Its rows read and its columns are read; a stronger colour is a " +
  "larger weight. Open one to see it large and linked to the text.";
const HABITS = [
  "Reads the token before it most", "Reads itself most", "Reads the first token most",
];
const BIGRAM_NOTE =
  "This model is a bigram: one table holds, for each token, what follows it. It has no layers " +
  "and no attention, so the losses above are all that there is to see.";
const EMPTY_NOTE = "Write some text first: then this view shows what happens inside the model.";

/** The view Inside, by the contract of a view. */
export function makeInside({ source, store }) {
  return new Inside(source, store);
}

class Inside {
  constructor(source, store) {
    this.source = source;
    this.store = store;
    this.visible = false;
    this.makeParts();
    this.element = this.layout();
    store.subscribe((state, changed) => this.changed(changed));
  }

  makeParts() {
    const choose = (position) => this.store.set({ position: this.window.start + position });
    const open = (layer, head) => this.store.set({ layer, head });
    this.text = makeTokenText({
      label: "The text: choose a token",
      onChoose: choose,
      onPoint: (index) => this.head.pointToken(index),
    });
    this.losses = new LossStrip({ onChoose: choose });
    this.grid = new MapGrid({ label: "Attention maps of layers and heads", onOpen: open });
    this.head = new HeadMap({ onChoose: choose, onReader: () => this.shade() });
    this.habits = el("ul", { class: "habits", "aria-label": "Heads with a habit" });
    this.lens = new Lens();
    this.blocks = new BlockTable();
    this.status = el("p", { class: "inside-status", role: "status" });
    this.note = el("p", { class: "note inside-note" });
    this.chosen = el("p", { class: "inside-chosen", "aria-live": "polite" });
  }

  layout() {
    this.lenses = el("div", { class: "inside-layers", hidden: true },
      panel("Logit lens", this.lens.element),
      panel("What each block adds", this.blocks.element));
    this.head.element.hidden = true;
    this.opened = guarded(this.head.element, () => this.readHead());
    this.explained = guarded(this.lenses, () => this.readLens());
    const scroller = el("div", { class: "maps-scroller" }, this.grid.element);
    this.pictured = guarded(scroller, () => this.readThumbnails());
    this.layers = el("div", { class: "inside-layers" },
      panel("Attention", el("p", { class: "note" }, MAPS_NOTE), this.habits,
        this.pictured.problem, this.opened.problem,
        el("div", { class: "attention" }, scroller, this.head.element)),
      this.explained.problem, this.lenses);
    this.table = panel("A table, no layers", el("p", { class: "note" }, BIGRAM_NOTE));
    const text = panel("The text", this.note, this.text.element, this.chosen);
    text.classList.add("inside-text");
    const body = el("div", { class: "inside-layers", hidden: true },
      text, panel("The loss of each token", this.losses.element), this.table, this.layers);
    this.read = guarded(body, () => this.readText());
    return el("div", { class: "inside" }, this.status, this.read.problem, body);
  }

  show() {
    this.visible = true;
    this.read.run();
  }

  hide() {
    this.visible = false;
  }

  changed(names) {
    if (!this.visible) return;
    if (names.includes("tokens")) return this.read.run();
    if (names.includes("position")) this.showPosition();
    if (names.includes("layer") || names.includes("head")) this.opened.run();
  }

  async readText() {
    this.window = windowOf(this.source, this.store);
    if (!this.window.tokens.length) {
      this.say(this.store.get().isWriting ? WRITING_NOTE : EMPTY_NOTE);
      return false;
    }
    const inspection = await this.source.inspect(this.window.tokens);
    if (inspection !== this.inspection) {
      this.inspection = inspection;
      await this.showText();
      if (inspection !== this.inspection) return true;
    }
    this.showPosition();
    this.opened.run();
    return true;
  }

  say(words) {
    this.status.textContent = words;
  }

  async showText() {
    const { tokens, shape } = this.inspection;
    const hasLayers = shape.n_layer > 0;
    this.text.show(tokens);
    await breath();
    this.losses.setTokens(tokens, this.window.start);
    this.head.clear();
    this.layers.hidden = !hasLayers;
    this.table.hidden = hasLayers;
    if (hasLayers) {
      this.grid.setShape(shape);
      this.pictured.run();
    }
    this.say("");
  }

  showPosition() {
    if (!this.inspection) return;
    this.window = windowOf(this.source, this.store);
    const { position, start } = this.window;
    this.note.textContent = windowNote(this.window);
    this.note.hidden = !start;
    this.text.choose(position);
    this.losses.select(position);
    this.head.select(position);
    this.shade();
    this.showChosen(position);
    if (this.inspection.shape.n_layer) this.explained.run();
  }

  showChosen(position) {
    const token = this.inspection.tokens[position];
    const { start, tokens } = this.window;
    const place = `${start + position + 1} of ${start + tokens.length}`;
    const words = [`Token ${place}, ${quoted(token)}.`];
    if (token.logprob !== null) {
      const expected = token.top?.[0];
      words.push(`Its probability was ${percent(Math.exp(token.logprob))}, its loss ` +
        `${number(-token.logprob, 2)} nats.`);
      if (expected) {
        words.push(expected.id === token.id
          ? "No token was more probable."
          : `The most probable was ${quoted(expected)}, ${percent(Math.exp(expected.logprob))}.`);
      }
    }
    this.chosen.textContent = words.join(" ");
  }

  async readThumbnails() {
    const thumbnails = await this.source.thumbnails(this.window.tokens);
    this.grid.setMaps(thumbnails);
    this.habits.replaceChildren(...HABITS.map((words, which) =>
      this.keenest(words, thumbnails.habits.map((heads) => heads.map((each) => each[which])))));
  }

  /** The head that has a habit most, as a button that opens it. */
  keenest(words, shares) {
    const all = shares.flatMap((heads, layer) =>
      heads.map((share, head) => ({ layer, head, share })));
    const { layer, head, share } = all.reduce((a, b) => (b.share > a.share ? b : a));
    const open = () => this.store.set({ layer, head });
    return el("li", {}, `${words}: `,
      button(`layer ${layer + 1}, head ${head + 1}`, open),
      ` (${percent(share)})`);
  }

  async readHead() {
    const { inspection } = this;
    if (!inspection?.shape.n_layer) return;
    const { layer, head } = this.headInModel();
    this.grid.select(layer, head);
    const [map] = await this.source.heads(this.window.tokens, [[layer, head]]);
    if (inspection !== this.inspection || map === this.map) return;
    this.map = map;
    const { tokens } = inspection;
    const triangle = new Triangle(map.weights, tokens.length);
    this.head.setHead(layer, head, triangle, tokens, this.window.start);
    this.shade();
  }

  /** What the store has chosen, within this model. */
  headInModel() {
    const { layer, head } = this.store.get();
    const { n_layer: layers, n_head: heads } = this.inspection.shape;
    return { layer: Math.min(layer, layers - 1), head: Math.min(head, heads - 1) };
  }

  shade() {
    if (this.inspection.shape.n_layer) shade(this.text.element, this.head.shades());
  }

  async readLens() {
    const { inspection } = this;
    const [column] = await this.source.lens(this.window.tokens, [this.window.position]);
    if (inspection !== this.inspection) return;
    const { tokens, shape, stream } = inspection;
    this.lens.setColumn(column, tokens, shape.vocab_size);
    this.blocks.setColumn(column, stream, tokens);
  }
}
