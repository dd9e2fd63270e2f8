const data = JSON.parse(document.getElementById("data").textContent);
const PAGE = 25;
const LONG = 1_500_000; // cells of a word table: longer pairs are not compared
const field = (name) => document.getElementById(name);
let shownUpTo = PAGE;
let found = [];

function option(value, text) {
  const made = document.createElement("option");
  made.value = value;
  made.textContent = text;
  return made;
}

function fill() {
  data.scores.forEach((score, place) => field("score").append(option(place, score.title)));
  for (const name of ["a", "b"]) {
    data.rows.forEach((row, place) => field(name).append(option(place, row.label)));
  }
  const reference = data.rows.findIndex((row) => row.label === data.reference);
  field("b").value = Math.max(reference, 0);
  field("a").value = data.rows.findIndex((row, place) => place !== Number(field("b").value));
  if (data.rows.length > 1) return;
  field("a").value = 0;
  for (const name of ["a", "b", "swap"]) (field(name).closest("label") ?? field(name)).hidden = true;
}

const text = (place) => (place < 0 ? "" : data.texts[place]);
const ask = () => ({
  score: data.scores[Number(field("score").value)],
  a: Number(field("a").value),
  b: Number(field("b").value),
});

/** How much better A is than B on an item, in the terms that are shown; null where one is not known. */
function ahead({ score, a, b }, item) {
  if (item.v[a] === null || item.v[b] === null) return null;
  const difference = item.v[a] - item.v[b];
  return score.better === "lower" ? -difference : difference;
}

function apart(item) {
  const known = item.v.filter((value) => value !== null);
  return known.length ? Math.max(...known) - Math.min(...known) : -1;
}

const EVEN = 1e-9;
const KEEPS = {
  all: () => true,
  a: (asked, item) => ahead(asked, item) > EVEN,
  b: (asked, item) => ahead(asked, item) < -EVEN && ahead(asked, item) !== null,
  differ: (asked, item) => Math.abs(ahead(asked, item) ?? 0) > EVEN,
  wrong: (asked, item) => item.v.every((value) => value === null || value === 0),
};
const ORDERS = {
  a: (asked, item) => -(ahead(asked, item) ?? -Infinity),
  b: (asked, item) => ahead(asked, item) ?? Infinity,
  apart: (asked, item) => -apart(item),
  worst: (asked, item) => {
    const value = item.v[asked.a];
    if (value === null) return Infinity;
    return asked.score.better === "lower" ? -value : value;
  },
  file: (asked, item, place) => place,
};

function holdsAll(item, words) {
  if (!words.length) return true;
  const all = [item.id, text(item.p), text(item.t), ...item.a.map(text), ...item.c.map(text)];
  const whole = all.join("\n").toLowerCase();
  return words.every((word) => whole.includes(word));
}

function number(value, score) {
  if (value === null) return "–";
  const real = score.exp ? Math.exp(value) : value;
  if (Math.abs(real) >= 1e7) return real.toExponential(2);
  const rounded = Math.abs(real) >= 1000 ? Math.round(real) : Number(real.toPrecision(4));
  return rounded.toLocaleString("en-US", { maximumSignificantDigits: 8 });
}

function difference(asked, item) {
  const { score, a, b } = asked;
  if (item.v[a] === null || item.v[b] === null) return "–";
  const raw = item.v[a] - item.v[b];
  const shown = score.exp ? Math.expm1(raw) * 100 : raw;
  const sign = shown > 0 ? "+" : shown < 0 ? "−" : "";
  return `${sign}${Number(Math.abs(shown).toPrecision(3))}${score.exp ? " %" : ""}`;
}

const words = (whole) => whole.split(/(\s+)/).filter(Boolean);

/** Which words of one text a longest common subsequence with the other leaves out. */
function onlyHere(one, other) {
  let start = 0;
  let [last, end] = [one.length, other.length];
  while (start < last && start < end && one[start] === other[start]) start += 1;
  while (last > start && end > start && one[last - 1] === other[end - 1]) {
    last -= 1;
    end -= 1;
  }
  const [high, wide] = [last - start, end - start];
  if (high * wide > LONG) return null;
  const best = Array.from({ length: high + 1 }, () => new Uint16Array(wide + 1));
  for (let i = high - 1; i >= 0; i -= 1) {
    for (let j = wide - 1; j >= 0; j -= 1) {
      best[i][j] = one[start + i] === other[start + j]
        ? best[i + 1][j + 1] + 1
        : Math.max(best[i + 1][j], best[i][j + 1]);
    }
  }
  const alone = new Set();
  let [i, j] = [0, 0];
  while (i < high) {
    if (j < wide && one[start + i] === other[start + j]) {
      i += 1;
      j += 1;
    } else if (j < wide && best[i][j + 1] >= best[i + 1][j]) {
      j += 1;
    } else {
      alone.add(start + i);
      i += 1;
    }
  }
  return alone;
}

function marked(whole, other) {
  const box = document.createElement("div");
  const own = words(whole);
  const alone = other === null ? null : onlyHere(own, words(other));
  if (alone === null) {
    box.textContent = whole;
    return box;
  }
  own.forEach((word, place) => {
    if (!alone.has(place) || !word.trim()) {
      box.append(word);
      return;
    }
    const mark = document.createElement("mark");
    mark.textContent = word;
    box.append(mark);
  });
  return box;
}

function against(item, mine, theirs) {
  const mode = field("mark").value;
  if (mode === "reference") return item.t < 0 ? null : text(item.t);
  return mode === "pair" && mine !== theirs ? text(item.a[theirs]) : null;
}

function part(title, body, kind) {
  const made = document.createElement("div");
  made.className = `part ${kind}`;
  const head = document.createElement("h3");
  head.textContent = title;
  if (typeof body === "string") {
    const plain = document.createElement("div");
    plain.textContent = body;
    body = plain;
  }
  body.classList.add("text");
  made.append(head, body);
  return made;
}

function choices(item) {
  if (item.c.length < 2) return "";
  return `\n\n${item.c.map((choice) => `• ${text(choice).trim()}`).join("\n")}`;
}

function answer(asked, item, mine, theirs, letter) {
  const { score } = asked;
  const name = mine === theirs ? data.rows[mine].label : `${letter} ${data.rows[mine].label}`;
  const title = `${name}: ${number(item.v[mine], score)}`;
  const whole = text(item.a[mine]);
  return part(title, whole ? marked(whole, against(item, mine, theirs)) : "", "answer");
}

function verdict(gap) {
  const made = document.createElement("strong");
  const side = gap === null ? "none" : gap > EVEN ? "a" : gap < -EVEN ? "b" : "even";
  made.textContent = { none: "not compared", a: "A is better", b: "B is better", even: "equal" }[side];
  made.className = { a: "good", b: "bad" }[side] ?? "muted";
  return made;
}

function card(asked, item) {
  const made = document.createElement("article");
  const gap = ahead(asked, item);
  const { score, a, b } = asked;
  const head = document.createElement("p");
  head.className = "head";
  const values = document.createElement("span");
  values.textContent = number(item.v[a], score);
  if (a !== b) {
    head.append(verdict(gap));
    values.textContent = `A ${number(item.v[a], score)}, B ${number(item.v[b], score)}, A − B ${difference(asked, item)}`;
  }
  const id = document.createElement("code");
  id.textContent = item.id;
  head.append(values, id);
  const columns = document.createElement("div");
  columns.className = "columns4";
  if (item.p >= 0) columns.append(part("Prompt", text(item.p) + choices(item), "prompt"));
  if (item.t >= 0) columns.append(part("Reference", text(item.t), "reference"));
  if (item.a[a] >= 0 || item.a[b] >= 0) {
    columns.append(answer(asked, item, a, b, "A"));
    if (a !== b) columns.append(answer(asked, item, b, a, "B"));
  }
  made.append(head);
  if (columns.children.length) made.append(columns);
  return made;
}

function tell(asked, all) {
  const { score, a, b } = asked;
  const count = (keep) => all.filter((item) => keep(asked, item)).length;
  const compared = all.filter((item) => ahead(asked, item) !== null).length;
  const [ours, theirs] = [count(KEEPS.a), count(KEEPS.b)];
  const names = [a, b].map((place) => data.rows[place].label);
  field("told").textContent = a === b
    ? `${found.length} of ${all.length} items of ${score.title}, answered by ${names[0]}.`
    : `${names[0]} (A) is better on ${ours} of ${compared} items, ${names[1]} (B) on ${theirs}, `
      + `equal on ${compared - ours - theirs}. ${found.length} of ${all.length} items below.`;
  const many = Math.max(...data.rows.map((row) => row.seeds));
  const texts = all.some((item) => item.p >= 0 || item.a.some((place) => place >= 0));
  field("about").textContent = [
    score.better === "lower" ? "Lower values are better." : "Higher values are better.",
    many > 1 ? "Values are means over the seeds, answers those of the first seed." : "",
    texts ? "" : "The runs kept no texts of these items.",
    data.left_out ? `${data.left_out} texts are left out, to keep this page small: those of items on which variants agree most.` : "",
  ].filter(Boolean).join(" ");
}

function draw() {
  const asked = ask();
  const list = field("list");
  list.replaceChildren(...found.slice(0, shownUpTo).map((item) => card(asked, item)));
  for (const body of list.querySelectorAll(".text")) {
    if (body.scrollHeight <= body.clientHeight + 2) continue;
    body.classList.add("long");
    body.tabIndex = 0;
    body.setAttribute("role", "button");
    body.setAttribute("aria-expanded", "false");
    body.title = "show all of it";
  }
  if (!found.length) list.textContent = "Nothing matches.";
  field("more").hidden = shownUpTo >= found.length;
}

function apply() {
  const asked = ask();
  const shares = asked.score.better === "higher";
  field("which").querySelector('[value="wrong"]').disabled = !shares;
  if (!shares && field("which").value === "wrong") field("which").value = "all";
  const all = asked.score.items;
  const typed = field("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  const order = ORDERS[field("sort").value];
  found = all
    .map((item, place) => ({ item, key: order(asked, item, place), place }))
    .filter(({ item }) => KEEPS[field("which").value](asked, item) && holdsAll(item, typed))
    .sort((one, two) => (one.key === two.key ? one.place - two.place : one.key - two.key))
    .map(({ item }) => item);
  shownUpTo = PAGE;
  tell(asked, all);
  draw();
}

/** What the address asks for, such as items.html#a=qlora_nf4&b=lora_bf16&which=a. */
function recallAsked() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  for (const name of ["a", "b"]) {
    const place = data.rows.findIndex((row) => row.label === wanted.get(name));
    if (place >= 0) field(name).value = place;
  }
  const score = data.scores.findIndex((one) => one.title === wanted.get("score"));
  if (score >= 0) field("score").value = score;
  for (const name of ["which", "sort", "mark"]) {
    const options = [...field(name).options].map((one) => one.value);
    if (options.includes(wanted.get(name))) field(name).value = wanted.get(name);
  }
  if (wanted.has("find")) field("find").value = wanted.get("find");
}

fill();
recallAsked();
field("ask").addEventListener("submit", (event) => event.preventDefault());
field("ask").addEventListener("change", apply);
field("find").addEventListener("input", apply);
field("swap").addEventListener("click", () => {
  [field("a").value, field("b").value] = [field("b").value, field("a").value];
  apply();
});
field("more").addEventListener("click", () => {
  shownUpTo += PAGE;
  draw();
});
function unfold(event) {
  const body = event.target.closest?.(".text.long");
  if (!body || (event.type === "keydown" && event.key !== "Enter")) return;
  if (getSelection().isCollapsed) body.setAttribute("aria-expanded", body.classList.toggle("whole"));
}
for (const kind of ["click", "keydown"]) field("list").addEventListener(kind, unfold);
addEventListener("hashchange", () => {
  recallAsked();
  apply();
});
apply();
