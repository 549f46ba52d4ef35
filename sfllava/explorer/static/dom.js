// Elements, fields, and the link between the page and the kernel. All texts from outside are set as text.

const FOCUSED = new Set(["a", "button", "input", "select", "summary", "textarea", "video"]);
const SVG = "http://www.w3.org/2000/svg";

export function h(tag, props = {}, ...children) {
  const node = tag.startsWith("svg:") ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
  // JupyterLab's shortcuts must not take the arrows and Enter from what has the focus
  if (FOCUSED.has(tag) || "tabindex" in props) node.setAttribute("data-lm-suppress-shortcuts", "true");
  for (const [name, value] of Object.entries(props)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === "style") for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

export function fill(node, ...children) {
  node.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
}

export function show(node, visible) {
  node.hidden = !visible;
}

export const number = (value) => Number(value).toLocaleString("en-US");

export function clock(seconds, digits = 2) {
  if (seconds < 90) return `${seconds.toFixed(digits)} s`;
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

// What all parts of the page share: the kernel's state, and what only this page knows (the frame that is looked at)
export function makeContext(model) {
  const ends = [];
  const listeners = [];
  const cx = {
    ui: { frame: 0, layer: "frame", time: null, playing: false },
    large: new Map(Object.entries(model.get("large") || {})),
    get: (name) => model.get(name),
    set(values) {
      for (const [name, value] of Object.entries(values)) model.set(name, value);
      model.save_changes();
    },
    // a click carries what the controls say now: their own messages may still wait in a queue
    send(action, more = {}, buffers = []) {
      const state = Object.fromEntries(CLICKED.map((name) => [name, model.get(name)]));
      model.send({ action, state, ...more }, undefined, buffers);
    },
    // calls `act` now and after a change of any of these names, once for changes that come together
    watch(names, act) {
      let queued = false;
      const later = () => {
        if (queued) return;
        queued = true;
        queueMicrotask(() => ((queued = false), act()));
      };
      for (const name of names) {
        model.on(`change:${name}`, later);
        ends.push(() => model.off(`change:${name}`, later));
      }
      act();
    },
    heard(act) {
      model.on("msg:custom", act);
      ends.push(() => model.off("msg:custom", act));
    },
    look(values) {
      Object.assign(cx.ui, values);
      for (const act of listeners) act();
    },
    looked(act) {
      listeners.push(act);
      act();
    },
    end: () => ends.forEach((act) => act()),
    onEnd: (act) => ends.push(act),
  };
  return cx;
}

const CLICKED = [
  "frames",
  "slow",
  "pool",
  "fast",
  "method",
  "tokens",
  "aggregation",
  "prompt",
  "selection",
  "rule_options",
  "selection_for",
  "scorer",
  "scored_text",
  "frame_list",
  "question",
  "answer_options",
  "reply",
  "max_new_tokens",
];

let fields = 0;

function labelled(label, control, more = {}) {
  control.id = `sf-field-${(fields += 1)}`;
  return h("div", { class: `sf-field ${more.class || ""}` }, h("label", { for: control.id }, label), control);
}

// Keeps a control and a value of the kernel equal. What is being typed is left alone.
function bind(cx, control, name, { event = "change", read = (text) => text }) {
  const commit = () => {
    const value = read(control.value);
    if (value !== undefined && value !== cx.get(name)) cx.set({ [name]: value });
  };
  control.addEventListener(event, commit);
  if (control.tagName === "INPUT") control.addEventListener("keydown", ({ key }) => key === "Enter" && commit());
  cx.watch([name], () => {
    const value = String(cx.get(name) ?? "");
    if (control.value !== value && read(control.value) !== cx.get(name)) control.value = value;
  });
}

export function choice(cx, name, label, options, more = {}) {
  const entries = options.map(([value, text]) => h("option", { value }, text));
  const control = h("select", {}, entries);
  bind(cx, control, name, {});
  return labelled(label, control, more);
}

export function text(cx, name, label, { rows = 0, event = "change", placeholder = "", enter = null, ...more } = {}) {
  const control = rows ? h("textarea", { rows, placeholder }) : h("input", { type: "text", placeholder });
  bind(cx, control, name, { event });
  if (enter)
    control.addEventListener("keydown", (pressed) => {
      if (pressed.key !== "Enter" || pressed.isComposing) return;
      pressed.preventDefault();
      cx.set({ [name]: control.value });
      enter();
    });
  return labelled(label, control, more);
}

function within(least, most) {
  return (typed) => {
    const value = Math.round(Number(typed));
    return typed === "" || Number.isNaN(value) ? undefined : Math.min(most, Math.max(least, value));
  };
}

export function integer(cx, name, label, least, most, more = {}) {
  const control = h("input", { type: "number", min: least, max: most });
  bind(cx, control, name, { read: within(least, most) });
  return labelled(label, control, more);
}

// A slider over the whole width, with a box for an exact number
export function slider(cx, name, label, least, most) {
  const box = h("input", { type: "number", min: least, max: most, "aria-label": `${label}, exactly` });
  const range = h("input", { type: "range", min: least, max: most });
  const node = labelled(label, range, { class: "sf-slider" });
  node.insertBefore(box, range);
  for (const control of [box, range]) {
    bind(cx, control, name, { event: control === range ? "input" : "change", read: within(least, most) });
  }
  cx.watch([name], () => range.style.setProperty("--at", `${(100 * (cx.get(name) - least)) / (most - least)}%`));
  return node;
}

export function button(label, act, more = {}) {
  return h("button", { type: "button", onclick: act, ...more, class: `sf-button ${more.class || ""}` }, label);
}

// Where a message about a field stands: an error has its trace behind a fold
export function slot(cx, field) {
  const node = h("div", { class: "sf-slot", "data-field": field });
  cx.watch(["messages"], () => {
    const said = cx.get("messages")[field];
    show(node, Boolean(said));
    if (!said) return fill(node);
    const error = said.kind === "error";
    const trace = said.trace && h("details", {}, h("summary", {}, "Traceback"), h("pre", {}, said.trace));
    fill(node, h("div", { class: error ? "sf-error" : "sf-note", role: error ? "alert" : "status" }, said.text), trace);
  });
  return node;
}

export function chips(list) {
  return h(
    "div",
    { class: "sf-chips" },
    list.map((chip) =>
      h("span", { class: `sf-chip ${chip.differs ? "sf-differs" : ""}`, "data-kind": chip.kind }, chip.text),
    ),
  );
}
