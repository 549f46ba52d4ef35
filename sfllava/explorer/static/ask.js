// The question, and what starts and stops an answer.
import { button, choice, h, integer, slot, text } from "./dom.js";

export function askBar(cx) {
  const begin = () => !ask.disabled && cx.send("ask");
  const question = text(cx, "question", "Question", {
    event: "input",
    placeholder: "What happens in the video?",
    enter: begin,
    class: "sf-wide",
  });
  const ask = button("Ask", begin, { class: "sf-main", title: "Answer with this setting (Enter in the question)" });
  const stop = button("Stop", () => cx.send("stop"), { title: "Stop after the next word (Escape)" });
  cx.watch(["budget", "snapshot"], () => {
    const { over, problem, blocked } = cx.get("budget");
    ask.disabled = Boolean(over || problem || blocked || cx.get("snapshot"));
  });
  cx.watch(["busy"], () => (stop.disabled = !cx.get("busy")));
  const more = h(
    "div",
    { class: "sf-row sf-more" },
    choice(cx, "reply", "Reply", [
      ["open", "short answer"],
      ["describe", "description"],
    ]),
    integer(cx, "max_new_tokens", "New tokens", 1, cx.get("limits").new_tokens),
    text(cx, "answer_options", "Options", {
      rows: 1,
      event: "input",
      placeholder: "one per line, if any",
      class: "sf-wide",
    }),
  );
  const bar = h(
    "fieldset",
    { class: "sf-ask", disabled: cx.get("snapshot") },
    h("div", { class: "sf-row" }, question, ask, stop),
    slot(cx, "question"),
    more,
  );
  return bar;
}
