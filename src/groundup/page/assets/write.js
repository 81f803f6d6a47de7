// The view Write: a prompt, the text as it comes, each token coloured by the model's own
// probability, and branches: other texts from an alternative on.

import { button, el, named, prose, tokenColour, uniqueName } from "./kit.js";
import { makeSliders } from "./settings.js";
import { makeTokenPanel } from "./token-panel.js";
import { makeTokenText } from "./text.js";
import { Writing } from "./writing.js";

const SLIDERS = ["temperature", "top_k", "top_p", "min_p", "max_tokens"];
const LEGEND_BITS = [0, 2, 4, 6, 8, 10, 12];
const STATUS_PAUSE = 500; // milliseconds between two counts that a screen reader hears
const NAME_LENGTH = 48;
const PROMPT = "groundup-prompt";
const MOST = Number.MAX_SAFE_INTEGER;
const SUGGESTED_WORDS = 3;
const LEAST_SEEN = 120; // pixels of a text that begins

export function makeWrite({ source, store }) {
  return source.isLive ? makeLive(source, store) : makeRecorded(store);
}

// ---- the text and the panel beside it ----

/** `tokens()` are those that are shown; onBranch(index, token) goes on from an alternative. */
function makeReader(store, tokens, { onBranch = null, onChosen = () => {} } = {}) {
  const panel = makeTokenPanel(onBranch, (by) => {
    if (pinned + by in tokens()) take(pinned + by);
  });
  let pinned = -1; // the token that was chosen: the panel returns to it
  const tell = (index) => panel.show(tokens()[index], index, tokens().length);
  const choose = (index) => {
    pinned = index;
    text.choose(index);
    tell(index);
  };
  const take = (index) => {
    choose(index);
    store.set({ position: index });
    onChosen(index);
  };
  const text = makeTokenText({
    label: "The text, token by token",
    onPoint(index) {
      if (index !== null) tell(index);
      else if (pinned >= 0) tell(pinned);
    },
    onChoose: take,
  });
  text.element.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey && !event.altKey) panel.takeKey(event);
  });
  return {
    text,
    panel,
    choose,
    show() {
      text.show(tokens());
      choose(-1);
    },
  };
}

function textPanel(text) {
  const swatches = LEGEND_BITS.map((bits) => el("span", {
    class: "swatch", style: { "background-color": tokenColour(-bits * Math.LN2) },
  }));
  const legend = el("p", { class: "legend small soft" }, "probable", swatches, "improbable");
  const head = el("div", { class: "text-head" }, el("h2", {}, "Text"), legend);
  return el("section", { class: "panel text-panel", "aria-label": "Text" }, head, text.element);
}

// ---- a recording ----

function makeRecorded(store) {
  const tokens = () => store.get().inspection.tokens;
  const reader = makeReader(store, tokens);
  const note = el("p", { class: "note" });
  let shown = null;
  return {
    element: el("div", { class: "write recorded" },
      note, textPanel(reader.text), reader.panel.element),
    show() {
      const { inspection, position } = store.get();
      note.replaceChildren(...prose(
        "This page is a recording of one text. To write with the model, run "
        + `\`groundup serve ${inspection.model}\` and open the address that it says.`));
      if (shown !== inspection) reader.show();
      shown = inspection;
      reader.choose(position);
    },
    hide() {},
  };
}

// ---- live ----

function makeLive(source, store) {
  const parts = {};
  const writing = new Writing(source, store, hearing(parts, store, () => writing));
  parts.reader = makeReader(store, () => writing.tokens, {
    onBranch(index, token) {
      parts.reader.text.element.focus(); // the button that was clicked is about to go
      writing.branchAt(index, token);
    },
    onChosen: (index) => writing.learn(index),
  });
  parts.branches = el("ol", { class: "branch-list" });
  parts.status = el("p", { class: "status", role: "status" });
  parts.settings = settingsPanel(store);
  const prompt = promptArea(parts, writing, store);
  parts.showButtons(writing);
  let isOpen = false;
  const readUnread = () => { // the other views need a text
    const unread = !isOpen && !writing.request && !writing.isRead;
    if (unread && prompt.text()) writing.adopt(prompt.text());
  };
  source.run().catch(() => null).then((run) => {
    prompt.suggest(run);
    readUnread();
  });
  return {
    element: el("div", { class: "write" },
      prompt.element,
      parts.settings.element,
      textPanel(parts.reader.text),
      parts.reader.panel.element,
      el("section", { class: "branches", "aria-label": "Branches" },
        el("h2", {}, "Branches"), parts.branches)),
    show() {
      isOpen = true;
      if (!writing.request) parts.reader.choose(store.get().position);
    },
    hide() {
      isOpen = false;
      readUnread();
    },
  };
}

/** What the page does when the text changes. New tokens wait for the next frame. */
function hearing(parts, store, writing) {
  let fresh = [];
  let frame = 0;
  let saidAt = 0;
  const paint = () => {
    cancelAnimationFrame(frame);
    frame = 0;
    parts.reader.text.append(fresh);
    fresh = [];
  };
  const say = (sentence, isBad = false) => {
    parts.status.classList.toggle("bad", isBad);
    parts.status.replaceChildren(...prose(sentence));
  };
  return {
    opened() {
      fresh = [];
      parts.reader.show();
      listBranches(parts, writing());
    },
    grown(tokens) {
      fresh.push(...tokens);
      frame ||= requestAnimationFrame(paint);
    },
    updated(first, tokens) {
      parts.reader.text.update(first, tokens);
      parts.reader.choose(store.get().position);
      listBranches(parts, writing());
    },
    progress(written, wanted) {
      if (performance.now() - saidAt < STATUS_PAUSE) return;
      saidAt = performance.now();
      say(`Written: ${written} of ${wanted} tokens.`);
    },
    said: say,
    changed() {
      paint();
      store.set({ isWriting: Boolean(writing().request) });
      parts.showButtons(writing());
      if (writing().request) return;
      parts.reader.text.release();
      listBranches(parts, writing());
    },
  };
}

function promptArea(parts, writing, store) {
  const id = uniqueName("prompt");
  const hint = "What the model goes on from. Ctrl and Enter begins.";
  const area = el("textarea", { id, rows: "4", spellcheck: "false", placeholder: hint });
  area.value = sessionStorage.getItem(PROMPT) ?? ""; // a page that is loaded again keeps it
  const begin = () => {
    sessionStorage.setItem(PROMPT, area.value);
    if (!area.value) return parts.status.replaceChildren("Please type a prompt first.");
    writing.begin(area.value);
    bringToSight(parts.reader.text.element);
  };
  area.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    begin();
  });
  const stop = button("Stop", () => writing.stop());
  const write = button("Write", () => {
    begin();
    stop.focus({ preventScroll: true });
  }, { class: "primary" });
  const more = button("Continue", () => writing.goOn());
  const again = button("Again with another seed", () => {
    parts.settings.takeSeed(store.get().settings.seed + 1);
    writing.again();
  });
  parts.showButtons = ({ request, isRead }) => {
    const focused = [stop, more, again].find((each) => each === document.activeElement);
    stop.disabled = !request;
    more.disabled = Boolean(request) || !isRead;
    again.disabled = more.disabled;
    // The focus must not stay on a button that is switched off.
    const next = [stop, more, write].find((each) => !each.disabled);
    if (focused?.disabled) next.focus({ preventScroll: true });
  };
  const element = el("div", { class: "prompt" },
    el("label", { for: id }, "Prompt"), area,
    el("div", { class: "row" }, write, stop, more, again), parts.status);
  const { opening } = writing.source.model;
  const suggest = (run) => {
    const texts = (run?.samples ?? []).map(({ text }) => text);
    const line = texts.join("\n").match(/^\p{L}.*/mu)?.[0] ?? opening;
    area.value ||= line.split(" ", SUGGESTED_WORDS).join(" ");
  };
  return { element, text: () => area.value, suggest };
}

/** On a phone the text begins below the screen: then the page scrolls to it. */
function bringToSight(element) {
  const { top, bottom } = element.getBoundingClientRect();
  const seen = Math.min(bottom, innerHeight) - Math.max(top, 0);
  if (seen < LEAST_SEEN) element.scrollIntoView({ block: "nearest" });
}

function settingsPanel(store) {
  const { settings } = store.get();
  const take = (patch) => store.set({ settings: { ...store.get().settings, ...patch } });
  const id = uniqueName("seed");
  const seed = el("input", { id, type: "number", min: "0", max: MOST, step: "1",
                            value: settings.seed });
  seed.addEventListener("change", () => {
    seed.value = Math.min(MOST, Math.max(0, Math.round(Number(seed.value)) || 0));
    take({ seed: Number(seed.value) });
  });
  return {
    element: el("section", { class: "panel settings", "aria-label": "Settings" },
      makeSliders(SLIDERS, settings, take).elements,
      el("div", { class: "slider" }, el("label", { for: id }, "Seed"), seed)),
    takeSeed(value) {
      seed.value = value;
      take({ seed: value });
    },
  };
}

// ---- branches ----

function listBranches({ branches: list }, writing) {
  const hadFocus = list.contains(document.activeElement);
  list.replaceChildren(...writing.branches.map((branch) => {
    const current = branch === writing.branch ? "true" : null;
    const from = branch.departs ? `from token ${branch.departs + 1}` : "from the start";
    const entry = button("", () => writing.turnTo(branch),
      { class: "branch", "aria-current": current });
    entry.append(el("span", { class: "mono branch-words" }, firstWords(branch)),
      el("span", { class: "small soft" }, from));
    return el("li", {}, entry);
  }));
  if (hadFocus) list.querySelector("[aria-current]")?.focus();
}

function firstWords({ tokens, departs }) {
  let words = "";
  for (let at = departs; at < tokens.length && words.length < NAME_LENGTH; at += 1) {
    words += named(tokens[at]).replaceAll("␣", " ");
  }
  return words.slice(0, NAME_LENGTH).trim() || "…";
}
