// The attention of one answer: its words, the scale of the map over the frame, and what is lost without a part.
import { button, fill, h, show, slot } from "./dom.js";
import { title } from "./stage.js";

function scales(cx) {
  const { top } = cx.get("heat");
  return Object.entries(top || {}).map(([name, most]) =>
    h(
      "span",
      { class: "sf-scale", "data-kind": name },
      `${title(name)} 0 `,
      h("i"),
      ` ${(100 * most).toPrecision(2)} % a patch`,
    ),
  );
}

const signed = (nats) => `${nats > 0 ? "+" : nats < 0 ? "−" : ""}${Math.abs(nats).toFixed(4)}`;

function effects(found) {
  const rows = found.rows.map(({ part, nats }) => {
    const share = Math.min(1, Math.abs(nats) / found.scale) * 50;
    const bar = h("i", {
      class: nats < 0 ? "sf-less" : "sf-more-likely",
      style: { width: `${share}%`, left: nats < 0 ? `${50 - share}%` : "50%" },
    });
    return h(
      "tr",
      {},
      h("td", {}, part),
      h("td", { class: "sf-figure" }, signed(nats)),
      h("td", {}, h("div", { class: "sf-effect" }, bar)),
    );
  });
  const head = h(
    "tr",
    {},
    h("th", {}, "left out"),
    h("th", { class: "sf-figure" }, "nats"),
    h(
      "th",
      {},
      h(
        "div",
        { class: "sf-ends" },
        h("span", {}, `−${found.scale}`),
        h("span", {}, "0"),
        h("span", {}, `+${found.scale}`),
      ),
    ),
  );
  return [
    h(
      "div",
      { class: "sf-small" },
      `Log-likelihood of the answer: ${signed(found.log_likelihood).replace("+", "")} nats. ` +
        "Below zero, the answer is less likely without the part.",
    ),
    h("table", { class: "sf-effects" }, h("thead", {}, head), h("tbody", {}, rows)),
  ];
}

// The frame with the most attention, over all words
function strongest(totals) {
  const each = Object.values(totals).map((words) => words[0]);
  const sums = (each[0] || [0]).map((_, i) => each.reduce((sum, frames) => sum + frames[i], 0));
  return sums.indexOf(Math.max(...sums));
}

export function attentionPanel(cx) {
  const saved = cx.get("snapshot");
  const answers = h("select", { "aria-label": "Answer", disabled: saved });
  answers.addEventListener("change", () => cx.set({ answer: Number(answers.value), word: -1 }));
  const look = button("Show attention", () => cx.send("look"), {
    class: "sf-main",
    title: "Read the answer a second time",
  });
  const words = h("div", { class: "sf-words", role: "group", "aria-label": "Words of the answer" });
  const scale = h("div", { class: "sf-legend sf-small" });
  const part = h("select", { "aria-label": "Leave out" });
  part.addEventListener("change", () => cx.set({ part: part.value }));
  const measure = button("Measure", () => cx.send("leave_out", { part: part.value }), {
    title: "How likely the same answer is without this part",
  });
  const leave = h("div", { class: "sf-row" }, h("span", { class: "sf-label" }, "Leave out"), part, measure);
  const table = h("div", { class: "sf-measured" });
  const about = h(
    "details",
    {},
    h("summary", {}, "What this shows, and what it does not"),
    h("p", { class: "sf-small" }),
  );
  const nothing = h(
    "p",
    { class: "sf-nothing" },
    "Ask first. Then this shows which frames and patches the model read for each word of the answer.",
  );
  const top = h("div", { class: "sf-row" }, answers, saved ? null : look);

  cx.watch(["cards", "answer"], () => {
    const cards = cx.get("cards");
    show(nothing, !cards.length);
    show(top, cards.length > 0);
    fill(
      answers,
      cards.map((card, i) =>
        h("option", { value: i }, `${card.number}: ${card.question.slice(0, 60)} – ${card.text.slice(0, 40)}`),
      ),
    );
    answers.value = String(cx.get("answer"));
  });
  cx.watch(["attention"], () => {
    const found = cx.get("attention");
    for (const node of [words, about]) show(node, Boolean(found.words));
    show(leave, Boolean(found.words) && !saved && found.parts.length > 0);
    show(look, !found.words);
    const entries = found.words ? ["all words", ...found.words] : [];
    const one = (word, i) => button(word || "·", () => cx.set({ word: i - 1 }), { class: i ? "" : "sf-all" });
    fill(words, entries.map(one));
    about.querySelector("p").textContent = found.about || "";
    const choices = found.parts || [];
    fill(
      part,
      choices.map(([value, label]) => h("option", { value }, label)),
    );
    part.value = choices.some(([value]) => value === cx.get("part")) ? cx.get("part") : choices[0]?.[0];
  });
  let seen = 0;
  cx.watch(["attention"], () => {
    const { answer, totals } = cx.get("attention");
    if (answer && answer !== seen) cx.look({ frame: strongest(totals) });
    seen = answer;
  });
  cx.watch(["attention", "word"], () =>
    [...words.children].forEach((child, i) => child.setAttribute("aria-pressed", String(i - 1 === cx.get("word")))),
  );
  cx.watch(["heat"], () => fill(scale, scales(cx)));
  cx.watch(["effects"], () => fill(table, (cx.get("effects").rows || []).length ? effects(cx.get("effects")) : null));
  return h("div", { class: "sf-panel" }, nothing, top, slot(cx, "attention"), words, scale, leave, table, about);
}
