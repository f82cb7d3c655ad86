// Draws each figure of the report in the page's own colours, and draws it again when these or the page's width change.
"use strict";

const figures = JSON.parse(document.getElementById("figures").textContent);
const narrow = matchMedia("(max-width: 40rem)");
const dark = matchMedia("(prefers-color-scheme: dark)");
const PRINTED_WIDTH = 680;

// A figure with the value of each CSS variable that it names.
function coloured(part, styles) {
  if (typeof part === "string") {
    const variable = part.match(/^var\((--[\w-]+)\)$/);
    return variable ? styles.getPropertyValue(variable[1]).trim() : part;
  }
  if (Array.isArray(part)) return part.map((each) => coloured(each, styles));
  if (part && typeof part === "object") {
    return Object.fromEntries(Object.entries(part).map(([key, each]) => [key, coloured(each, styles)]));
  }
  return part;
}

function layout(own, tall, styles, width) {
  const colour = (name) => styles.getPropertyValue("--" + name).trim();
  const axis = { gridcolor: colour("line"), linecolor: colour("line"), zeroline: false, fixedrange: true, automargin: true };
  const small = { font: { size: 12, color: colour("quiet") }, standoff: 8 };
  const axes = Object.entries(own).filter(([key]) => /^[xy]axis\d*$/.test(key)).map(([key, value]) => {
    const limits = key.startsWith("x") && narrow.matches ? { nticks: 4 } : {};
    return [key, { ...axis, showgrid: key.startsWith("y"), ...limits, ...value, ...(value.title && { title: { ...small, ...value.title } }) }];
  });
  return {
    ...own, ...Object.fromEntries(axes), width, height: tall ? 480 : 320,
    margin: { l: 8, r: 12, t: 8, b: 8 }, dragmode: false, hovermode: own.hovermode ?? "closest",
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("quiet") },
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("ink") } },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", itemclick: false, itemdoubleclick: false },
  };
}

function draw(width) {
  const styles = getComputedStyle(document.documentElement);
  for (const [name, figure] of Object.entries(figures)) {
    const chart = document.getElementById(name + "-chart");
    const own = coloured(figure, styles);
    const shown = layout(own.layout, "tall" in chart.dataset, styles, width);
    Plotly.react(chart, own.data, shown, { displayModeBar: false, responsive: !width });
  }
}

draw();
dark.addEventListener("change", () => draw());
narrow.addEventListener("change", () => draw());
// paper is light, and as wide as paper
addEventListener("beforeprint", () => {
  document.documentElement.classList.add("printed");
  draw(PRINTED_WIDTH);
});
addEventListener("afterprint", () => {
  document.documentElement.classList.remove("printed");
  draw();
});
