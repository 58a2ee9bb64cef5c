// Sets the theme before the page is painted. It is "light", "dark", or "system", which follows the system.
"use strict";
(() => {
  const KEY = "metaloom-theme";
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const asked = () => {
    try {
      return localStorage.getItem(KEY) || "system";
    } catch {
      return "system"; // the browser keeps nothing
    }
  };
  const apply = () => {
    const theme = asked();
    const shown = theme === "system" ? (dark.matches ? "dark" : "light") : theme;
    const before = document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = shown;
    document.documentElement.dataset.themeAsked = theme;
    if (before && before !== shown) document.dispatchEvent(new CustomEvent("theme", { detail: shown }));
    for (const name of document.querySelectorAll("[data-theme-name]")) name.textContent = theme;
  };
  const next = () => {
    const order = ["system", "light", "dark"];
    try {
      localStorage.setItem(KEY, order[(order.indexOf(asked()) + 1) % order.length]);
    } catch {
      return; // the system's theme stays
    }
    apply();
  };
  dark.addEventListener("change", apply);
  document.addEventListener("DOMContentLoaded", apply);
  apply();
  window.metaloomTheme = { next };
})();
