// The sampled frames side by side, each tied to its time on one axis; below it scores, and attention by frame.
import { clock, fill, h, number, show } from "./dom.js";
import { frameText, shown, title } from "./stage.js";

const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600];

// The axis reaches half a frame beyond both ends, so that evenly sampled frames stand above their times
export function timeScale(strip) {
  const times = strip.frames.map((frame) => frame.at);
  const gaps = times
    .slice(1)
    .map((at, i) => at - times[i])
    .sort((a, b) => a - b);
  const gap = gaps[Math.floor(gaps.length / 2)] || 1;
  const others = strip.scores ? strip.scores.at : [];
  const least = Math.min(times[0] - gap / 2, ...others);
  const most = Math.max(times.at(-1) + gap / 2, ...others);
  return { least, most, x: (at) => (100 * (at - least)) / (most - least || 1) };
}

function ticks(strip, scale) {
  const span = scale.most - scale.least;
  const step = strip.clock
    ? STEPS.find((size) => span / size <= 10) || Math.ceil(span / 10)
    : Math.max(1, Math.ceil(span / 10));
  const found = [];
  for (let i = Math.ceil(scale.least / step); i * step <= scale.most; i += 1) found.push(i * step);
  const label = (at) =>
    !strip.clock ? number(at) : span > 90 ? clock(at + 90, 0).replace(/.*/, () => minutes(at)) : `${+at.toFixed(1)}`;
  return found.filter((at) => at >= 0).map((at) => h("span", { style: { left: `${scale.x(at)}%` } }, label(at)));
}

const minutes = (at) => `${Math.floor(at / 60)}:${String(Math.round(at % 60)).padStart(2, "0")}`;

function axis(strip, scale) {
  const drawing = h("svg:svg", {
    viewBox: "0 0 1000 20",
    preserveAspectRatio: "none",
    class: "sf-leaders",
    "aria-hidden": "true",
  });
  strip.frames.forEach(({ at, slow }, i) => {
    const from = (1000 * (i + 0.5)) / strip.frames.length;
    drawing.append(
      h("svg:polyline", {
        points: `${from},0 ${10 * scale.x(at)},14 ${10 * scale.x(at)},20`,
        class: slow ? "sf-slow" : "",
      }),
    );
  });
  return [drawing, h("div", { class: "sf-axis" }, ticks(strip, scale))];
}

function scoreLane(strip, scale) {
  const { at, score, chosen, index, for: target } = strip.scores;
  const [least, most] = [Math.min(...score), Math.max(...score)];
  const y = (value) => 100 - (100 * (value - least)) / (most - least || 1);
  const line = h(
    "svg:svg",
    { viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" },
    h("svg:polyline", { points: at.map((second, i) => `${scale.x(second)},${y(score[i])}`).join(" ") }),
  );
  const dots = chosen.map((i) =>
    h("i", {
      class: target === "all" ? "" : "sf-slow",
      title: `frame ${index[i]}: score ${score[i].toFixed(4)}`,
      style: { left: `${scale.x(at[i])}%`, top: `${y(score[i])}%` },
    }),
  );
  return h("div", { class: "sf-scores", role: "img", "aria-label": "Scores of the candidates over time" }, line, dots);
}

function attentionLane(cx, count) {
  const { totals } = cx.get("attention");
  const word = cx.get("word") + 1;
  const names = Object.keys(totals);
  const sums = names[0]
    ? totals[names[0]].map((_, w) =>
        [...Array(count).keys()].map((i) => names.reduce((sum, name) => sum + totals[name][w][i], 0)),
      )
    : [];
  const most = Math.max(...sums.flat(), 1e-9);
  const bars = [...Array(count).keys()].map((i) =>
    h(
      "div",
      { title: names.map((name) => `${title(name)} ${(100 * totals[name][word][i]).toFixed(2)} %`).join(", ") },
      names.map((name) =>
        h("span", { "data-kind": name, style: { height: `${(100 * totals[name][word][i]) / most}%` } }),
      ),
    ),
  );
  return [h("div", { class: "sf-attention-lane", role: "img", "aria-label": "Attention on each frame" }, bars), most];
}

function legend(cx, strip, of, most) {
  const slow = strip.frames.filter((frame) => frame.slow).length;
  const items = [h("span", {}, `${strip.video}: ${strip.frames.length} of ${number(strip.total)} frames`)];
  if (slow) items.push(h("span", { "data-kind": "slow" }, `${slow} also in Slow`));
  if (strip.scores) {
    const { at, chosen, score } = strip.scores;
    items.push(
      h(
        "span",
        { class: "sf-curve" },
        `scores of ${number(at.length)} candidates, ` +
          `${Math.min(...score).toFixed(3)} to ${Math.max(...score).toFixed(3)}`.replaceAll("-", "−"),
      ),
    );
    items.push(h("span", { class: "sf-dot" }, `${chosen.length} chosen`));
  }
  if (of === "attention")
    items.push(
      h(
        "span",
        {},
        `frames of answer ${cx.get("attention").answer}; highest bar ${(100 * most).toFixed(1)} % of the attention`,
      ),
    );
  return h(
    "div",
    { class: "sf-legend sf-small" },
    items,
    h("span", { class: "sf-unit" }, strip.clock ? "time in the video" : "frame of the source"),
  );
}

export function stripPanel(cx) {
  const node = h("div", { class: "sf-strip" });
  const large = h("div", { class: "sf-pop", "aria-hidden": "true" }, h("img", { alt: "" }), h("span"));
  const film = h("div", {
    class: "sf-film",
    role: "listbox",
    tabindex: "0",
    "aria-label": "Sampled frames; arrows move",
  });
  const box = h("div", { class: "sf-film-box" }, film, large);
  show(large, false);

  const point = (place) => {
    const { strip, pictures } = shown(cx);
    large.querySelector("img").src =
      cx.large.get(`${shown(cx).of}-${strip.frames[place].index}`) || pictures[strip.frames[place].index];
    large.querySelector("span").textContent = frameText(strip, place);
    large.style.setProperty("left", `${(100 * (place + 0.5)) / strip.frames.length}%`);
    show(large, true);
  };
  film.addEventListener("pointerover", (moved) => {
    const place = [...film.children].indexOf(moved.target.closest("[role=option]"));
    if (place >= 0) point(place);
  });
  film.addEventListener("pointerleave", () => show(large, false));
  film.addEventListener("click", (clicked) => {
    const place = [...film.children].indexOf(clicked.target.closest("[role=option]"));
    if (place >= 0) cx.look({ frame: place });
  });
  film.addEventListener("keydown", (pressed) => {
    const last = (shown(cx).strip.frames || []).length - 1;
    const place = Math.min(cx.ui.frame, last);
    const next = {
      ArrowLeft: place - 1,
      ArrowUp: place - 1,
      ArrowRight: place + 1,
      ArrowDown: place + 1,
      Home: 0,
      End: last,
    }[pressed.key];
    if (next === undefined || last < 0) return;
    pressed.preventDefault();
    cx.look({ frame: Math.min(last, Math.max(0, next)) });
  });

  cx.watch(["strip", "pictures", "attention", "view", "word"], () => {
    const { strip, pictures, of } = shown(cx);
    show(node, Boolean(strip.frames));
    if (!strip.frames) return;
    const scale = timeScale(strip);
    film.style.setProperty("--frames", strip.frames.length);
    fill(
      film,
      strip.frames.map(({ index, slow }, i) =>
        h(
          "div",
          { role: "option", id: `${of}-${i}`, class: slow ? "sf-slow" : "", "aria-label": frameText(strip, i) },
          h("img", { src: pictures[index], alt: "", draggable: "false" }),
        ),
      ),
    );
    const [lane, most] = of === "attention" ? attentionLane(cx, strip.frames.length) : [null, 0];
    const note = strip.note && h("div", { class: "sf-note" }, strip.note);
    fill(
      node,
      box,
      lane,
      axis(strip, scale),
      strip.scores ? scoreLane(strip, scale) : null,
      legend(cx, strip, of, most),
      note || null,
    );
    mark();
  });
  function mark() {
    const last = film.children.length - 1;
    [...film.children].forEach((child, i) =>
      child.setAttribute("aria-selected", String(i === Math.min(cx.ui.frame, last))),
    );
    if (last >= 0) film.setAttribute("aria-activedescendant", film.children[Math.min(cx.ui.frame, last)].id);
  }
  cx.looked(mark);
  return node;
}
