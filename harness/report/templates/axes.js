const SVG = "http://www.w3.org/2000/svg";
const LINE = 15; // pixels between two names
const MOST_NAMES = 40;

function node(kind, attributes, text) {
  const made = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

/** A scale from values to pixels, with about five round ticks; logarithmic over wide ranges. */
function scale(values, start, end) {
  let [low, high] = [Math.min(...values), Math.max(...values)];
  const logged = low > 0 && high / low > 60;
  const turn = logged ? Math.log10 : (value) => value;
  const room = (turn(high) - turn(low)) * 0.07 || Math.abs(turn(high)) * 0.05 || 1;
  const [first, last] = [turn(low) - room, turn(high) + room];
  const at = (value) => start + ((turn(value) - first) / (last - first)) * (end - start);
  return { at, logged, ticks: logged ? decades(first, last) : rounds(first, last) };
}

function rounds(first, last) {
  const rough = (last - first) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const found = [];
  for (let tick = Math.ceil(first / step) * step; tick <= last; tick += step) found.push(tick);
  return found;
}

function decades(first, last) {
  const found = [];
  for (let power = Math.floor(first); power <= last; power += 1) {
    for (const factor of last - first < 3 ? [1, 2, 5] : [1]) {
      const tick = factor * 10 ** power;
      if (Math.log10(tick) >= first && Math.log10(tick) <= last) found.push(tick);
    }
  }
  return found;
}

function short(value) {
  const size = Math.abs(value);
  for (const [unit, factor] of [["G", 1e9], ["M", 1e6], ["k", 1e4]]) {
    if (size >= factor) return `${Number((value / (unit === "k" ? 1e3 : factor)).toPrecision(3))}${unit}`;
  }
  return String(Number(value.toPrecision(3))).replace("-", "−");
}

/** Heights near the wanted ones, in their order, a line apart where there is room. */
function spread(wanted, low, high) {
  const order = wanted.map((_, place) => place).sort((one, two) => wanted[one] - wanted[two]);
  const gap = Math.min(LINE, (high - low) / Math.max(order.length - 1, 1));
  const placed = [];
  let floor = low;
  for (const place of order) {
    placed[place] = Math.max(wanted[place], floor);
    floor = placed[place] + gap;
  }
  let ceiling = high;
  for (const place of order.reverse()) {
    placed[place] = Math.min(placed[place], ceiling);
    ceiling = placed[place] - gap;
  }
  return placed;
}

const OUTLINES = {
  circle: "M-4.6 0a4.6 4.6 0 1 0 9.2 0a4.6 4.6 0 1 0 -9.2 0Z",
  square: "M-4.2-4.2H4.2V4.2H-4.2Z",
  up: "M0-5.2L5 4.2H-5Z",
  diamond: "M0-5.6L5.6 0L0 5.6L-5.6 0Z",
  down: "M0 5.2L5-4.2H-5Z",
  plus: "M-1.8-5H1.8V-1.8H5V1.8H1.8V5H-1.8V1.8H-5V-1.8H-1.8Z",
};

function marker(row, x, y) {
  const made = node("g", { transform: `translate(${x} ${y})` });
  const outline = OUTLINES[row.shape];
  made.append(node("path", {
    d: outline, fill: row.fill === "full" ? row.colour : "var(--paper)",
    stroke: row.fill === "full" ? "var(--paper)" : row.colour, "stroke-width": 1.5,
  }));
  if (row.fill === "left") {
    made.append(node("path", { d: outline, fill: row.colour, style: "clip-path: inset(0 50% 0 0)" }));
  }
  return made;
}

/** Points that no other point beats in both respects. */
function front(points, x, y) {
  const [across, up] = [x, y].map((axis) => (axis.better === "lower" ? 1 : -1));
  const beats = (one, two) => across * one.x <= across * two.x && up * one.y <= up * two.y
    && (one.x !== two.x || one.y !== two.y);
  return points.filter((point) => !points.some((other) => beats(other, point)))
    .sort((one, two) => one.x - two.x);
}

function pointsOf(data, x, y) {
  const found = data.rows.map((row, place) => ({
    row, x: x.values[place], y: y.values[place], low: y.low[place] ?? null, high: y.high[place] ?? null,
    said: `${row.label}: ${y.title} ${y.said[place]}; ${x.title.split(",")[0]} ${x.said[place]}`,
  }));
  return found.filter((point) => point.x !== null && point.y !== null);
}

function plane(data, x, y, width) {
  const points = pointsOf(data, x, y);
  const narrow = width < 560;
  const named = points.slice(0, MOST_NAMES);
  const names = named.map(({ row }) => (row.recommended ? "◉ " : "") + row.names[narrow ? 1 : 0]);
  const right = 44 + 6.9 * Math.max(...names.map((name) => name.length));
  const height = Math.max(narrow ? 300 : 380, LINE * named.length + 70);
  const box = { left: 58, right: width - right, top: 16, bottom: height - 46 };
  const picture = node("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", class: "plane" });
  picture.append(node("title", {}, `${y.title} against ${x.title}`));
  const ends = points.flatMap(({ y: middle, low, high }) => [middle, low ?? middle, high ?? middle]);
  const across = scale(points.map((point) => point.x), box.left, box.right);
  const up = scale(ends, box.bottom, box.top);
  grid(picture, box, across, up, { x, y, narrow });
  const best = front(points, x, y).map((point) => `${across.at(point.x)},${up.at(point.y)}`);
  if (best.length > 1) picture.append(node("polyline", { points: best.join(" "), class: "front" }));
  for (const point of points) picture.append(drawn(point, across, up));
  const heights = spread(named.map((point) => up.at(point.y)), box.top, box.bottom);
  named.forEach((point, place) => {
    picture.append(nameAt(point, names[place], box.right, up.at(point.y), heights[place]));
  });
  return picture;
}

function grid(picture, box, across, up, { x, y, narrow }) {
  const every = narrow ? across.ticks.filter((_, place) => place % 2 === 0) : across.ticks;
  for (const tick of every) {
    const at = across.at(tick);
    picture.append(node("path", { d: `M${at} ${box.top}V${box.bottom}`, class: "grid" }));
    picture.append(node("text", { x: at, y: box.bottom + 15, "text-anchor": "middle" }, short(tick)));
  }
  for (const tick of up.ticks) {
    const at = up.at(tick);
    picture.append(node("path", { d: `M${box.left} ${at}H${box.right}`, class: "grid" }));
    picture.append(node("text", { x: box.left - 6, y: at + 4, "text-anchor": "end" }, short(tick)));
  }
  const told = (axis, logged) => `${axis.title}${logged ? ", log" : ""} (${axis.better} is better)`;
  const middle = (box.left + box.right) / 2;
  picture.append(node("text", { x: Math.max(middle, 150), y: box.bottom + 36, "text-anchor": "middle" }, told(x, across.logged)));
  const side = node("text", { "text-anchor": "middle", transform: `translate(13 ${(box.top + box.bottom) / 2}) rotate(-90)` }, told(y, up.logged));
  picture.append(side);
}

function tagged(point, ...parts) {
  const made = node("g", { class: "v", "data-v": point.row.label, "data-say": point.said });
  made.append(...parts);
  return made;
}

function drawn(point, across, up) {
  const [x, y] = [across.at(point.x), up.at(point.y)];
  const parts = [marker(point.row, x, y)];
  if (point.low !== null && point.high !== null) {
    const d = `M${x} ${up.at(point.low)}V${up.at(point.high)}`;
    parts.unshift(node("path", { d, stroke: point.row.colour, "stroke-width": 1.5, opacity: 0.6 }));
  }
  if (point.row.recommended) parts.push(node("circle", { cx: x, cy: y, r: 9.5, class: "ring" }));
  return tagged(point, ...parts);
}

function nameAt(point, name, edge, from, height) {
  const join = node("path", { d: `M${edge + 4} ${from}L${edge + 16} ${height}`, stroke: point.row.colour, fill: "none" });
  return tagged(point, join, marker(point.row, edge + 23, height), node("text", { x: edge + 32, y: height + 4 }, name));
}

function chooser(figure) {
  const data = JSON.parse(figure.querySelector("script").textContent);
  const bar = document.createElement("div");
  bar.className = "tools axes";
  const picked = {};
  for (const [side, title, first] of [["y", "Draw", data.y], ["x", "against", data.x]]) {
    const label = document.createElement("label");
    picked[side] = document.createElement("select");
    data.quantities.forEach(({ title: name }, place) => picked[side].add(new Option(name, place)));
    picked[side].value = first;
    picked[side].name = side;
    label.append(`${title} `, picked[side]);
    bar.append(label);
  }
  const view = document.createElement("div");
  view.className = "picture chosen";
  figure.prepend(bar);
  figure.querySelector("figcaption").before(view);
  const caption = figure.querySelector("figcaption");
  const given = caption.textContent;
  function draw() {
    const [x, y] = [picked.x, picked.y].map(({ value }) => data.quantities[Number(value)]);
    const own = Number(picked.x.value) === data.x && Number(picked.y.value) === data.y;
    figure.classList.toggle("other", !own);
    caption.textContent = own ? given : `${y.title} against ${x.title}`;
    view.replaceChildren();
    if (own) return;
    if (!pointsOf(data, x, y).length) view.textContent = "No variant has both of these.";
    else view.append(plane(data, x, y, Math.max(320, Math.min(figure.clientWidth, 864))));
    document.dispatchEvent(new Event("drawn"));
  }
  for (const select of Object.values(picked)) select.addEventListener("change", draw);
  addEventListener("resize", draw);
}
for (const figure of document.querySelectorAll("figure.choose")) chooser(figure);
