// The side panel: the budget on top, then the video, and how its frames become tokens.
import { button, choice, fill, h, integer, number, show, slider, slot, text } from "./dom.js";

const NAMES = { slow: "Slow", fast: "Fast", visual: "Visual", text: "Text", rest: "left" };
const PIECE = 4 << 20; // bytes of an upload that are sent at once

function budgetPanel(cx) {
  const node = h("section", { class: "sf-budget", "aria-label": "Token budget" });
  cx.watch(["budget"], () => {
    const budget = cx.get("budget");
    if (!budget.parts)
      return (node.classList.remove("sf-over"), fill(node, h("h3", {}, "Token budget"), h("div", { class: "sf-bar" })));
    const whole = Math.max(budget.context, budget.context - budget.rest);
    const parts = budget.parts.filter((part) => part.tokens);
    node.classList.toggle("sf-over", budget.over);
    const bar = parts.map((part) =>
      h("span", {
        "data-kind": part.name,
        title: `${NAMES[part.name]} ${number(part.tokens)}`,
        style: { width: `${(100 * part.tokens) / whole}%` },
      }),
    );
    const state = budget.over
      ? `Above the context of ${number(budget.context)}: ${number(1 - budget.rest)} too many`
      : `${number(budget.rest)} of ${number(budget.context)} left`;
    fill(
      node,
      h("h3", {}, h("b", {}, number(budget.visual)), " visual tokens"),
      h("div", { class: "sf-bar", role: "img", "aria-label": budget.text }, bar),
      h(
        "div",
        { class: "sf-keys" },
        parts
          .filter((part) => part.name !== "rest")
          .map((part) => h("span", { "data-kind": part.name }, `${NAMES[part.name]} ${number(part.tokens)}`)),
      ),
      h("div", { class: "sf-state", title: budget.costs }, state),
      h("div", { class: "sf-small" }, budget.costs.replaceAll("; ", " · ")),
    );
  });
  return node;
}

async function upload(cx, file) {
  const about = { id: `${Date.now()}-${Math.random()}`, name: file.name, size: file.size };
  // a file that is too large is refused at its first piece
  const end = file.size > cx.get("limits").upload_bytes ? 1 : file.size;
  for (let offset = 0; offset === 0 || offset < end; offset += PIECE) {
    const piece = await file.slice(offset, offset + PIECE).arrayBuffer();
    cx.send("upload", { ...about, offset }, [piece]);
  }
}

function videoPanel(cx) {
  const open = () => cx.send("open", { path: cx.get("path") });
  const path = text(cx, "path", "Video path", {
    placeholder: "video file, or folder of images",
    event: "input",
    enter: open,
  });
  const chooser = h("input", {
    type: "file",
    accept: cx.get("limits").suffixes,
    hidden: true,
    "aria-label": "Video to upload",
  });
  chooser.addEventListener("change", () => {
    const [file] = chooser.files;
    chooser.value = ""; // the same file can be chosen again
    if (file) upload(cx, file);
  });
  const recent = h("select", { "aria-label": "Recent videos" });
  recent.addEventListener("change", () => recent.value && cx.send("open", { path: recent.value }));
  const row = h("div", { class: "sf-field" }, h("label", {}, "Recent"), recent);
  cx.watch(["recent", "path"], () => {
    const known = cx.get("recent");
    show(row, known.length > 1);
    const chosen = known.some((video) => video.path === cx.get("path"));
    fill(
      recent,
      chosen ? null : h("option", { value: "" }, "choose"),
      known.map((video) => h("option", { value: video.path }, video.name)),
    );
    recent.value = chosen ? cx.get("path") : "";
  });
  const buttons = [
    button("Open", open),
    button("Upload", () => chooser.click()),
    button("Render samples", () => cx.send("render"), { title: "Render four short videos to try the model" }),
  ];
  return h(
    "section",
    { "aria-label": "Video" },
    path,
    h("div", { class: "sf-row" }, buttons, chooser),
    row,
    slot(cx, "video"),
  );
}

function settingPanel(cx) {
  const limits = cx.get("limits");
  const same = (values) => values.map((value) => [value, value]);
  const slow = h(
    "div",
    {},
    slider(cx, "slow", "Slow frames", 0, limits.slow),
    choice(cx, "pool", "Slow pool", same(limits.pools)),
  );
  const fast = choice(
    cx,
    "fast",
    "Fast grid",
    limits.grids.map((grid) => [grid, grid.replace("x", " × ")]),
  );
  const tokens = integer(cx, "tokens", "Token budget", 1, 1000000);
  const name = text(cx, "aggregation", "Aggregation");
  cx.watch(["method"], () => {
    const method = cx.get("method");
    show(slow, method === "slowfast" || method === "slow only");
    show(fast, method === "slowfast" || method === "fast only");
    show(name, method === limits.by_name);
    show(tokens, method !== limits.by_name && !limits.pathways.includes(method));
  });
  return h(
    "section",
    { "aria-label": "Frames and tokens" },
    slider(cx, "frames", "Frames", 1, limits.frames),
    choice(cx, "method", "Method", same(limits.methods)),
    slow,
    fast,
    tokens,
    name,
    problemSlot(cx, "setting"),
    slot(cx, "setting"),
    selectionPanel(cx),
  );
}

function promptPanel(cx) {
  const prompt = text(cx, "prompt", "Prompt", {
    rows: 3,
    placeholder: "empty for the default; yours needs <video> and {question}",
    class: "sf-top",
  });
  return h("section", { "aria-label": "Prompt" }, prompt, problemSlot(cx, "prompt"));
}

// What is impossible about the setting or its prompt
function problemSlot(cx, field) {
  const node = h("div", { class: "sf-slot" });
  cx.watch(["budget"], () => {
    const found = cx.get("budget");
    const wrong = found.problem && found.field === field;
    show(node, wrong);
    fill(node, wrong ? h("div", { class: "sf-error", role: "alert" }, found.problem) : null);
  });
  return node;
}

function selectionPanel(cx) {
  const { rules, selection_for: targets, texts } = cx.get("limits");
  const names = {
    all: "all frames",
    slow: "Slow frames",
    both: "both, each by itself",
    question: "question",
    options: "question and options",
  };
  const rule = choice(
    cx,
    "selection",
    "Selection",
    Object.keys(rules).map((name) => [name, name]),
  );
  const options = text(cx, "rule_options", "Rule options");
  const target = choice(
    cx,
    "selection_for",
    "Selection for",
    targets.map((name) => [name, names[name]]),
  );
  const scorer = text(cx, "scorer", "Scorer", { placeholder: "folder or hub name of a CLIP or SigLIP" });
  const scored = choice(
    cx,
    "scored_text",
    "Scored text",
    texts.map((name) => [name, names[name]]),
  );
  const list = text(cx, "frame_list", "Frame list", { placeholder: "JSON or parquet" });
  cx.watch(["selection"], () => {
    const name = cx.get("selection");
    const found = rules[name];
    const aware = name !== "uniform";
    options.querySelector("input").placeholder = found.options;
    rule.title = found.usage;
    show(options, aware && found.options);
    show(target, aware);
    show(scorer, aware && found.scored);
    show(scored, aware && found.scored);
    show(list, found.list);
  });
  return h("div", { class: "sf-stack" }, rule, options, target, scorer, scored, list, slot(cx, "selection"));
}

export function sidePanel(cx) {
  const panels = h("fieldset", { disabled: cx.get("snapshot") }, videoPanel(cx), settingPanel(cx), promptPanel(cx));
  return h("div", { class: "sf-side" }, budgetPanel(cx), panels);
}
