// Draws the charts: each <figure class="chart" data-chart="URL"> asks for its data when it comes into view.
"use strict";
(() => {
  const PLOTLY = document.currentScript.dataset.plotly;
  const CONFIG = { responsive: true, displaylogo: false, showTips: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
  // Room for usual labels and for the legend: where they fit, Plotly does not draw everything a second time.
  const MARGIN = { l: 64, r: 36, t: 16, b: 56 };
  let plotly = null;

  // Plotly sets style attributes of colour bars and heat maps, which the policy counts as inline styles.
  // Properties that a script of our own sets are none. Style attributes in markup stay refused.
  const setAttribute = Element.prototype.setAttribute;
  Element.prototype.setAttribute = function set(name, value) {
    if (name === "style") this.style.cssText = value;
    else setAttribute.call(this, name, value);
  };

  function loadPlotly() {
    plotly ||= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = PLOTLY;
      script.onload = () => resolve(window.Plotly);
      script.onerror = () => reject(new Error("the drawing program did not load"));
      document.head.append(script);
    });
    return plotly;
  }

  let colours = {};
  // Each reading of a style makes the browser lay out the page: a colour is read once for each theme.
  const style = (name) => (colours[name] ??= getComputedStyle(document.documentElement).getPropertyValue(name).trim());

  // Two lines of names, which most legends take.
  function legendRoom(data) {
    const named = data.filter((trace) => trace.showlegend !== false && trace.name);
    return named.length > 1 ? 64 : 0;
  }

  function themed(layout, data) {
    const [text, grid, line] = [style("--text"), style("--grid"), style("--line")];
    const axis = { gridcolor: grid, linecolor: line, zerolinecolor: line, tickcolor: line, automargin: true };
    const found = {
      margin: { ...MARGIN, t: MARGIN.t + legendRoom(data) },
      hovermode: "closest",
      legend: { orientation: "h", x: 0, y: 1, yref: "container", yanchor: "top" },
      ...layout,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: style("--font"), size: 12, ...layout.font, color: text },
      hoverlabel: { bgcolor: style("--panel"), bordercolor: line, font: { color: text } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: style("--dim"), activecolor: text },
    };
    for (const name of ["xaxis", "yaxis", ...Object.keys(layout)]) {
      if (/^[xy]axis\d*$/.test(name)) found[name] = { ...axis, ...layout[name] };
    }
    return found;
  }

  function part(figure, name) {
    return figure.querySelector(`:scope > .${name}`);
  }

  // A number of a table is right-aligned; a cell is text, whatever it holds.
  function fillTable(box, { heads, rows }) {
    const table = document.createElement("table");
    const top = table.createTHead().insertRow();
    for (const head of heads) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = head;
      top.append(cell);
    }
    const body = table.createTBody();
    for (const row of rows) {
      const line = body.insertRow();
      for (const value of row) {
        const cell = line.insertCell();
        cell.textContent = value ?? "";
        if (typeof value === "number") cell.className = "number";
      }
    }
    box.replaceChildren(table);
  }

  // A table of many rows is made when it is opened.
  function keepTable(details, table) {
    const fillOpen = () => details.open && fillTable(details.querySelector(".scroll"), table);
    details.ontoggle = fillOpen;
    fillOpen();
  }

  function fillChoices(figure, choices) {
    const box = part(figure, "choices");
    const selects = [...box.querySelectorAll("select")];
    if (selects.map((select) => select.name).join() !== choices.map((choice) => choice.name).join()) {
      box.replaceChildren(
        ...choices.map((choice) => {
          const label = document.createElement("label");
          label.append(`${choice.label} `);
          const select = document.createElement("select");
          select.name = choice.name;
          label.append(select);
          return label;
        }),
      );
    }
    choices.forEach((choice, place) => {
      const select = box.querySelectorAll("select")[place];
      if (select === document.activeElement && select.options.length === choice.options.length) return;
      select.replaceChildren(...choice.options.map(([value, text]) => new Option(text, value, false, value === choice.chosen)));
    });
  }

  function address(figure) {
    const url = new URL(figure.dataset.chart, location.href);
    for (const select of part(figure, "choices").querySelectorAll("select")) url.searchParams.set(select.name, select.value);
    return url;
  }

  async function fetched(figure) {
    const answer = await fetch(address(figure), { cache: "no-store" });
    const found = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
    if (!answer.ok) throw new Error(found.error || `the server answered ${answer.status}`);
    return found;
  }

  function tell(figure, name, text) {
    const box = part(figure, name);
    box.hidden = text === "";
    (box.querySelector("p") || box).textContent = text;
  }

  async function draw(figure) {
    if (figure.dataset.busy) {
      figure.dataset.again = "yes";
      return;
    }
    figure.dataset.busy = "yes";
    const plot = part(figure, "plot");
    try {
      const [chart, Plotly] = await Promise.all([fetched(figure), loadPlotly()]);
      plot.classList.remove("skeleton");
      tell(figure, "trouble", "");
      tell(figure, "note", chart.empty || chart.note || "");
      figure.querySelector("figcaption").textContent = chart.title;
      plot.hidden = Boolean(chart.empty);
      part(figure, "as-table").hidden = Boolean(chart.empty);
      if (!chart.empty) await fill(figure, plot, chart, Plotly);
      if (chart.again_s) setTimeout(() => draw(figure), 1000 * chart.again_s);
      figure.dataset.drawn = "yes";
    } catch (error) {
      plot.classList.remove("skeleton");
      plot.hidden = part(figure, "as-table").hidden = true;
      tell(figure, "trouble", `This chart could not be shown: ${error.message}.`);
    }
    delete figure.dataset.busy;
    if (figure.dataset.again) {
      delete figure.dataset.again;
      draw(figure);
    }
  }

  async function fill(figure, plot, chart, Plotly) {
    if (!figure.dataset.again) fillChoices(figure, chart.choices); // else it would undo what was chosen meanwhile
    keepTable(part(figure, "as-table"), chart.table);
    plot.setAttribute("aria-label", `${chart.title}. The same as a table is below.`);
    figure.chart = chart;
    plot.style.height = chart.layout.height ? `${chart.layout.height}px` : "";
    await Plotly.react(plot, chart.data, themed({ uirevision: "same", ...chart.layout }, chart.data), CONFIG);
    figure.dispatchEvent(new CustomEvent("drawn", { bubbles: true, detail: chart }));
  }

  // Charts in the window are drawn at once, those just below it when nothing else is to be done.
  const later = window.requestIdleCallback || ((work) => setTimeout(work, 50));
  const inWindow = ({ boundingClientRect: box }) => box.bottom > 0 && box.top < window.innerHeight;

  const seen = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        entry.target.dataset.visible = entry.isIntersecting ? "yes" : "";
        if (entry.isIntersecting && (!entry.target.dataset.drawn || entry.target.dataset.stale)) {
          delete entry.target.dataset.stale;
          if (inWindow(entry)) draw(entry.target);
          else later(() => draw(entry.target));
        }
      }
    },
    { rootMargin: "200px" },
  );

  const watch = (root) => root.querySelectorAll("figure.chart").forEach((figure) => seen.observe(figure));

  document.addEventListener("DOMContentLoaded", () => {
    watch(document);
    document.body.addEventListener("changed", () => {
      for (const figure of document.querySelectorAll("figure.chart[data-live]")) {
        if (figure.dataset.visible) draw(figure);
        else figure.dataset.stale = "yes";
      }
    });
  });
  document.addEventListener("htmx:load", (event) => watch(event.target));
  document.addEventListener("change", (event) => {
    const figure = event.target.closest(".choices")?.closest("figure.chart");
    if (figure) draw(figure);
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-action=retry]");
    if (button) draw(button.closest("figure.chart"));
  });
  document.addEventListener("theme", () => {
    colours = {};
    for (const figure of document.querySelectorAll("figure.chart")) {
      const [plot, chart] = [part(figure, "plot"), figure.chart];
      if (chart) window.Plotly?.react(plot, chart.data, themed(chart.layout, chart.data), CONFIG);
    }
  });
})();
