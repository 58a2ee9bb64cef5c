// The slider over the outer steps: says its step while it moves, and keeps the page's height while the parts change.
"use strict";
(() => {
  const slider = () => document.getElementById("step");

  document.addEventListener("input", (event) => {
    if (event.target !== slider()) return;
    const text = JSON.parse(event.target.dataset.texts)[Number(event.target.value)];
    document.getElementById("step-text").textContent = text;
    event.target.setAttribute("aria-valuetext", text);
  });

  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.detail.target?.id === "knowledge") event.detail.target.setAttribute("aria-busy", "true");
  });
  document.addEventListener("htmx:beforeSwap", (event) => {
    const target = event.detail.target;
    if (target.id !== "knowledge") return;
    event.detail.shouldSwap = true; // an error comes as a part of the page too, which says what is wrong
    target.setAttribute("aria-busy", "false");
    target.style.minHeight = `${target.offsetHeight}px`; // otherwise the page would jump to its top
    setTimeout(() => (target.style.minHeight = ""), 2000);
  });
  document.addEventListener("htmx:sendError", (event) => {
    const target = event.detail.target;
    if (target?.id !== "knowledge") return;
    target.setAttribute("aria-busy", "false");
    target.textContent = "The server did not answer: is 'metaloom ui' still running? Then move the slider, or load the page again.";
  });
})();
