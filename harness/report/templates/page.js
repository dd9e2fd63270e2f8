function keyOf(row, column) {
  const cell = row.cells[column];
  const raw = cell.dataset.sort;
  if (raw === undefined) return null;
  const number = Number(raw);
  return cell.dataset.kind === "number" && !Number.isNaN(number) ? number : raw.toLowerCase();
}

function compare(a, b) {
  if (typeof a === typeof b) return a < b ? -1 : a > b ? 1 : 0;
  return typeof a === "number" ? -1 : 1;
}

function lines(table) {
  return [...table.tBodies[0].rows].filter((row) => !row.classList.contains("opened"));
}

function sortBy(table, column, direction) {
  const body = table.tBodies[0];
  const rows = lines(table).map((row, place) => ({ row, place, key: keyOf(row, column) }));
  rows.sort((a, b) => {
    if (a.key === null || b.key === null) {
      return (a.key === null) - (b.key === null) || a.place - b.place;
    }
    return direction * compare(a.key, b.key) || a.place - b.place;
  });
  for (const { row } of rows) {
    const below = row.nextElementSibling;
    body.append(row);
    if (below?.classList.contains("opened")) body.append(below);
  }
}

for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const sorted = head.getAttribute("aria-sort");
      const first = head.dataset.better === "higher" ? "descending" : "ascending";
      const second = first === "ascending" ? "descending" : "ascending";
      const order = sorted === first ? second : first;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      sortBy(table, column, order === "ascending" ? 1 : -1);
    });
  });
}

function holds(text, word) {
  const part = word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const start = /^[\p{L}\p{N}]/u.test(word) ? "(?<![\\p{L}\\p{N}])" : "";
  const end = /[\p{L}\p{N}]$/u.test(word) ? "(?![\\p{L}\\p{N}])" : "";
  return new RegExp(start + part + end, "iu").test(text);
}

function pressed(tools) {
  const wanted = new Map();
  for (const chip of tools.querySelectorAll('.chip[aria-pressed="true"]')) {
    const kind = chip.dataset.tag.split("=")[0];
    wanted.set(kind, [...(wanted.get(kind) ?? []), chip.dataset.tag]);
  }
  return [...wanted.values()];
}

for (const input of document.querySelectorAll("input[data-table]")) {
  const table = document.getElementById(input.dataset.table);
  const tools = input.closest(".tools");
  const count = tools.querySelector("output");
  const apply = () => {
    const words = input.value.split(/\s+/).filter(Boolean);
    const kinds = pressed(tools);
    const rows = lines(table);
    let shown = 0;
    for (const row of rows) {
      const text = [...row.cells].map((cell) => cell.textContent).join(" ");
      const tags = (row.dataset.tags ?? "").split("|");
      const fits = kinds.every((values) => values.some((value) => tags.includes(value)));
      row.hidden = !fits || !words.every((word) => holds(text, word));
      const below = row.nextElementSibling;
      if (below?.classList.contains("opened")) below.hidden = row.hidden;
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = shown
      ? `${shown} of ${rows.length} rows`
      : `Nothing matches: no row of ${rows.length} has all of it (whole words count)`;
    count.classList.toggle("bad", shown === 0);
  };
  input.addEventListener("input", apply);
  for (const chip of tools.querySelectorAll(".chip")) {
    chip.addEventListener("click", () => {
      chip.setAttribute("aria-pressed", chip.getAttribute("aria-pressed") !== "true");
      apply();
    });
  }
  apply();
}

for (const tools of document.querySelectorAll(".tools")) {
  const table = document.getElementById(tools.dataset.table);
  for (const box of tools.querySelectorAll("input[data-column]")) {
    const apply = () => {
      for (const row of [table.tHead.rows[0], ...lines(table)]) {
        row.cells[Number(box.dataset.column)].hidden = !box.checked;
      }
    };
    box.addEventListener("change", apply);
    apply();
  }
}

function toggle(row, button) {
  const open = button.getAttribute("aria-expanded") !== "true";
  button.setAttribute("aria-expanded", open);
  if (!open) {
    row.nextElementSibling.remove();
    return;
  }
  const line = document.createElement("tr");
  line.className = "opened";
  const cell = line.insertCell();
  cell.colSpan = row.cells.length;
  const told = document.getElementById(row.dataset.opens);
  for (const part of [...told.children].slice(1)) cell.append(part.cloneNode(true));
  const items = document.querySelector("nav a.page");
  if (items) {
    const link = document.createElement("a");
    const name = row.cells[0].textContent.trim();
    link.href = `${items.getAttribute("href")}#${new URLSearchParams({ a: name })}`;
    link.textContent = `Items of ${name} beside another variant's`;
    cell.append(link);
  }
  for (const named of cell.querySelectorAll("[id]")) named.removeAttribute("id");
  row.after(line);
}

for (const row of document.querySelectorAll("tr[data-opens]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "open";
  button.setAttribute("aria-expanded", "false");
  button.setAttribute("aria-label", `more of ${row.cells[0].textContent.trim()}`);
  row.cells[0].prepend(button);
  button.addEventListener("click", () => toggle(row, button));
}

for (const button of document.querySelectorAll(".copy")) button.hidden = false;
document.addEventListener("click", async (event) => {
  const button = event.target.closest?.(".copy");
  if (!button) return;
  const text = button.parentElement.querySelector("code");
  try {
    await navigator.clipboard.writeText(text.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(text);
    button.textContent = "Selected";
  }
});

const parts = () => [...document.querySelectorAll("svg .v")];
const tip = document.createElement("div");
tip.id = "tip";
tip.hidden = true;
document.body.append(tip);
for (const part of parts()) {
  const title = part.querySelector("title");
  part.dataset.say = title.textContent;
  title.remove(); // the page shows it itself, at once
}

function light(variant) {
  root.classList.toggle("lit", variant !== null);
  for (const part of parts()) part.classList.toggle("on", part.dataset.v === variant);
}

function tell(event) {
  const part = event.target.closest?.(".v");
  light(part ? part.dataset.v : null);
  tip.hidden = !part;
  if (!part) return;
  tip.textContent = part.dataset.say;
  const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
  tip.style.left = `${Math.max(4, Math.min(event.pageX + 12, room))}px`;
  tip.style.top = `${event.pageY + 16}px`;
}

for (const picture of document.querySelectorAll(".picture")) {
  for (const kind of ["pointerover", "pointermove", "click"]) picture.addEventListener(kind, tell);
  picture.addEventListener("pointerleave", tell);
}

/** Fades what the legend has switched off, in figures drawn just now too. */
function switchOff() {
  const off = [...document.querySelectorAll('.legend [aria-pressed="false"]')];
  const names = new Set(off.map((button) => button.textContent));
  for (const part of parts()) part.classList.toggle("off", names.has(part.dataset.v));
}
document.addEventListener("drawn", switchOff);

function legend() {
  const names = [...new Set(parts().map((part) => part.dataset.v))];
  const first = document.querySelector("figure");
  if (!first || names.length < 2) return;
  const bar = document.createElement("div");
  bar.className = "legend";
  bar.setAttribute("role", "group");
  bar.setAttribute("aria-label", "variants shown in all figures");
  bar.append("Shown in all figures:");
  for (const name of names) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "chip";
    button.textContent = name;
    button.setAttribute("aria-pressed", "true");
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", on);
      switchOff();
    });
    for (const kind of ["pointerenter", "focus"]) button.addEventListener(kind, () => light(name));
    for (const kind of ["pointerleave", "blur"]) button.addEventListener(kind, () => light(null));
    bar.append(button);
  }
  if (names.length <= 12) {
    first.before(bar);
    return;
  }
  const fold = document.createElement("details");
  const title = document.createElement("summary");
  title.textContent = `Choose which of ${names.length} variants figures show`;
  fold.append(title, bar);
  first.before(fold);
}
legend();

const KEPT = "harness-view";
const sorted = (table) => table.tHead.rows[0].querySelector("[aria-sort]");
const opener = (row) => row.querySelector("button.open");
const folds = () => [...document.querySelectorAll("details > summary")];

/** What a reader has typed, pressed, sorted, opened and chosen, so that a reload keeps it. */
function view() {
  const all = (selector) => [...document.querySelectorAll(selector)];
  return {
    typed: all("input[data-table]").map((input) => [input.dataset.table, input.value]),
    pressed: all('.tools .chip[aria-pressed="true"]').map((chip) => [
      chip.closest(".tools").dataset.table, chip.dataset.tag,
    ]),
    sorted: all("table").filter((table) => table.id && sorted(table)).map((table) => [
      table.id, sorted(table).textContent, sorted(table).getAttribute("aria-sort"),
    ]),
    opened: all('tr[data-opens]').filter((row) => opener(row).getAttribute("aria-expanded") === "true")
      .map((row) => row.cells[0].textContent.trim()),
    unfolded: folds().filter((fold) => fold.parentElement.open).map((fold) => fold.textContent),
    axes: all("figure.choose select").map((select) => [select.name, select.selectedOptions[0].text]),
    off: all('.legend [aria-pressed="false"]').map((button) => button.textContent),
  };
}

function showAgain(kept) {
  for (const [table, value] of kept.typed) {
    const input = document.querySelector(`input[data-table="${CSS.escape(table)}"]`);
    if (!input || !value) continue;
    input.value = value;
    input.dispatchEvent(new Event("input"));
  }
  for (const [table, tag] of kept.pressed) {
    const tools = document.querySelector(`.tools[data-table="${CSS.escape(table)}"]`);
    tools?.querySelector(`.chip[data-tag="${CSS.escape(tag)}"]`)?.click();
  }
  for (const [id, title, order] of kept.sorted) {
    const heads = [...(document.getElementById(id)?.tHead.rows[0].cells ?? [])];
    const head = heads.find((cell) => cell.textContent === title);
    for (let click = 0; head && click < 2 && head.getAttribute("aria-sort") !== order; click += 1) {
      head.querySelector("button").click();
    }
  }
  for (const row of document.querySelectorAll("tr[data-opens]")) {
    if (kept.opened.includes(row.cells[0].textContent.trim())) opener(row).click();
  }
  for (const fold of folds()) {
    if (kept.unfolded.includes(fold.textContent)) fold.parentElement.open = true;
  }
  for (const [name, text] of kept.axes) {
    const select = document.querySelector(`figure.choose select[name="${name}"]`);
    const option = [...(select?.options ?? [])].find((one) => one.text === text);
    if (!option || option.selected) continue;
    select.value = option.value;
    select.dispatchEvent(new Event("change"));
  }
  for (const button of document.querySelectorAll(".legend button")) {
    if (kept.off.includes(button.textContent)) button.click();
  }
}

if (root.dataset.version) {
  try {
    const kept = sessionStorage.getItem(KEPT);
    sessionStorage.removeItem(KEPT);
    if (kept) showAgain(JSON.parse(kept));
  } catch { /* private windows */ }
  setInterval(async () => {
    try {
      const answer = await fetch("version", { cache: "no-store" });
      if ((await answer.text()) === root.dataset.version) return;
      try { sessionStorage.setItem(KEPT, JSON.stringify(view())); } catch { /* private windows */ }
      location.reload();
    } catch { /* the server has stopped: this page stays */ }
  }, 3000);
}

addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
