// Trials that are brushed in a chart filter the table of trials.
"use strict";
(() => {
  // Writes numbers as ranges, such as "0-4,9".
  function ranges(numbers) {
    const parts = [];
    for (const number of [...new Set(numbers)].sort((a, b) => a - b)) {
      const last = parts[parts.length - 1];
      if (last && last[1] === number - 1) last[1] = number;
      else parts.push([number, number]);
    }
    return parts.map(([low, high]) => (low === high ? `${low}` : `${low}-${high}`)).join(",");
  }

  document.addEventListener("brushed", (event) => {
    const form = document.getElementById("trial-filter");
    const trials = event.detail.trials;
    const text = trials === null ? "" : ranges(trials) || "none";
    if (form.elements.trials.value === text) return;
    form.elements.trials.value = text;
    htmx.trigger(form, "brush");
  });
})();
