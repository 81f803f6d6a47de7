// Every attention map of the model at a glance: a row for each layer, a column for each head.
import { base64Bytes, el } from "./kit.js";
import { onTheme, paintBytes, ramp } from "./maps-paint.js";

const GAP = 1 / 16; // between two maps, as a part of a map's side
const CRISP = 6; // heads; maps of more heads are smaller than their pixels, and are smoothed

/** A grid of thumbnails; arrow keys move in it, Enter or a click opens a head. */
export class MapGrid {
  constructor({ label, onOpen, small = false }) {
    this.onOpen = onOpen;
    this.cells = [];
    this.task = 0;
    this.focused = [0, 0];
    this.element = el("div", {
      class: small ? "maps maps-small" : "maps",
      role: "grid",
      "aria-label": label,
      onclick: (event) => this.click(event),
      onkeydown: (event) => this.key(event),
    });
    onTheme(() => this.paint());
  }

  /** Makes room for all heads of a model; their pictures come with `setMaps`. */
  setShape(shape) {
    const same =
      this.cells.length === shape.n_layer && this.cells[0]?.length === shape.n_head;
    if (!same) this.build(shape);
    this.thumbnails = null;
  }

  /** Shows `maps[layer][head]` in base64, or cells without a picture where there is none. */
  setMaps(thumbnails) {
    this.thumbnails = thumbnails;
    this.paint();
  }

  build({ n_layer: layers, n_head: heads }) {
    this.element.style.setProperty("--heads", heads);
    const header = el("div", { role: "row", class: "maps-row" },
      el("span", { role: "columnheader", class: "maps-label" }, "Layer"),
      ...Array.from({ length: heads }, (_, head) =>
        el("span", { role: "columnheader", class: "maps-label" },
          el("span", { class: "unseen" }, "Head "), String(head + 1))));
    this.element.classList.toggle("maps-crisp", heads <= CRISP);
    this.canvases = Array.from({ length: layers }, () => el("canvas", { "aria-hidden": "true" }));
    this.cells = Array.from({ length: layers }, (_, layer) =>
      Array.from({ length: heads }, (__, head) => this.cell(layer, head)));
    const rows = this.cells.map((cells, layer) =>
      el("div", { role: "row", class: "maps-row" },
        el("span", { role: "rowheader", class: "maps-label" }, String(layer + 1)),
        this.canvases[layer], cells));
    this.element.replaceChildren(header, ...rows);
    this.rove(...this.focused);
  }

  cell(layer, head) {
    return el("div", {
      class: "maps-cell",
      role: "gridcell",
      tabindex: "-1",
      "aria-selected": "false",
      "aria-label": `Layer ${layer + 1}, head ${head + 1}`,
      dataset: { layer, head },
    });
  }

  /** One layer in each frame, so that a large model never holds the page up. */
  paint() {
    const task = ++this.task;
    if (!this.thumbnails || !this.element.isConnected) return;
    const colours = ramp(this.element);
    const paintFrom = (layer) => {
      if (task !== this.task || layer >= this.cells.length) return;
      this.paintLayer(layer, colours);
      requestAnimationFrame(() => paintFrom(layer + 1));
    };
    requestAnimationFrame(() => paintFrom(0));
  }

  /** One canvas holds the maps of a layer: a canvas for each would cost the browser much more. */
  paintLayer(layer, colours) {
    const { size, maps } = this.thumbnails;
    const heads = maps[layer] ?? [];
    const gap = Math.max(1, Math.round(size * GAP));
    const canvas = this.canvases[layer];
    canvas.width = heads.length * (size + gap) - gap;
    canvas.height = size;
    this.element.style.setProperty("--gap-share", gap / size);
    heads.forEach((map, head) => {
      if (map) paintBytes(canvas, base64Bytes(map), size, colours, head * (size + gap));
    });
  }

  select(layer, head) {
    for (const cell of this.cells.flat()) cell.setAttribute("aria-selected", "false");
    this.cells[layer]?.[head]?.setAttribute("aria-selected", "true");
    this.rove(layer, head);
  }

  /** Exactly one cell is in the order of the Tab key, as the grid pattern of ARIA asks. */
  rove(layer, head) {
    const now = this.cells[layer]?.[head];
    if (!now) return;
    this.cells[this.focused[0]]?.[this.focused[1]]?.setAttribute("tabindex", "-1");
    now.setAttribute("tabindex", "0");
    this.focused = [layer, head];
  }

  open(layer, head) {
    this.rove(layer, head);
    this.onOpen(layer, head);
  }

  click(event) {
    const cell = event.target.closest(".maps-cell");
    if (cell) this.open(Number(cell.dataset.layer), Number(cell.dataset.head));
  }

  key(event) {
    const [layer, head] = this.focused;
    const [layers, heads] = [this.cells.length, this.cells[0]?.length ?? 0];
    const moves = {
      ArrowUp: [Math.max(layer - 1, 0), head],
      ArrowDown: [Math.min(layer + 1, layers - 1), head],
      ArrowLeft: [layer, Math.max(head - 1, 0)],
      ArrowRight: [layer, Math.min(head + 1, heads - 1)],
      Home: [layer, 0],
      End: [layer, heads - 1],
    };
    const opens = event.key === "Enter" || event.key === " ";
    if (!opens && !moves[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    if (opens) return this.open(layer, head);
    this.rove(...moves[event.key]);
    this.cells[this.focused[0]][this.focused[1]].focus();
  }
}
