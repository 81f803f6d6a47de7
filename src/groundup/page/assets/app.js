// Starts the page: the header, the tabs with their views, the theme, and the dialog for a key.

import { button, choice, count, el, prose, store } from "./kit.js";
import { makeSource } from "./source.js";
import { makeWrite } from "./write.js";
import { makeInside } from "./inside.js";
import { makeSteps } from "./steps.js";
import { makeSampling } from "./sampling.js";
import { makeRun } from "./run.js";
import { makeCompare } from "./compare.js";

const THEME = "groundup-theme";
const THEMES = { system: "System", light: "Light", dark: "Dark" };
const ARCHITECTURES = {
  gpt2: "GPT-2 architecture",
  modern: "Modern architecture",
  readable: "GPT-2 architecture, readable",
  bigram: "Bigram, a table of pairs",
};
const VIEWS = [
  ["write", "Write", makeWrite],
  ["inside", "Inside", makeInside],
  ["steps", "Step by step", makeSteps],
  ["sampling", "Sampling", makeSampling],
  ["run", "The run", makeRun],
];

const byId = (id) => document.getElementById(id);

// ---- the header ----

/** One line: "GPT-2 architecture, 4 layers of 4 heads, 192 wide, context 128, ...". */
function shapeLine({ shape, context }) {
  const parts = [ARCHITECTURES[shape.architecture] ?? shape.architecture];
  if (shape.n_layer) {
    const shared = (shape.n_kv_head ?? shape.n_head) !== shape.n_head;
    const keys = shared ? ` (${shape.n_kv_head} of keys and values)` : "";
    parts.push(`${shape.n_layer} layers of ${shape.n_head} heads${keys}`);
    parts.push(`${count(shape.n_embd)} wide`);
  }
  parts.push(`context ${count(context)}`, `vocabulary ${count(shape.vocab_size)}`);
  parts.push(`${compact(shape.parameters)} parameters`);
  return parts.join(", ");
}

function compact(value) {
  if (value < 1e5) return count(value);
  const [size, unit] = value < 1e9 ? [1e6, "M"] : [1e9, "B"];
  return `${(value / size).toFixed(value < 99.95 * size ? 1 : 0)} ${unit}`;
}

function nameModel(model) {
  document.title = `${model.id} · groundup`;
  byId("model").textContent = model.id;
  byId("shape").textContent = shapeLine(model);
}

// ---- the theme ----

function remembered(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null; // a page from a file may have no storage
  }
}

function useTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

function themeSwitch() {
  const chosen = remembered(THEME) ?? "system";
  useTheme(chosen);
  return choice("Theme", Object.entries(THEMES), chosen, (theme) => {
    useTheme(theme);
    try {
      localStorage.setItem(THEME, theme);
    } catch {
      return; // it holds until the page is closed
    }
  });
}

// ---- the key ----

function askKey(refused) {
  const input = el("input", { type: "password", id: "key", autocomplete: "off", required: true });
  const cancel = button("Cancel", () => dialog.close(""));
  const dialog = el("dialog", { class: "key-dialog", "aria-labelledby": "key-title" }, el(
    "form", { method: "dialog" },
    el("h2", { id: "key-title" }, "This server asks for a key"),
    el("p", { class: "note" }, refused ? "The server refused that key. " : "",
      "The key is kept until this tab is closed."),
    el("label", { for: "key" }, "Key"),
    input,
    el("div", { class: "row" },
      el("button", { class: "primary", value: "use" }, "Use this key"), cancel),
  ));
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "use" ? input.value : null);
    });
  });
}

// ---- tabs and views ----

function makeTabs(views) {
  let open = null;
  const select = (name, focus = false) => {
    const next = views.find((view) => view.name === name) ?? views[0];
    if (next === open) return;
    open?.view.hide();
    for (const { tab, panel } of views) {
      const chosen = tab === next.tab;
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
      panel.hidden = !chosen;
    }
    const address = `#${next.name}`;
    if (open && location.hash !== address) history.pushState(null, "", address);
    else history.replaceState(null, "", address);
    open = next;
    if (focus) next.tab.focus();
    next.view.show();
  };
  for (const { name, tab } of views) tab.addEventListener("click", () => select(name));
  byId("tabs").addEventListener("keydown", (event) => {
    const at = views.indexOf(open);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: -1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    select(views.at(to % views.length).name, true);
  });
  addEventListener("hashchange", () => select(location.hash.slice(1)));
  return { select, showAgain: () => (open.view.hide(), open.view.show()) };
}

function place([name, title, make], source) {
  const roles = { role: "tab", id: `tab-${name}`, "aria-controls": `view-${name}` };
  const tab = button(title, () => {}, roles);
  const view = make({ source, store });
  const panel = el("section", { role: "tabpanel", id: `view-${name}`, hidden: true,
                                "aria-labelledby": `tab-${name}` }, view.element);
  byId("tabs").append(tab);
  byId("views").append(panel);
  return { name, tab, panel, view };
}

// ---- a recording ----

function openRecorded(source, index) {
  source.turnTo(index);
  nameModel(source.model);
  const { inspection, stages } = source.recording.models[index];
  const tokens = inspection.tokens.map((token) => token.id);
  const [first] = inspection.attention ?? [];
  const { position } = stages;
  store.set({ tokens, inspection, position, layer: first?.layer ?? 0, head: 0 });
}

function modelSwitch(source, tabs) {
  const { models } = source.recording;
  const entries = models.map(({ inspection }, index) => [String(index), inspection.model]);
  return choice("Model", entries, "0", (index) => {
    openRecorded(source, Number(index));
    tabs.showAgain();
  });
}

// ---- the start ----

async function start() {
  byId("controls").append(themeSwitch());
  const note = el("p", { class: "panel", role: "status" }, "The model is loading …");
  byId("views").replaceChildren(note);
  const source = makeSource(askKey);
  try {
    await source.ready;
  } catch (error) {
    return note.replaceChildren(...prose(error.message), " Reload the page to try again.");
  }
  note.remove();
  const twoModels = source.recording?.models.length === 2;
  if (source.recording) openRecorded(source, 0);
  else nameModel(source.model);
  const wanted = twoModels ? [...VIEWS, ["compare", "Compare", makeCompare]] : VIEWS;
  const tabs = makeTabs(wanted.map((view) => place(view, source)));
  if (twoModels) byId("controls").prepend(modelSwitch(source, tabs));
  tabs.select(location.hash.slice(1));
}

start();
