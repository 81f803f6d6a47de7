// The view Step by step: one token's way through this very model, at three zoom levels.
import { button, el, uniqueName } from "./kit.js";
import {
  guarded, quoted, shade, windowNote, windowOf, windowStart, WRITING_NOTE,
} from "./inside-shared.js";
import { MapGrid } from "./maps-grid.js";
import { blockCard, headsCard, stageCard } from "./steps-card.js";
import { drawing } from "./steps-drawing.js";
import { LEVELS, levelsOf } from "./steps-levels.js";
import { makeTokenText } from "./text.js";

const DRAW_SETTINGS = ["temperature", "top_k", "top_p", "min_p", "seed"];
const EMPTY_NOTE = "Write some text first: then one of its tokens can be followed.";
// What uses arrow keys itself.
const FIELDS = "input, select, textarea, dialog, pre, .scrollable, [role=region]";

/** The view Step by step, by the contract of a view. */
export function makeSteps({ source, store }) {
  return new Steps(source, store);
}

class Steps {
  constructor(source, store) {
    this.source = source;
    this.store = store;
    this.level = "model";
    this.names = { model: null, block: null, head: null }; // the present item of each level
    this.makeChoices();
    this.makeWalk();
    this.element = this.layout();
    this.element.addEventListener("keydown", (event) => this.key(event));
    store.subscribe((state, changed) => this.changed(changed));
  }

  makeChoices() {
    const start = () => this.window?.start ?? 0;
    this.text = makeTokenText({
      label: "The text: choose the token to follow",
      onChoose: (position) => this.store.set({ position: start() + position }),
    });
    this.layer = selectOf("Layer", (layer) => this.store.set({ layer }));
    this.head = selectOf("Head", (head) => this.store.set({ head }));
    this.map = new MapGrid({
      label: "Map of the model: rows are layers, columns heads", small: true,
      onOpen: (layer, head) => this.goTo("head", { layer, head }),
    });
    const scroller = el("div", { class: "maps-scroller" }, this.map.element);
    this.pictured = guarded(scroller, () => this.readThumbnails());
    this.mapBox = el("details", { class: "steps-map", ontoggle: () => this.pictured.run() },
      el("summary", {}, "Choose on a map of the model"), this.pictured.problem, scroller);
    this.selects = el("div", { class: "steps-selects" },
      this.layer.element, this.head.element, this.mapBox);
    this.title = el("h2");
    this.note = el("p", { class: "note", hidden: true });
    this.empty = el("p", { class: "panel note", hidden: true }, EMPTY_NOTE);
  }

  makeWalk() {
    const keyed = (text, key, onclick) =>
      button([el("span", {}, text), el("kbd", { "aria-hidden": "true" }, key)], onclick);
    this.back = keyed("", "←", () => this.walk(-1));
    this.next = keyed("", "→", () => this.walk(1));
    this.zoomIn = keyed("Zoom in", "+", () => this.enter());
    this.zoomOut = keyed("Zoom out", "−", () => this.leave());
    this.next.classList.add("primary");
    this.crumbs = el("ol", { class: "crumbs" });
    this.list = el("ol", { class: "steps-list" });
    this.picture = el("div", { class: "steps-picture" });
    this.card = el("article", { class: "panel steps-card" });
    this.status = el("p", { class: "unseen", role: "status" });
    this.list.addEventListener("click", (event) => this.pick(event));
  }

  layout() {
    const choices = el("section", { class: "panel steps-choices" },
      this.title, this.note, this.text.element, this.selects);
    this.side = el("nav", { class: "steps-side", "aria-label": "Stages of this level" },
      el("div", { class: "steps-track" }, this.picture, this.list));
    const walk = el("div", { class: "steps-walk", hidden: true }, this.side,
      el("div", { class: "steps-main" },
        el("div", { class: "steps-bar" },
          el("nav", { "aria-label": "Where you are in the model" }, this.crumbs),
          el("div", { class: "steps-zoom" }, this.zoomOut, this.zoomIn)),
        this.card,
        el("div", { class: "steps-buttons" }, this.back, this.next)));
    const body = el("div", { class: "steps-body", hidden: true }, choices);
    this.read = guarded(body, () => this.readText());
    this.walked = guarded(walk, () => this.readStages());
    body.append(this.walked.problem, walk);
    return el("div", { class: "steps", tabindex: "-1" },
      this.empty, this.status, this.read.problem, body);
  }

  show() {
    this.visible = true;
    // After a click on the tab the arrow keys would change tabs: here they walk.
    const clicked = document.activeElement?.matches("[role=tab]:not(:focus-visible)");
    if (clicked) this.element.focus({ preventScroll: true });
    this.read.run();
  }

  hide() {
    this.visible = false;
  }

  changed(names) {
    if (!this.visible) return;
    if (names.includes("tokens")) this.read.run();
    else if (["position", "layer", "head"].some((name) => names.includes(name))) this.walked.run();
  }

  // ---- data ----

  async readText() {
    this.window = windowOf(this.source, this.store);
    this.empty.hidden = this.window.tokens.length > 0;
    this.empty.textContent = this.store.get().isWriting ? WRITING_NOTE : EMPTY_NOTE;
    if (!this.window.tokens.length) return false;
    const inspection = await this.source.inspect(this.window.tokens);
    if (inspection !== this.inspection) this.showText(inspection);
    this.walked.run();
    return true;
  }

  showText(inspection) {
    const { shape, tokens } = inspection;
    this.inspection = inspection;
    this.text.show(tokens);
    shade(this.text.element, null);
    const hasLayers = shape.n_layer > 0;
    this.selects.hidden = !hasLayers;
    if (!hasLayers) return;
    this.layer.setCount(shape.n_layer);
    this.head.setCount(shape.n_head);
    this.map.setShape(shape);
    this.pictured.run();
  }

  /** The small maps of the model's own map, once somebody wants to see it. */
  async readThumbnails() {
    if (this.mapBox.open) this.map.setMaps(await this.source.thumbnails(this.window.tokens));
  }

  /** What the store has chosen, within this model. */
  chosen() {
    const { layer, head } = this.store.get();
    const { n_layer: layers, n_head: heads } = this.inspection.shape;
    const within = (index, size) => Math.max(Math.min(index ?? 0, size - 1), 0);
    return { layer: within(layer, layers), head: within(head, heads) };
  }

  /** How the token after the chosen one was drawn, or would be; `told` is about the text. */
  drawn(position) {
    const { settings, pieces } = this.store.get();
    const place = this.window.start + position + 1;
    const piece = pieces.find(({ from, to }) => from <= place && place < to);
    const same = windowStart(place, this.source.model.context) === this.window.start;
    const used = piece && same ? piece : { settings, from: place };
    const draw = Object.fromEntries(DRAW_SETTINGS.map((name) => [name, used.settings[name]]));
    const next = this.inspection.tokens[position + 1];
    const told = used === piece || !next ? ""
      : ` The text goes on with ${quoted(next)}, which wasn't drawn in this way.`;
    return { draw: { ...draw, written: place - used.from }, told };
  }

  async readStages() {
    if (!this.inspection) return;
    this.window = windowOf(this.source, this.store);
    const { tokens, start } = this.window;
    const position = this.source.position ?? this.window.position; // a recording has but one
    const { layer, head } = this.chosen();
    this.text.choose(position);
    this.title.textContent = `The way of token ${start + position + 1}, ` +
      `${quoted(this.inspection.tokens[position])}, through the model`;
    this.note.textContent = position === this.window.position ? windowNote(this.window)
      : `This file has the way of token ${position + 1} alone; a server has that of all.`;
    this.note.hidden = !this.note.textContent;
    this.layer.select(layer);
    this.head.select(head);
    this.map.select(layer, head);
    const { draw, told } = this.drawn(position);
    const { stages } = await this.source.stages(tokens, { position, layer, head, draw });
    const known = stages.map((stage) =>
      (stage.name === "draw" ? { ...stage, sentence: stage.sentence + told } : stage));
    this.levels = levelsOf(known, this.inspection.shape);
    this.render();
  }

  // ---- where we are ----

  items() {
    return this.levels[this.level];
  }

  index(level = this.level) {
    return Math.max(this.levels[level].findIndex(({ name }) => name === this.names[level]), 0);
  }

  item() {
    return this.items()[this.index()];
  }

  /**
   * The item that a step leads to: one level up if it leaves this one, and into the first block and
   * its heads on the way forward; nothing at the ends.
   */
  target(step, level = this.level) {
    const inner = step > 0 && level === this.level && this.leadsInto();
    if (inner) return { level: inner, item: this.levels[inner][0] };
    const item = this.levels[level][this.index(level) + step];
    if (item) return { level, item };
    const outer = LEVELS[LEVELS.indexOf(level) - 1];
    return outer ? this.target(step, outer) : null;
  }

  /** The level that a box of the first block opens into, for who walks through all stages. */
  leadsInto() {
    const { enters, index } = this.item();
    return enters && (enters === "head" || index === 0) ? enters : null;
  }

  walk(step) {
    const target = this.target(step);
    if (target) this.moveTo(target.level, target.item);
  }

  /** Shows an item; a block box chooses its layer too, so that zooming in leads into that block. */
  moveTo(level, item) {
    this.level = level;
    this.names[level] = item.name;
    if (item.enters === "block") this.store.set({ layer: item.index });
    this.render();
  }

  choose(patch) {
    const { layer, head } = this.store.get();
    const same = (patch.layer ?? layer) === layer && (patch.head ?? head) === head;
    if (same) this.render();
    else this.store.set(patch);
  }

  enter(head) {
    const inner = this.item().enters;
    if (!inner) return;
    this.goTo(inner, head === undefined ? {} : { head });
  }

  leave() {
    const depth = LEVELS.indexOf(this.level);
    if (depth > 0) this.showLevel(depth - 1);
  }

  showLevel(depth) {
    this.level = LEVELS[depth];
    this.render();
  }

  /** Goes to the first stage of a level, with the boxes around it as the present ones there. */
  goTo(level, patch = {}) {
    if (!this.levels) return;
    const { layer } = { ...this.chosen(), ...patch };
    this.level = level;
    this.names.model = `block-${layer}`;
    if (level === "head") this.names.block = "heads";
    this.names[level] = this.levels[level][0].name;
    this.choose(patch);
  }

  pick(event) {
    const pressed = event.target.closest("button");
    if (!pressed) return;
    const item = this.items()[Number(pressed.dataset.row)];
    if (item === this.item() && item.enters) this.enter();
    else this.moveTo(this.level, item);
  }

  key(event) {
    const { target } = event;
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!this.levels || target.closest?.(FIELDS)) return;
    if (event.key === "Enter" && target.closest?.("button:not([role=tab]), summary")) return;
    const actions = {
      ArrowRight: () => this.walk(1), n: () => this.walk(1),
      ArrowLeft: () => this.walk(-1), p: () => this.walk(-1),
      Enter: () => this.enter(), "+": () => this.enter(),
      Escape: () => this.leave(), "-": () => this.leave(), "−": () => this.leave(),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  }

  // ---- showing it ----

  render() {
    this.followLayer();
    const current = this.index();
    const walkers = [this.back, this.next, this.zoomIn, this.zoomOut];
    const focused = [this.list, this.card, this.crumbs, ...walkers].find((part) =>
      part.contains(document.activeElement));
    this.picture.replaceChildren(drawing(this.items(), current));
    this.list.replaceChildren(...this.items().map((item, row) => this.listRow(item, row, current)));
    this.showCard();
    this.showCrumbs();
    this.showButtons();
    this.reveal(this.list.children[current]);
    // What had the focus was replaced or switched off: the focus goes to what stands there now.
    if (focused === this.list) this.list.children[current].firstChild.focus();
    else if (focused && (focused.disabled ?? true)) this.card.querySelector("h3").focus();
    this.tell(current);
  }

  /** Scrolls the list of stages alone, never the page. */
  reveal(row) {
    const { scrollTop, clientHeight } = this.side;
    const top = row.offsetTop - this.side.offsetTop;
    const hidden = top < scrollTop || top + row.offsetHeight > scrollTop + clientHeight;
    if (hidden) this.side.scrollTop = top - clientHeight / 2;
  }

  tell(current) {
    const item = this.item();
    const sentence = item.stage?.sentence ?? "A box: press Enter to look inside.";
    this.status.textContent =
      `${item.title}, ${current + 1} of ${this.items().length}. ${sentence}`;
  }

  /** The box of the chosen layer is the present one, around what is shown or itself. */
  followLayer() {
    const atBlock = this.names.model?.startsWith("block-");
    if (this.level !== "model" || atBlock) this.names.model = `block-${this.chosen().layer}`;
  }

  listRow(item, row, current) {
    return el("li", {}, button(item.title, null, {
      dataset: { row }, "aria-current": row === current ? "step" : null,
      class: item.enters ? "step-button is-box" : "step-button",
    }));
  }

  showCard() {
    const item = this.item();
    const { tokens, shape } = this.inspection;
    const { head } = this.chosen();
    const enter = (index) => this.enter(index);
    if (item.stage) this.card.replaceChildren(...stageCard(item.stage, tokens));
    else if (item.enters === "head") this.card.replaceChildren(...headsCard(shape, head, enter));
    else {
      const { position } = this.window;
      this.card.replaceChildren(
        ...blockCard(item.index, this.inspection, position, () => this.enter()));
    }
  }

  showCrumbs() {
    const { layer, head } = this.chosen();
    const words = ["Model", `Block ${layer + 1}`, `Head ${head + 1}`];
    const depth = LEVELS.indexOf(this.level);
    this.crumbs.replaceChildren(...words.slice(0, depth + 1).map((text, index) => el("li", {},
      index === depth
        ? el("span", { "aria-current": "location" }, text)
        : button(text, () => this.showLevel(index), { class: "crumb" }))));
  }

  showButtons() {
    const label = (walker, step, word) => {
      const target = this.target(step);
      walker.disabled = !target;
      walker.firstChild.textContent = target ? `${word}: ${target.item.title}` : word;
    };
    label(this.back, -1, "Back");
    label(this.next, 1, "Next");
    this.zoomIn.disabled = !this.item().enters;
    this.zoomOut.disabled = this.level === "model";
  }
}

/** A labelled select of numbered choices. */
function selectOf(name, onChoose) {
  const id = uniqueName("select");
  const select = el("select", { id, onchange: () => onChoose(Number(select.value)) });
  return {
    element: el("div", { class: "steps-select" }, el("label", { for: id }, name), select),
    setCount(count) {
      select.replaceChildren(...Array.from({ length: count }, (_, index) =>
        el("option", { value: index }, String(index + 1))));
    },
    select(index) {
      select.value = String(index);
    },
  };
}
