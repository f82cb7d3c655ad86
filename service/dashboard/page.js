// The page asks for itself again every few seconds and swaps <main>. Charts that are there already are moved over
// and told their new data, so nothing flickers and the place that one reads stays where it is.
"use strict";

const drawn = new Map(); // chart's id -> the JSON that it shows
const narrow = matchMedia("(max-width: 52rem)");
const dark = matchMedia("(prefers-color-scheme: dark)");

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}

// Runs of predictions that follow each other without a gap, so that the band does not bridge what was not said.
function runs(said) {
  const found = [];
  for (const one of said) {
    const last = found.at(-1)?.at(-1);
    if (last && one.from <= last.to && one.to > last.to) found.at(-1).push(one);
    else found.push([one]);
  }
  return found;
}

// Each run as one closed shape: from the close on which it stands, along the highs, and back along the lows.
function band(said, closes) {
  const x = [], y = [];
  for (const run of runs(said)) {
    const back = run.toReversed();
    x.push(run[0].from, ...run.map((one) => one.to), ...back.map((one) => one.to), run[0].from, null);
    y.push(closes[run[0].from], ...run.map((one) => one.high), ...back.map((one) => one.low), closes[run[0].from], null);
  }
  return { x, y };
}

function percent(share) {
  return (share * 100).toFixed(1) + "\u202f%";
}

function outcome(one) {
  const said = one.p_up > 0.5 ? `${percent(one.p_up)} up` : `${percent(1 - one.p_up)} down`;
  return `said ${said}, went ${one.up ? "up" : "down or nowhere"}: ${one.right ? "right" : "wrong"}`;
}

function traces({ times, closes, said }) {
  const known = said.filter((one) => one.up !== null);
  const open = said.filter((one) => one.up === null);
  const strip = (right) => {
    const these = known.filter((one) => one.right === right);
    return {
      name: right ? "right" : "wrong", type: "scatter", mode: "markers", yaxis: "y2", showlegend: false,
      x: these.map((one) => one.to), y: these.map(() => (right ? 1 : 0)), text: these.map(outcome),
      hovertemplate: "%{text}<extra></extra>",
      marker: {
        size: 7, color: colour(right ? "up" : "down"), symbol: these.map((one) => "triangle-" + (one.up ? "up" : "down")),
      },
    };
  };
  const predicted = (name, these, marker) => ({
    name, type: "scatter", mode: "markers", x: these.map((one) => one.to), y: these.map((one) => one.price), marker,
    text: these.map((one) => `${percent(one.level)} from ${one.low.toPrecision(6)} to ${one.high.toPrecision(6)}`),
    hovertemplate: "predicted %{y}<br>%{text}<extra></extra>",
  });
  return [
    {
      name: said.length ? `${(said[0].level * 100).toFixed(0)}\u202f% interval` : "", type: "scatter", mode: "lines",
      ...band(said, closes), fill: "toself", fillcolor: colour("band"), line: { width: 0 }, hoverinfo: "skip",
    },
    predicted("predicted", known, { size: 4, color: colour("accent") }),
    {
      name: "close", type: "scatter", mode: "lines", x: closes.map((_, i) => i), y: closes, text: times.map(longTime),
      line: { color: colour("ink"), width: 1.5 }, hovertemplate: "close %{y}<br>%{text}<extra></extra>",
    },
    predicted("not known yet", open, { size: 9, color: colour("card"), line: { width: 2, color: colour("accent") } }),
    strip(true),
    strip(false),
  ].filter((trace) => trace.x.length > 0);
}

function longTime(iso) {
  return new Date(iso).toLocaleString("en-GB", { timeZone: "UTC", dateStyle: "medium", timeStyle: "short" }) + " UTC";
}

// A handful of dates (hours where all is within two days) under the bars that closed then.
function ticks(times) {
  const step = Math.ceil(times.length / (narrow.matches ? 4 : 7));
  const short = Date.parse(times.at(-1)) - Date.parse(times[0]) < 2 * 86400e3;
  const format = short ? { hour: "2-digit", minute: "2-digit" } : { day: "numeric", month: "short" };
  const tickvals = times.map((_, i) => i).filter((i) => i % step === Math.floor(step / 2));
  return { tickvals, ticktext: tickvals.map((i) => new Date(times[i]).toLocaleString("en-GB", { timeZone: "UTC", ...format })) };
}

function layout({ times, said }) {
  const withOutcomes = said.some((one) => one.up !== null);
  const strip = withOutcomes ? (narrow.matches ? 0.18 : 0.13) : 0;
  const axis = { gridcolor: colour("line"), linecolor: colour("line"), zeroline: false, fixedrange: true };
  return {
    margin: { l: 8, r: 8, t: 8, b: 8 }, height: narrow.matches ? 300 : 370, dragmode: false, hovermode: "closest",
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("quiet") },
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("ink") } },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", itemclick: false, itemdoubleclick: false },
    xaxis: { ...axis, ...ticks(times), automargin: true, showgrid: false, anchor: withOutcomes ? "y2" : "y" },
    yaxis: { ...axis, automargin: true, side: "right", domain: [withOutcomes ? strip + 0.07 : 0, 1], tickformat: ",~r", nticks: 6 },
    yaxis2: {
      ...axis, automargin: true, side: "right", domain: [0, strip], range: [-0.8, 1.8], showgrid: false,
      tickvals: [0, 1], ticktext: ["wrong", "right"], visible: withOutcomes,
    },
  };
}

// A phone has room for the newest third.
function newest({ times, closes, said }) {
  const cut = narrow.matches ? Math.max(0, closes.length - 100) : 0;
  const moved = said.filter((one) => one.from >= cut).map((one) => ({ ...one, from: one.from - cut, to: one.to - cut }));
  return { times: times.slice(cut), closes: closes.slice(cut), said: moved };
}

function draw() {
  if (!window.Plotly) return;
  for (const data of document.querySelectorAll("script[data-chart]")) {
    const chart = document.getElementById(data.dataset.chart);
    if (drawn.get(chart.id) === data.textContent) continue;
    const values = newest(JSON.parse(data.textContent));
    if (values.closes.length === 0) continue;
    Plotly.react(chart, traces(values), layout(values), { displayModeBar: false, responsive: true });
    drawn.set(chart.id, data.textContent);
  }
}

function redraw() {
  drawn.clear();
  draw();
}

function swap(text) {
  const fresh = new DOMParser().parseFromString(text, "text/html");
  const next = document.adoptNode(fresh.getElementById("main"));
  const focused = document.activeElement;
  const path = focused && document.getElementById("main").contains(focused) ? focused.closest("[aria-labelledby]") : null;
  for (const empty of next.querySelectorAll(".chart")) {
    const chart = document.getElementById(empty.id);
    if (chart) {
      chart.setAttribute("aria-label", empty.getAttribute("aria-label"));
      empty.replaceWith(chart);
    }
  }
  const scrolled = [...document.querySelectorAll(".scroll")].map((box) => box.scrollLeft);
  const [x, y] = [scrollX, scrollY];
  document.getElementById("main").replaceWith(next);
  next.querySelectorAll(".scroll").forEach((box, i) => (box.scrollLeft = scrolled[i] ?? 0));
  scrollTo({ left: x, top: y, behavior: "instant" });
  if (path) next.querySelector(`[tabindex][aria-labelledby="${path.getAttribute("aria-labelledby")}"]`)?.focus({ preventScroll: true });
  document.title = fresh.title;
  draw();
}

async function refresh() {
  // whoever has marked text is reading or copying it, and a hidden page is not read at all
  const wait = document.hidden || !getSelection().isCollapsed;
  if (!wait) {
    const problem = await ask();
    document.getElementById("connection").textContent = problem;
  }
  setTimeout(refresh, Number(document.getElementById("main").dataset.refreshSeconds) * 1000);
}

async function ask() {
  try {
    const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(15000) });
    if (!answer.ok) return `This page is not fresh: the service answers ${answer.status}. Trying again.`;
    swap(await answer.text());
    return "";
  } catch {
    return "This page is not fresh: the service does not answer. Trying again.";
  }
}

draw();
dark.addEventListener("change", redraw);
narrow.addEventListener("change", redraw);
document.addEventListener("visibilitychange", () => document.hidden || ask());
setTimeout(refresh, Number(document.getElementById("main").dataset.refreshSeconds) * 1000);
