"use strict";

const root = document.documentElement;
const themes = ["auto", "light", "dark"];

function recall() {
  try { return localStorage.getItem("harness-theme"); } catch { return null; }
}

function setTheme(theme) {
  if (theme === "auto") root.removeAttribute("data-theme");
  else root.setAttribute("data-theme", theme);
  document.getElementById("theme").textContent = `Theme: ${theme}`;
  try { localStorage.setItem("harness-theme", theme); } catch { /* private windows */ }
}

let theme = themes.includes(recall()) ? recall() : "auto";
setTheme(theme);
document.getElementById("theme").addEventListener("click", () => {
  theme = themes[(themes.indexOf(theme) + 1) % themes.length];
  setTheme(theme);
});
