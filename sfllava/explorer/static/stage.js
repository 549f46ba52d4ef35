// One frame, large: as the model sees it, with the borders of its tokens, or with the attention on its patches.
import { button, clock, fill, h, show } from "./dom.js";

// The frames that are shown: those of the controls, or those of the answer whose attention is looked at
export function shown(cx) {
  const attention = cx.get("attention");
  if (cx.get("view") === "Attention" && attention.strip)
    return { of: "attention", strip: attention.strip, pictures: attention.pictures };
  return { of: "strip", strip: cx.get("strip"), pictures: cx.get("pictures") };
}

export function frameText(strip, place) {
  const { index, at, slow } = strip.frames[place];
  const when = strip.clock ? `${clock(at)}, ` : "";
  return `Frame ${place}: ${when}${index} of ${strip.total} in the video${slow ? ", also in Slow" : ""}`;
}

function borders(strip, part) {
  const [rows, columns] = strip.grid;
  const drawing = h("svg:svg", {
    viewBox: `0 0 ${columns} ${rows}`,
    preserveAspectRatio: "none",
    class: "sf-over-frame",
    "data-kind": part.name,
  });
  for (const [x1, y1, x2, y2] of part.lines) drawing.append(h("svg:line", { x1, y1, x2, y2 }));
  return drawing;
}

function heatMap(cx, strip, place, layer) {
  const [rows, columns] = strip.grid;
  const canvas = h("canvas", {
    width: columns * 8,
    height: rows * 8,
    class: "sf-over-frame",
    role: "img",
    "aria-label": "Attention on the patches",
  });
  const paper = canvas.getContext("2d");
  paper.imageSmoothingEnabled = false;
  const colours = cx.get("limits").colours;
  for (const [name, frames] of Object.entries(cx.get("heat").parts || {})) {
    if (!frames[place] || (layer !== "frame" && layer !== name)) continue;
    const bytes = Uint8Array.from(atob(frames[place]), (letter) => letter.charCodeAt(0));
    const small = h("canvas", { width: columns, height: rows });
    const colour = colours[name] || colours.visual;
    const image = new ImageData(columns, rows);
    bytes.forEach((value, i) =>
      image.data.set(
        [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)).concat(Math.round(0.88 * value)),
        4 * i,
      ),
    );
    small.getContext("2d").putImageData(image, 0, 0);
    paper.drawImage(small, 0, 0, canvas.width, canvas.height);
  }
  return canvas;
}

function hint() {
  return h(
    "div",
    { class: "sf-hint" },
    h("b", {}, "Start here"),
    h(
      "ol",
      {},
      h("li", {}, "Open a video, or render the samples."),
      h("li", {}, "Set how many frames become how many tokens."),
      h("li", {}, "Write a question, and press Enter."),
    ),
    h("div", { class: "sf-small" }, "← → move over the frames, Escape stops an answer."),
  );
}

export function stage(cx) {
  const picture = h("img", { class: "sf-large", alt: "" });
  const over = h("div", { class: "sf-layers" });
  const film = h("video", { class: "sf-large", playsinline: true, controls: true, muted: true });
  film.muted = true;
  const start = hint();
  const frame = h("div", { class: "sf-frame" }, picture, over, film, start);
  const about = h("div", { class: "sf-small sf-about", "aria-live": "polite" });
  const marks = h("div", { class: "sf-marks", title: "Sampled frames" });
  const layers = h("div", { class: "sf-segments", role: "group", "aria-label": "What is drawn over the frame" });
  const play = button("Play", () => toggle(), { class: "sf-play" });
  const player = makePlayer(cx, film);
  const toggle = () => (cx.ui.playing ? player.stop() : player.start());

  function drawLayers(strip, of) {
    const names = strip.parts.map((part) => part.name);
    const plain = of === "attention" ? ["frame", names.length > 1 ? "Both" : "Attention"] : ["frame", "Frame"];
    const entries = [plain, ...names.map((name) => [name, title(name)])];
    if (of === "attention" && names.length < 2) entries.length = 1;
    if (!entries.some(([name]) => name === cx.ui.layer)) cx.ui.layer = "frame";
    const key = entries.flat().join();
    if (layers.dataset.key !== key) {
      const about = (name) =>
        name === "frame" ? null : `${title(name)} ${of === "attention" ? "attention" : "tokens"}`;
      const one = ([name, label]) =>
        button(label, () => cx.look({ layer: name }), {
          "data-kind": name,
          "aria-label": about(name),
          title: about(name),
        });
      fill(layers, entries.map(one));
    }
    layers.dataset.key = key; // the same buttons stay, and one of them may have the focus
    for (const child of layers.children) child.setAttribute("aria-pressed", String(child.dataset.kind === cx.ui.layer));
  }

  function draw() {
    const { strip, pictures, of } = shown(cx);
    const empty = !strip.frames;
    const moving = cx.ui.playing && player.filmed();
    for (const [node, visible] of [
      [start, empty],
      [picture, !empty && !moving],
      [over, !empty && !moving],
      [film, !empty && moving],
      [layers, !empty],
      [play, !empty],
      [marks, !empty && strip.clock],
    ])
      show(node, visible);
    frame.classList.toggle("sf-empty", empty);
    if (empty) return fill(about);
    const place = Math.min(cx.ui.frame, strip.frames.length - 1);
    const { index } = strip.frames[place];
    const key = `${of}-${index}`;
    const src = cx.large.get(key) || pictures[index];
    if (picture.src !== src) picture.src = src;
    picture.classList.toggle("sf-grey", of === "attention");
    if (!cx.large.has(key) && !cx.get("snapshot") && !cx.ui.playing) cx.send("picture", { of, place });
    drawLayers(strip, of);
    const part = strip.parts.find((found) => found.name === cx.ui.layer);
    if (of === "attention") fill(over, heatMap(cx, strip, place, cx.ui.layer));
    else fill(over, part && part.frames.includes(place) ? borders(strip, part) : null);
    const tokens =
      of === "strip" && part
        ? part.frames.includes(place)
          ? `. ${part.each} ${title(part.name)} tokens`
          : `. Not in ${title(part.name)}`
        : "";
    about.textContent = frameText(strip, place) + tokens;
    play.textContent = cx.ui.playing ? "Pause" : "Play";
    drawMarks(marks, strip, place, player);
  }

  cx.watch(["strip", "pictures", "attention", "heat", "view"], () => {
    if (!cx.ui.playing) forget(cx);
    draw();
  });
  cx.looked(draw);
  cx.heard((said) => {
    if (said.kind !== "picture") return;
    cx.large.set(`${said.of}-${said.index}`, said.picture);
    draw();
  });
  return h("div", { class: "sf-stage" }, frame, marks, h("div", { class: "sf-row sf-tools" }, play, layers), about);
}

export const title = (name) => name.charAt(0).toUpperCase() + name.slice(1);

// Large pictures are those of one video
function forget(cx) {
  const { of, strip, pictures } = shown(cx);
  const first = strip.frames && pictures[strip.frames[0].index];
  const name = `${of} ${strip.video} ${first}`;
  if (!cx.get("snapshot") && cx.ui.known && cx.ui.known !== name) cx.large.clear();
  cx.ui.known = name;
}

function drawMarks(node, strip, place, player) {
  const whole = strip.duration || strip.frames.at(-1).at || 1;
  fill(
    node,
    strip.frames.map(({ at, slow }, i) =>
      h("i", {
        class: `${slow ? "sf-slow" : ""} ${i === place ? "sf-now" : ""}`,
        style: { left: `${(100 * at) / whole}%` },
      }),
    ),
  );
  node.onclick = (clicked) => player.seek((clicked.offsetX / node.clientWidth) * whole);
}

// Plays the file where the browser can, otherwise the sampled frames one after the other
function makePlayer(cx, film) {
  let timer = 0;
  let address = "";
  let of = "";
  const nearest = (at) => {
    const { frames } = shown(cx).strip;
    return Math.max(
      0,
      frames.findLastIndex((frame) => frame.at <= at + 0.001),
    );
  };
  const flip = () => {
    const { frames } = shown(cx).strip;
    if (!cx.ui.playing || !frames) return;
    const next = (cx.ui.frame + 1) % frames.length;
    const gap = next ? frames[next].at - frames[cx.ui.frame].at : 1;
    timer = setTimeout(() => (cx.look({ frame: next }), flip()), Math.min(800, Math.max(60, 1000 * gap)));
  };
  const forgetFile = () => {
    if (address) URL.revokeObjectURL(address);
    address = of = "";
    film.removeAttribute("src");
  };
  const player = {
    filmed: () => Boolean(address),
    start() {
      cx.look({ playing: true });
      if (cx.get("snapshot") || shown(cx).of === "attention") return (forgetFile(), flip());
      if (address && of === cx.get("path")) return (film.play(), cx.look({}));
      forgetFile();
      cx.send("play");
    },
    stop() {
      clearTimeout(timer);
      film.pause();
      cx.look({ playing: false });
    },
    seek(at) {
      if (cx.ui.playing && address) film.currentTime = at;
      cx.look({ frame: nearest(at) });
    },
  };
  film.addEventListener("timeupdate", () => cx.ui.playing && cx.look({ frame: nearest(film.currentTime) }));
  film.addEventListener("ended", () => player.stop());
  film.addEventListener("error", () => address && (forgetFile(), cx.look({}), flip()));
  cx.heard((said, buffers) => {
    if (said.kind !== "file" || !cx.ui.playing) return;
    if (!said.type) return (cx.look({}), flip());
    address = URL.createObjectURL(new Blob([buffers[0]], { type: said.type }));
    of = cx.get("path");
    film.src = address;
    film.currentTime = shown(cx).strip.frames[cx.ui.frame]?.at || 0;
    film.play().catch(() => {});
    cx.look({});
  });
  cx.watch(["strip", "view"], () => cx.ui.playing && player.stop());
  cx.onEnd(() => (clearTimeout(timer), forgetFile()));
  return player;
}
