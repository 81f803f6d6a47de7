// Attention weights as pixels: colours that follow the theme, triangles, and pooled maps.
import { el } from "./kit.js";

/** Calls back whenever the page turns light or dark. */
export function onTheme(callback) {
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", callback);
  new MutationObserver(callback).observe(document.documentElement, { attributes: true });
}

/** The red, green and blue bytes of a CSS colour as `host` sees it, custom properties and all. */
function rgb(host, colour) {
  const probe = el("span", { hidden: true });
  probe.style.color = colour;
  host.append(probe);
  const context = el("canvas", { width: 1, height: 1 }).getContext("2d");
  context.fillStyle = getComputedStyle(probe).color;
  context.fillRect(0, 0, 1, 1);
  probe.remove();
  return context.getImageData(0, 0, 1, 1).data;
}

/** The colours of custom properties as a canvas can use them, by their names without dashes. */
export function inks(host, ...names) {
  return Object.fromEntries(names.map((name) => {
    const [red, green, blue] = rgb(host, `var(--${name})`);
    return [name, `rgb(${red} ${green} ${blue})`];
  }));
}

/**
 * 256 pixels (little-endian RGBA) from no weight to all of it. The square root in between lets
 * weights of a few percent be seen.
 */
export function ramp(host) {
  const low = rgb(host, "var(--map-low)");
  const high = rgb(host, "var(--map-high)");
  return Uint32Array.from({ length: 256 }, (_, value) => {
    const share = Math.sqrt(value / 255);
    const [red, green, blue] = [0, 1, 2].map((channel) =>
      Math.round(low[channel] + share * (high[channel] - low[channel])),
    );
    return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  });
}

/** Paints size x size bytes, row after row, from a column on; the future stays clear. */
export function paintBytes(canvas, bytes, size, colours, left = 0) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(size, size);
  const pixels = new Uint32Array(image.data.buffer);
  for (let row = 0; row < size; row += 1) {
    for (let cell = row * size; cell <= row * size + row; cell += 1) {
      pixels[cell] = colours[bytes[cell]];
    }
  }
  context.putImageData(image, left, 0);
}

/** One head's weights: the lower triangle of a square, row after row. */
export class Triangle {
  constructor(weights, length) {
    this.weights = weights;
    this.length = length;
  }

  at(query, key) {
    return key > query ? 0 : this.weights[(query * (query + 1)) / 2 + key];
  }

  /** What a token reads: one weight for each token up to itself. */
  row(query) {
    const first = (query * (query + 1)) / 2;
    return this.weights.subarray(first, first + query + 1);
  }

  /** Who reads a token: one weight for each token of the text, 0 before the token itself. */
  column(key) {
    return Float32Array.from({ length: this.length }, (_, query) => this.at(query, key));
  }

  /** The mean weight on the token that stands `back` places before the reading one. */
  meanBack(back) {
    let sum = 0;
    for (let query = back; query < this.length; query += 1) sum += this.at(query, query - back);
    return sum / Math.max(this.length - back, 1);
  }

  /** The mean weight on the first token; the first one itself has no choice, so it's left out. */
  meanFirst() {
    let sum = 0;
    for (let query = 1; query < this.length; query += 1) sum += this.at(query, 0);
    return sum / Math.max(this.length - 1, 1);
  }

  /** At most `most` x `most` bytes: each the largest weight of its cell, as the thumbnails are. */
  pooled(most) {
    const size = Math.min(this.length, most);
    const bytes = new Uint8Array(size * size);
    const cellOf = Uint16Array.from({ length: this.length }, (_, index) =>
      Math.floor((index * size) / this.length),
    );
    for (let query = 0, place = 0; query < this.length; query += 1) {
      const first = cellOf[query] * size;
      for (let key = 0; key <= query; key += 1, place += 1) {
        const cell = first + cellOf[key];
        const byte = Math.round(this.weights[place] * 255);
        if (byte > bytes[cell]) bytes[cell] = byte;
      }
    }
    return { size, bytes };
  }
}
