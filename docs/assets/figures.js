// Draw plotly's figures of the tutorials, in the colours of the page; the script is loaded only where there are any.
(function () {
  const figures = () => Array.from(document.querySelectorAll(".sfl-figure"));
  const colour = (name) => getComputedStyle(document.body).getPropertyValue(name).trim();

  function axes(layout, line, text) {
    for (const [name, axis] of Object.entries(layout)) {
      if (/^[xy]axis\d*$/.test(name)) {
        layout[name] = { ...axis, gridcolor: line, zerolinecolor: line, linecolor: line, color: text, automargin: true };
      }
    }
  }

  function draw() {
    const text = colour("--md-default-fg-color"), line = colour("--md-default-fg-color--lightest");
    for (const place of figures()) {
      place.figure ??= JSON.parse(place.querySelector("script").textContent);
      const layout = JSON.parse(JSON.stringify(place.figure.layout));
      const clear = "rgba(0,0,0,0)";
      Object.assign(layout, { paper_bgcolor: clear, plot_bgcolor: clear, autosize: true });
      layout.font = { ...layout.font, color: text };
      layout.colorway = layout.colorway || undefined;
      axes(layout, line, text);
      Plotly.react(place, place.figure.data, layout, { responsive: true, displaylogo: false });
    }
  }

  document.addEventListener("DOMContentLoaded", function () {
    if (!figures().length) return;
    const script = document.createElement("script");
    const own = document.querySelector('script[src$="assets/figures.js"]');
    script.src = own.src.replace(/figures\.js.*$/, "plotly.min.js");
    script.onload = function () {
      draw();
      new MutationObserver(draw).observe(document.body, { attributeFilter: ["data-md-color-scheme"] });
    };
    document.head.append(script);
  });
})();
