"use strict";
window.addEventListener("error", (event) => document.body.setAttribute("data-error", event.message));
const figures = JSON.parse(document.getElementById("figures").textContent);
const config = {
  displayModeBar: false, responsive: true, typesetMath: false, showLink: false,
};
const drawn = Object.entries(figures).map(([key, figure]) => Plotly.newPlot("figure-" + key, figure.data, figure.layout, config));
// A page on paper is narrower than most windows.
const resize = (layout) => Object.keys(figures).forEach((key) => Plotly.relayout("figure-" + key, layout));
window.addEventListener("beforeprint", () => resize({ autosize: false, width: 700 }));
window.addEventListener("afterprint", () => resize({ autosize: true, width: null }));
Promise.all(drawn).then(
  (all) => document.body.setAttribute("data-drawn", all.length),
  (error) => document.body.setAttribute("data-error", String(error)),
);
