// The view Sampling: one distribution, and what temperature, top-k, top-p and min-p leave of it.

import { button, count, el, legend, number, panel, percent, prose } from "./kit.js";
import { cut, quoted, windowOf, WRITING_NOTE } from "./inside-shared.js";
import { makeSliders } from "./settings.js";
import { makeTokenText } from "./text.js";

const SLIDERS = ["temperature", "top_k", "top_p", "min_p"];
const EMPTY_NOTE = "There is no text yet: write one first.";
const FEW = 20;
const MANY = 64;
const DRAWS = 10;
const KEY = [["outline", "the model's own probability"], ["solid", "what is left, for the draw"]];
const NAMES = { top_k: "top-k", top_p: "top-p", min_p: "min-p" };

// ---- the arithmetic ----

/**
 * What is left of a distribution: temperature first, then top-k (what equals the last one kept
 * stays too), then top-p of what is left, then min-p. `logprobs` descend, so that every cut keeps
 * the first ones: `keptBy` says how many are left after each. `probabilities` can be reused.
 */
export function sample(logprobs, settings, probabilities = new Float32Array(logprobs.length)) {
  const { temperature, top_k, top_p, min_p } = settings;
  if (temperature === 0) return greedy(logprobs, probabilities);
  temper(logprobs, temperature, probabilities);
  const keptBy = { temperature: logprobs.length };
  keptBy.top_k = keepTopK(logprobs, top_k);
  keptBy.top_p = keepTopP(probabilities, keptBy.top_k, top_p);
  keptBy.min_p = keepMinP(probabilities, keptBy.top_p, min_p);
  const kept = keptBy.min_p;
  const mass = sumOf(probabilities, kept);
  for (let index = 0; index < kept; index += 1) probabilities[index] /= mass;
  probabilities.fill(0, kept);
  return { probabilities, keptBy, kept, cutMass: Math.max(0, 1 - mass) };
}

/** Temperature 0 takes the most probable token, whatever the cuts are. */
function greedy(logprobs, probabilities) {
  probabilities.fill(0);
  probabilities[0] = 1;
  const keptBy = { temperature: 1, top_k: 1, top_p: 1, min_p: 1 };
  return { probabilities, keptBy, kept: 1, cutMass: 1 - Math.exp(logprobs[0]) };
}

function temper(logprobs, temperature, probabilities) {
  let sum = 0;
  for (let index = 0; index < logprobs.length; index += 1) {
    const share = Math.exp((logprobs[index] - logprobs[0]) / temperature);
    probabilities[index] = share;
    sum += share;
  }
  for (let index = 0; index < logprobs.length; index += 1) probabilities[index] /= sum;
}

function keepTopK(logprobs, top_k) {
  if (top_k === 0) return logprobs.length;
  let kept = Math.min(top_k, logprobs.length);
  while (kept < logprobs.length && logprobs[kept] === logprobs[kept - 1]) kept += 1;
  return kept;
}

function keepTopP(probabilities, left, top_p) {
  if (top_p >= 1) return left;
  const wanted = top_p * sumOf(probabilities, left);
  let kept = 0;
  for (let sum = 0; kept < left && sum < wanted; kept += 1) sum += probabilities[kept];
  return kept;
}

function keepMinP(probabilities, left, min_p) {
  let kept = left;
  while (kept > 1 && probabilities[kept - 1] < min_p * probabilities[0]) kept -= 1;
  return kept;
}

function sumOf(values, length) {
  let sum = 0;
  for (let index = 0; index < length; index += 1) sum += values[index];
  return sum;
}

/** Entropy in nats. */
export function entropy(probabilities) {
  let nats = 0;
  for (const probability of probabilities) {
    if (probability > 0) nats -= probability * Math.log(probability);
  }
  return nats;
}

/** The index at which the sum of the probabilities passes a number in [0, 1). */
export function draw(probabilities, uniform) {
  let last = 0;
  let sum = 0;
  for (let index = 0; index < probabilities.length && probabilities[index] > 0; index += 1) {
    sum += probabilities[index];
    last = index;
    if (uniform < sum) break;
  }
  return last;
}

/** Why a token is gone, or "" if it stays. */
export function reason(index, keptBy) {
  if (index >= keptBy.temperature) return "not the most probable";
  const by = Object.keys(NAMES).find((name) => index >= keptBy[name]);
  return by ? `cut by ${NAMES[by]}` : "";
}

// ---- the view ----

export function makeSampling({ source, store }) {
  const view = new Sampling(source, store);
  store.subscribe((_, changed) => {
    if (changed.includes("inspection") || changed.includes("position")) view.refresh();
  });
  return {
    element: view.element,
    show: () => {
      if (!view.logprobs) view.takeWrites();
      view.isOpen = true;
      view.refresh();
    },
    hide: () => {
      view.isOpen = false;
    },
  };
}

class Sampling {
  constructor(source, store) {
    Object.assign(this, { source, store, isOpen: false, asked: null, rows: [], most: FEW });
    this.settings = { ...store.get().settings };
    this.sliders = makeSliders(SLIDERS, this.settings, (values) => {
      Object.assign(this.settings, values);
      this.frame ||= requestAnimationFrame(() => this.paint());
    });
    this.text = makeTokenText({
      label: "The text: choose the token after which the next one is drawn",
      onChoose: (index) => {
        const { start } = windowOf(source, store);
        store.set({ position: start + index });
      },
    });
    this.build();
  }

  build() {
    this.title = el("h2", {}, "What comes next");
    this.note = el("p", { class: "note", role: "status" });
    this.summary = el("p", { class: "summary" });
    this.list = el("ol", { class: "chances", "aria-label": "Tokens, the most probable first" });
    this.more = button("Show more", () => this.showMore());
    this.shownNote = el("p", { class: "small soft" });
    const more = el("div", { class: "chances-more" }, this.more, this.shownNote);
    this.draws = el("ol", { class: "draws mono", "aria-label": "Ten draws" });
    this.body = el("div", { class: "sampling-body", hidden: true },
      el("section", { class: "panel sampling-settings", "aria-label": "Settings" },
        this.sliders.elements,
        this.source.isLive && button("Take those of Write", () => this.takeWrites())),
      el("section", { class: "panel sampling-left" },
        this.title, this.summary, legend(KEY), this.list, more),
      panel("Draws",
        el("p", { class: "small soft" }, "Ten tokens, drawn by chance from what is left."),
        button("Draw 10", () => this.drawTen()), this.draws));
    this.element = el("div", { class: "sampling" },
      el("div", { class: "panel short-text" },
        el("p", { class: "small soft" }, "Choose the token after which the next one is drawn."),
        this.text.element),
      this.note, this.body);
  }

  /** Asks for the distribution after the chosen token, if another one is shown. */
  async refresh() {
    const { inspection, isWriting } = this.store.get();
    if (!this.isOpen) return;
    if (!inspection) return this.fail(isWriting ? WRITING_NOTE : EMPTY_NOTE);
    const { tokens, position: chosen } = windowOf(this.source, this.store);
    const position = this.source.position ?? chosen; // a recording has but one
    if (this.shownInspection !== inspection) this.text.show(inspection.tokens);
    this.shownInspection = inspection;
    this.text.choose(position);
    const asked = { inspection, position };
    this.asked = asked;
    try {
      const distribution = await this.source.distribution(tokens, position);
      if (this.asked === asked) this.take(distribution, inspection.tokens[position]);
    } catch (error) {
      if (this.asked === asked) this.fail(error.message);
    }
  }

  fail(sentence) {
    this.note.replaceChildren(...prose(sentence));
    this.body.hidden = true;
  }

  take({ logprobs, tokens }, before) {
    this.note.replaceChildren();
    this.body.hidden = false;
    this.title.textContent = `What comes after ${quoted(before)}`;
    Object.assign(this, { logprobs, tokens });
    this.own = logprobs.map(Math.exp);
    this.ownEntropy = entropy(this.own);
    this.left = new Float32Array(logprobs.length);
    this.rows = tokens.slice(0, MANY).map((token) => chance(token));
    this.list.replaceChildren(...this.rows.map((row) => row.element));
    this.draws.replaceChildren();
    this.paint();
  }

  showMore() {
    this.most = this.most === FEW ? MANY : FEW;
    this.more.textContent = this.most === FEW ? "Show more" : "Show fewer";
    this.paint();
  }

  takeWrites() {
    Object.assign(this.settings, this.store.get().settings);
    this.sliders.set(this.settings);
    this.paint();
  }

  paint() {
    this.frame = 0;
    if (!this.logprobs) return;
    const result = sample(this.logprobs, this.settings, this.left);
    const full = Math.max(this.own[0], result.probabilities[0]);
    this.rows.forEach((row, index) => {
      row.element.hidden = index >= this.most;
      const gone = reason(index, result.keptBy);
      if (index < this.most) row.paint(this.own[index], result.probabilities[index], full, gone);
    });
    this.more.hidden = this.rows.length <= FEW;
    const isCut = this.logprobs.length > MANY && this.most === MANY;
    this.shownNote.textContent = isCut ? `The ${MANY} most probable are shown.` : "";
    const [before, after] = [this.ownEntropy, entropy(result.probabilities)];
    this.summary.textContent = `${this.staying(result)} Entropy: ${number(before, 2)} nats before, `
      + `${number(after, 2)} nats after.`;
  }

  staying({ kept, cutMass }) {
    const size = this.logprobs.length;
    if (this.settings.temperature === 0) return "Temperature 0 takes the most probable token.";
    if (kept === size) return `All ${count(size)} tokens stay.`;
    return `${count(kept)} of ${count(size)} tokens stay; the cuts take ${percent(cutMass)} `
      + "of the probability.";
  }

  drawTen() {
    const drawn = Array.from({ length: DRAWS }, () => draw(this.left, Math.random()));
    this.draws.replaceChildren(...drawn.map((index) => {
      const token = this.tokens[index];
      return el("li", {}, token ? cut(token) : `the token of rank ${count(index + 1)}`);
    }));
  }
}

/** A row of the list, made once and painted with every move of a slider. */
function chance(token) {
  const own = el("span", { class: "chance-own" });
  const left = el("span", { class: "chance-left" });
  const [before, after] = [el("span"), el("span")];
  const isLeft = unseen("left ");
  const element = el("li", { class: "chance" },
    el("span", { class: "bar-name" }, cut(token, 16)),
    el("span", { class: "chance-track", "aria-hidden": "true" }, left, own),
    el("span", { class: "chance-value before" }, unseen(", the model's own "), before),
    el("span", { class: "chance-value" }, unseen(", "), isLeft, after));
  return {
    element,
    paint(ownShare, leftShare, full, gone) {
      own.style.width = `${(100 * ownShare) / full}%`;
      left.style.width = `${(100 * leftShare) / full}%`;
      before.textContent = percent(ownShare);
      after.textContent = gone || percent(leftShare);
      isLeft.hidden = Boolean(gone);
      element.classList.toggle("gone", Boolean(gone));
    },
  };
}

/** Words that only a screen reader says. */
function unseen(words) {
  return el("span", { class: "unseen" }, words);
}
