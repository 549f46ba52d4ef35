// The page: controls on the left, the question on top, the video and the strip in the middle, answers beside them.
import { askBar } from "./ask.js";
import { attentionPanel } from "./attention.js";
import { answersPanel, comparePanel } from "./cards.js";
import { sidePanel } from "./controls.js";
import { button, h, makeContext, show } from "./dom.js";
import { stage } from "./stage.js";
import { stripPanel } from "./strip.js";

const VIEWS = { Answers: answersPanel, Compare: comparePanel, Attention: attentionPanel };

function views(cx) {
  const panels = Object.entries(VIEWS).map(([name, make]) => [name, make(cx)]);
  const tabs = panels.map(([name]) => button(name, () => cx.set({ view: name }), { role: "tab" }));
  const save = button("Save page", () => cx.send("save"), {
    title: "Save what is shown as one HTML file",
    class: "sf-save",
  });
  cx.watch(["view"], () =>
    panels.forEach(([name, panel], i) => {
      const now = cx.get("view") === name;
      show(panel, now);
      tabs[i].setAttribute("aria-selected", String(now));
    }),
  );
  const bar = h("div", { class: "sf-tabs", role: "tablist" }, tabs, cx.get("snapshot") ? null : save);
  return h(
    "div",
    { class: "sf-views" },
    bar,
    h(
      "div",
      { class: "sf-scroll" },
      panels.map(([, panel]) => panel),
    ),
  );
}

function download(said) {
  const address = URL.createObjectURL(new Blob([said.text], { type: said.type }));
  h("a", { href: address, download: said.name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

export function render({ model, el }) {
  const cx = makeContext(model);
  const main = h(
    "div",
    { class: "sf-body" },
    askBar(cx),
    h("div", { class: "sf-centre" }, stage(cx), views(cx)),
    stripPanel(cx),
  );
  const page = h("div", { class: "sfllava" }, h("div", { class: "sf-grid" }, sidePanel(cx), main));
  page.addEventListener("keydown", (pressed) => {
    if (pressed.key === "Escape" && cx.get("busy")) cx.send("stop");
  });
  cx.heard((said) => said.kind === "download" && download(said));
  el.replaceChildren(page);
  return () => cx.end();
}

// A saved page has no kernel: what is looked at changes here, and nothing is computed
export function showSaved(state, el) {
  const acts = {};
  const change = (name, value) => {
    state[name] = value;
    (acts[`change:${name}`] || []).forEach((act) => act());
  };
  const model = {
    get: (name) => state[name],
    set(name, value) {
      change(name, value);
      if (name === "word" && state.heats[value]) change("heat", state.heats[value]);
    },
    save_changes() {},
    send() {},
    on: (name, act) => (acts[name] = [...(acts[name] || []), act]),
    off() {},
  };
  render({ model, el });
}

export default { render };
