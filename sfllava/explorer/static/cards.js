// Answers as cards, the newest first; and two to four settings side by side.
import { button, chips, fill, h, show, slot } from "./dom.js";

const VERDICTS = {
  first: "The first",
  "same words": "Same words as the first",
  "other words": "Other words than the first",
};

function stages(card) {
  const each = card.stages.map(({ name, seconds }) => `${name} ${seconds.toFixed(2)}`);
  return `${card.seconds.toFixed(2)} s: ${each.join(", ")}`;
}

function cardOf(cx, card) {
  const code =
    card.code &&
    h(
      "details",
      {},
      h("summary", {}, "Notebook cell"),
      h("textarea", { readonly: true, rows: 8, "aria-label": "Notebook cell" }),
    );
  if (code) code.querySelector("textarea").value = card.code;
  const look = button("Attention", () => (cx.set({ answer: card.number - 1, view: "Attention" }), cx.send("look")), {
    title: "Where the model looked for this answer",
  });
  return h(
    "article",
    { class: "sf-card", "data-number": card.number },
    h(
      "header",
      {},
      h("span", { class: "sf-number" }, `${card.number}`),
      h("span", { class: "sf-question" }, card.question),
      cx.get("snapshot") ? null : look,
    ),
    h("div", { class: "sf-answer" }, card.text || "(nothing)", card.stopped ? h("em", {}, " (stopped)") : null),
    chips(card.chips),
    h("div", { class: "sf-small sf-cost" }, `${card.video} · ${card.cost} · ${stages(card)}`),
    code || null,
  );
}

export function answersPanel(cx) {
  const panel = h("div", { class: "sf-panel" });
  const running = h("article", { class: "sf-card sf-running" });
  const list = h("div", { class: "sf-list" });
  const nothing = h(
    "p",
    { class: "sf-nothing" },
    "No answers yet. Each answer becomes a card here, with its setting, tokens and seconds.",
  );
  const table = button("Download as CSV", () => cx.send("csv"));
  cx.watch(["progress"], () => {
    const now = cx.get("progress");
    show(running, Boolean(now.stage));
    if (!now.stage) return fill(running);
    fill(
      running,
      h("header", {}, h("span", { class: "sf-question" }, now.question)),
      h("div", { class: "sf-answer", "aria-live": "polite" }, now.text || "…"),
      chips(now.chips),
      h("div", { class: "sf-small" }, `${now.stage} …`),
    );
  });
  cx.watch(["cards"], () => {
    const cards = cx.get("cards");
    const known = new Set([...list.children].map((child) => child.dataset.number));
    if (known.size < cards.length) panel.scrollTop = 0; // the new card is on top
    for (const card of cards) if (!known.has(String(card.number))) list.prepend(cardOf(cx, card));
    show(table, cards.length > 0 && !cx.get("snapshot"));
  });
  cx.watch(["cards", "progress"], () => show(nothing, !cx.get("cards").length && !cx.get("progress").stage));
  panel.append(slot(cx, "answer"), running, nothing, list, h("div", { class: "sf-row" }, table));
  return panel;
}

export function comparePanel(cx) {
  const listed = h("div", { class: "sf-list" });
  const result = h("div", { class: "sf-compared" });
  const add = button("Add this setting", () => cx.send("add"));
  const clear = button("Clear", () => cx.send("clear"));
  const compare = button("Compare", () => cx.send("compare"), { class: "sf-main" });
  cx.watch(["compared"], () => {
    const settings = cx.get("compared");
    compare.disabled = settings.length < 2;
    clear.disabled = !settings.length;
    fill(
      listed,
      settings.map((setting, i) =>
        h(
          "div",
          { class: "sf-row sf-setting", title: setting.name },
          chips(setting.chips),
          cx.get("snapshot")
            ? null
            : button("×", () => cx.send("remove", { place: i }), {
                class: "sf-remove",
                "aria-label": `Remove ${setting.name}`,
              }),
        ),
      ),
    );
    if (!settings.length)
      fill(
        listed,
        h(
          "p",
          { class: "sf-nothing" },
          "Two to four settings answer the same question. Set the controls, then add the setting.",
        ),
      );
  });
  cx.watch(["comparison"], () => {
    const cards = cx.get("comparison");
    result.style.setProperty("--cards", cards.length || 1);
    fill(
      result,
      cards.map((card) =>
        h(
          "article",
          { class: "sf-card" },
          chips(card.chips),
          h(
            "div",
            { class: "sf-answer" },
            card.words.map(([words, kind]) => [
              h(kind === "same" ? "span" : kind === "new" ? "ins" : "del", {}, words),
              " ",
            ]),
          ),
          h("div", { class: "sf-small" }, `${VERDICTS[card.verdict]} · ${card.seconds.toFixed(2)} s`),
          h("div", { class: "sf-small sf-cost" }, card.cost),
        ),
      ),
    );
  });
  const now = h("div", { class: "sf-small", "aria-live": "polite" });
  cx.watch(
    ["progress"],
    () =>
      (now.textContent = cx.get("progress").stage ? `${cx.get("progress").stage} … ${cx.get("progress").text}` : ""),
  );
  return h(
    "div",
    { class: "sf-panel" },
    cx.get("snapshot") ? null : h("div", { class: "sf-row" }, add, clear, compare),
    slot(cx, "compare"),
    listed,
    now,
    result,
  );
}
