// The loss of each token as a strip of bars: where the text surprised the model.
import { el, number } from "./kit.js";
import { tokenName } from "./inside-shared.js";
import { inks, onTheme } from "./maps-paint.js";

const HEIGHT = 72;
const NARROWEST = 3; // CSS pixels of a bar; a long text scrolls within the strip
const WIDEST = 8000; // CSS pixels: browsers refuse much larger canvases

export class LossStrip {
  constructor({ onChoose }) {
    this.chosen = 0;
    this.tokens = [];
    this.canvas = el("canvas", {
      role: "img",
      "aria-label": "Loss of each token",
      onpointermove: (event) => this.point(event),
      onpointerleave: (event) => event.pointerType === "touch" || this.rest(),
      onclick: (event) => {
        onChoose(this.indexAt(event));
        this.point(event); // choosing has taken the reading away
      },
    });
    this.scroller = el("div", {
      class: "loss-scroller", tabindex: "0", role: "region",
      "aria-label": "Loss of each token, scrolls sideways",
    }, this.canvas);
    this.scale = el("p", { class: "loss-scale" });
    this.reading = el("p", { class: "readout" });
    this.element = el("div", { class: "losses" }, this.scale, this.scroller, this.reading);
    new ResizeObserver(() => this.draw()).observe(this.scroller);
    onTheme(() => this.paint());
  }

  /** Shows the losses of tokens, of which the first one has the index `start` in the text. */
  setTokens(tokens, start) {
    this.tokens = tokens;
    this.start = start;
    const losses = tokens.slice(1).map((token) => -token.logprob);
    this.largest = Math.max(...losses, 1e-9);
    const mean = losses.reduce((sum, loss) => sum + loss, 0) / Math.max(losses.length, 1);
    this.scale.textContent = losses.length
      ? "A token's loss is minus the natural logarithm of its probability, in nats: " +
        `0.69 for 50 %, 2.30 for 10 %. Mean ${number(mean, 2)}, the highest bar ` +
        `${number(this.largest, 2)}. ` +
        `The first token has no loss: ${start ? "the model sees" : "there is"} nothing before it.`
      : "One token alone has no loss: nothing stands before it.";
    this.canvas.setAttribute("aria-label",
      `Loss of each of ${tokens.length} tokens as bars. ${this.scale.textContent} ` +
      "The figures of the chosen token stand under the text.");
    this.paint();
  }

  select(position) {
    this.chosen = position;
    this.rest();
    this.draw();
  }

  rest() {
    this.reading.textContent = "Point at a bar to read it. Click it to choose its token.";
  }

  barWidth() {
    const room = this.scroller.clientWidth / Math.max(this.tokens.length, 1);
    const most = WIDEST / Math.max(this.tokens.length, 1);
    return Math.min(Math.max(room, NARROWEST), most, 40);
  }

  paint() {
    this.colours = inks(this.element, "line-strong", "accent");
    this.draw();
  }

  draw() {
    if (!this.scroller.clientWidth || !this.tokens.length) return;
    const width = this.barWidth();
    const density = Math.min(window.devicePixelRatio || 1, 2);
    const total = width * this.tokens.length;
    this.canvas.width = Math.round(total * density);
    this.canvas.height = HEIGHT * density;
    this.canvas.style.width = `${total}px`;
    const context = this.canvas.getContext("2d");
    context.scale(density, density);
    const gap = width > 5 ? 1 : 0;
    this.tokens.forEach((token, index) => {
      context.fillStyle = this.colours[index === this.chosen ? "accent" : "line-strong"];
      const height = Math.max((-(token.logprob ?? 0) / this.largest) * (HEIGHT - 4), 1);
      context.fillRect(index * width, HEIGHT - height, width - gap, height);
    });
  }

  indexAt(event) {
    const index = Math.floor(event.offsetX / this.barWidth());
    return Math.min(Math.max(index, 0), this.tokens.length - 1);
  }

  point(event) {
    const index = this.indexAt(event);
    const token = this.tokens[index];
    const words = token.logprob === null
      ? ": nothing stands before it, so the model didn't predict it."
      : ` cost ${number(-token.logprob, 2)} nats.`;
    this.reading.replaceChildren(`Token ${this.start + index + 1}, `, tokenName(token), words);
  }
}
