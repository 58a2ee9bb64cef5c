// Keeps a page up to date: asks for its version each second while it is visible, and fires "changed" on the body.
// Also the buttons and keys that all pages share.
"use strict";
(() => {
  const EVERY_MS = 1000;
  const PATIENCE_MS = 5000;
  let version = null; // before the first answer: what the page was made of, which may be old in a tab that was not looked at
  let answered = Date.now();
  let timer = null;

  const time = (ms) => new Date(ms).toLocaleTimeString();

  function showLost(text) {
    const banner = document.getElementById("lost");
    if (banner.textContent !== text) banner.textContent = text;
    banner.hidden = text === "";
  }

  async function look() {
    const url = document.body.dataset.version;
    if (!url || document.hidden) return;
    try {
      const answer = await fetch(url, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
      if (answer.status === 401) return showLost("This server was started again: open the address that it has printed.");
      if (answer.status === 404) return showLost("This search is no longer in the store: it was renamed or deleted.");
      if (!answer.ok) throw new Error(String(answer.status));
      const found = (await answer.json()).version;
      answered = Date.now();
      showLost("");
      version ??= document.body.dataset.shown;
      if (found !== version) htmx.trigger(document.body, "changed", { version: found });
      version = found;
    } catch {
      showLost(`No answer from the server since ${time(answered)}; this page shows what was known then. Is 'metaloom ui' still running?`);
    }
  }

  async function loop() {
    clearTimeout(timer);
    await look();
    timer = setTimeout(loop, EVERY_MS);
  }

  // What a refresh must not lose: open details, and how far a box is scrolled. Elements are known by their ids.
  const kept = new Map();
  document.addEventListener("htmx:beforeSwap", (event) => {
    const target = event.detail.target;
    const open = [...target.querySelectorAll("details[id]")].map((one) => [one.id, one.open]);
    const scrolled = [...target.querySelectorAll("[id]")]
      .filter((one) => one.scrollLeft || one.scrollTop)
      .map((one) => [one.id, one.scrollLeft, one.scrollTop]);
    kept.set(target.id, { open, scrolled });
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    const state = kept.get(event.detail.target.id);
    if (!state) return;
    for (const [id, open] of state.open) {
      const one = document.getElementById(id);
      if (one) one.open = open;
    }
    for (const [id, left, top] of state.scrolled) document.getElementById(id)?.scrollTo(left, top);
  });

  async function copy(button) {
    const source = button.dataset.copyFrom;
    const text = source ? document.getElementById(source).textContent : button.dataset.copy;
    const before = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not copied: select the text";
    }
    setTimeout(() => (button.textContent = before), 2000);
  }

  const actions = {
    theme: () => window.metaloomTheme.next(),
    help: () => document.getElementById("help").showModal(),
    close: (button) => button.closest("dialog").close(),
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.action in actions) actions[button.dataset.action](button);
    if (button.dataset.dialog) document.getElementById(button.dataset.dialog).showModal();
    if (button.dataset.copy || button.dataset.copyFrom) copy(button);
  });

  // A form is sent once; a field may have to hold a given text.
  document.addEventListener("submit", (event) => {
    const field = event.target.querySelector("[data-must-be]");
    if (field && field.value !== field.dataset.mustBe) {
      event.preventDefault();
      field.setCustomValidity(`Type ${field.dataset.mustBe}`);
      field.reportValidity();
      return;
    }
    if (event.target.method === "post" && !event.target.hasAttribute("hx-post")) {
      for (const button of event.target.querySelectorAll("button[type=submit]")) setTimeout(() => (button.disabled = true));
    }
  });
  document.addEventListener("input", (event) => event.target.setCustomValidity?.(""));

  let last = "";
  const keys = {
    "?": actions.help,
    t: actions.theme,
    "/": () => document.querySelector("[data-filter], input[type=search]")?.focus(),
    "[": () => document.querySelector("a[rel=prev]")?.click(),
    "]": () => document.querySelector("a[rel=next]")?.click(),
    gh: () => (location.href = "/"),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, dialog[open]")) return;
    const action = keys[last + event.key] || keys[event.key];
    last = event.key === "g" ? "g" : "";
    if (!action) return;
    event.preventDefault();
    action();
  });

  document.addEventListener("visibilitychange", () => document.hidden || loop());
  document.addEventListener("DOMContentLoaded", loop);
})();
