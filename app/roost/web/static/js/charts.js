// Charts as SVG, drawn here; each has a text for those who do not see it.

import { h, number, short, svg } from "./dom.js";

const WIDE = 640;
const HIGH = 180;
const PAD = { left: 62, right: 14, top: 12, bottom: 26 };

// Returns a round number that is not below `value`: 1, 2 or 5 times a power of ten.
export function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * (1 - 1e-9));
}

function frame(title, text, most, format, ...inside) {
  const y = (part) => HIGH - PAD.bottom - part * (HIGH - PAD.top - PAD.bottom);
  const grid = [0, 0.5, 1].flatMap((part) => [
    svg("line", { class: "grid", x1: PAD.left, x2: WIDE - PAD.right, y1: y(part), y2: y(part) }),
    svg("text", { x: PAD.left - 6, y: y(part) + 5, "text-anchor": "end" }, format(most * part)),
  ]);
  return svg("svg", { class: "chart", viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": `${title}. ${text}` },
    svg("title", {}, title), grid, inside);
}

function legend(names) {
  return names.length < 2 ? null
    : h("ul", { class: "legend" }, names.map((name, n) => h("li", { "data-series": n }, name)));
}

// Bars over days: points are {name, parts: [numbers on top of each other]}.
export function bars(title, names, points) {
  const total = (point) => point.parts.reduce((sum, part) => sum + part, 0);
  const most = roundUp(Math.max(...points.map(total)));
  const step = (WIDE - PAD.left - PAD.right) / points.length;
  const unit = (HIGH - PAD.top - PAD.bottom) / most;
  const every = Math.ceil(points.length / 8);
  const made = points.flatMap((point, n) => {
    let base = HIGH - PAD.bottom;
    const x = PAD.left + n * step + step * 0.15;
    const rects = point.parts.map((part, series) => {
      base -= part * unit;
      return svg("rect", { "data-series": series, x, y: base, width: step * 0.7, height: part * unit },
        svg("title", {}, `${point.name}: ${number(part)} ${names[series]}`));
    });
    const label = n % every === 0 && svg("text", { x: x + step * 0.35, y: HIGH - 5, "text-anchor": "middle" }, point.name.slice(5));
    return [...rects, label];
  });
  const text = `${short(points.reduce((sum, point) => sum + total(point), 0))} in all, at most ${short(Math.max(...points.map(total)))} in one.`;
  return h("figure", { class: "plot" }, frame(title, text, most, short, made), legend(names));
}

// Lines over time: series are {name, values: [number or null]}, all as long as `times` (seconds since 1970).
export function lines(title, times, series, format = short) {
  const values = series.flatMap((one) => one.values).filter((value) => value !== null);
  const most = roundUp(Math.max(0, ...values));
  const from = times[0], to = times[times.length - 1];
  const x = (time) => PAD.left + ((time - from) / Math.max(1, to - from)) * (WIDE - PAD.left - PAD.right);
  const y = (value) => HIGH - PAD.bottom - (value / most) * (HIGH - PAD.top - PAD.bottom);
  const paths = series.map((one, n) => {
    let path = "", pen = "M";
    const alone = []; // a value between two gaps is a dot
    one.values.forEach((value, at) => {
      if (value === null) { pen = "M"; return; }
      path += `${pen}${x(times[at]).toFixed(1)} ${y(value).toFixed(1)}`;
      if (pen === "M" && (one.values[at + 1] ?? null) === null) {
        alone.push(svg("circle", { "data-series": n, cx: x(times[at]), cy: y(value), r: 4 }));
      }
      pen = "L";
    });
    return [svg("path", { "data-series": n, d: path || "M0 0" }), alone];
  });
  const ticks = [0, 0.5, 1].map((part) => {
    const time = new Date((from + (to - from) * part) * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
    return svg("text", { x: PAD.left + part * (WIDE - PAD.left - PAD.right), y: HIGH - 5,
      "text-anchor": part === 0 ? "start" : part === 1 ? "end" : "middle" }, time);
  });
  const last = (one) => one.values.findLast((value) => value !== null);
  const text = series.map((one) => `${one.name}: ${last(one) === undefined ? "nothing" : `${format(last(one))} at last`}`).join(", ");
  return h("figure", { class: "plot" }, frame(title, text, most, format, paths, ticks), legend(series.map((one) => one.name)));
}
