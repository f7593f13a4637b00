"use strict";
// Draws each chart when it comes into sight, in the page's colors, anew when these change.
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)"), drawn = new Map();
  const theme = () => {
    const style = getComputedStyle(document.documentElement), color = (name) => style.getPropertyValue(name).trim();
    const words = { labelColor: color("--quiet"), titleColor: color("--quiet"), titleFontWeight: 500 };
    return {
      background: "transparent", font: "system-ui, sans-serif", view: { stroke: null },
      axis: { ...words, gridColor: color("--line"), domainColor: color("--line"), tickColor: color("--line"), labelOverlap: true },
      legend: { ...words, labelColor: color("--ink"), symbolStrokeWidth: 2.5, symbolBaseStrokeColor: color("--ink"), layout: { top: { direction: "vertical", anchor: "start" } } },
      range: { category: charts.colors[dark.matches ? "dark" : "light"] },
      rule: { color: color("--ink") }, point: { color: color("--accent") }, tick: { color: color("--accent") },
    };
  };
  const draw = async (place) => {
    const name = place.dataset.chart, options = {
      config: theme(), renderer: "svg", mode: "vega-lite", downloadFileName: name,
      actions: { export: true, source: false, compiled: false, editor: false },
      tooltip: { theme: dark.matches ? "dark" : "light" },
    };
    const before = drawn.get(name);
    drawn.set(name, null);
    before?.finalize();
    drawn.set(name, await vegaEmbed(place, charts.specs[name], options));
    place.dataset.drawn = "true";
  };
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((one) => one.isIntersecting)) {
      seen.unobserve(entry.target);
      draw(entry.target);
    }
  }, { rootMargin: "300px" });
  for (const place of document.querySelectorAll("[data-chart]")) seen.observe(place);
  dark.addEventListener("change", () => {
    for (const place of document.querySelectorAll("[data-drawn]")) draw(place);
  });
  const only = document.getElementById("only-differences"), configs = document.getElementById("configs");
  const mark = () => configs.classList.toggle("differences-only", only.checked);
  only.addEventListener("change", mark);
  mark();
})();
