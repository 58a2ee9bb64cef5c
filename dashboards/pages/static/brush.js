// Chooses trials by ranges on parallel axes: drawn with the pointer, or typed below the chart.
// It tells the page by the event "brushed" of the document: the numbers of the trials, or null for all.
"use strict";
(() => {
  const DIM = "rgba(127,127,127,0.18)";
  const FILL = "rgba(127,127,127,0.35)";

  const axesOf = (figure) => figure.chart?.layout.meta?.axes;
  const plotOf = (figure) => figure.querySelector(":scope > .plot");
  const brushesOf = (figure) => (figure.brushes ||= new Map()); // by the name of an axis: [low, high] in its own units

  // The height in [0, 1] of a value on an axis, and back.
  function height(axis, value) {
    const scale = axis.kind === "log" ? Math.log : Number;
    const [low, high] = axis.ends.map(scale);
    return high > low ? (scale(value) - low) / (high - low) : 0.5;
  }

  function value(axis, at) {
    const [low, high] = axis.ends;
    return axis.kind === "log" ? low * (high / low) ** at : low + (high - low) * at;
  }

  function heights(axis, [low, high]) {
    const ends = [low, high].map((one) => height(axis, one));
    return [Math.max(ends[0] - 1e-6, -0.02), Math.min(ends[1] + 1e-6, 1.02)];
  }

  // The numbers of the trials within all ranges; null without a range.
  function chosen(figure) {
    const axes = axesOf(figure).filter((axis) => brushesOf(figure).has(axis.name));
    if (!axes.length) return null;
    const ranges = axes.map((axis) => heights(axis, brushesOf(figure).get(axis.name)));
    return figure.chart.layout.meta.trials.filter((_, place) =>
      axes.every((axis, number) => {
        const at = axis.heights[place];
        return at !== null && at >= ranges[number][0] && at <= ranges[number][1];
      }),
    );
  }

  // A trace is many lines with gaps between them: returns those of chosen trials, and those of the others.
  function split(trace, numbers) {
    const parts = [true, false].map(() => ({ x: [], y: [], customdata: [] }));
    trace.customdata.forEach((number, place) => {
      const inside = numbers.has(number ?? trace.customdata[place - 1]);
      const part = parts[inside ? 0 : 1];
      for (const name of ["x", "y", "customdata"]) part[name].push(trace[name][place]);
    });
    return parts;
  }

  function traces(figure, numbers) {
    if (numbers === null) return figure.chart.data;
    const kept = new Set(numbers);
    const pairs = figure.chart.data.map((trace) => [trace, ...split(trace, kept)]);
    const others = { type: "scatter", mode: "lines", name: "others", hoverinfo: "skip", line: { color: DIM, width: 1 } };
    for (const name of ["x", "y", "customdata"]) others[name] = pairs.flatMap(([, , outside]) => outside[name]);
    return [others, ...pairs.map(([trace, inside]) => ({ ...trace, ...inside }))];
  }

  function boxes(figure) {
    return axesOf(figure).flatMap((axis, at) => {
      const range = brushesOf(figure).get(axis.name);
      if (!range) return [];
      const [y0, y1] = heights(axis, range);
      return [{ type: "rect", xref: "x", yref: "y", x0: at - 0.06, x1: at + 0.06, y0, y1, fillcolor: FILL, line: { width: 1 } }];
    });
  }

  async function show(figure) {
    const plot = plotOf(figure);
    const numbers = chosen(figure);
    const layout = { ...plot.layout, selections: [], shapes: [...figure.chart.layout.shapes, ...boxes(figure)] };
    await window.Plotly.react(plot, traces(figure, numbers), layout, plot._context);
    fillControls(figure, numbers);
    const told = JSON.stringify(numbers);
    if ((figure.dataset.brushed ?? "null") === told) return; // nothing to tell: an address may name trials itself
    figure.dataset.brushed = told;
    document.dispatchEvent(new CustomEvent("brushed", { detail: { trials: numbers } }));
  }

  function set(figure, axis, range) {
    if (range === null) brushesOf(figure).delete(axis.name);
    else brushesOf(figure).set(axis.name, range);
    show(figure);
  }

  // A box that the pointer has drawn becomes a range of each axis in it, or of the nearest one.
  function select(figure, found) {
    if (!found?.range) return;
    const axes = axesOf(figure);
    const [left, right] = [Math.min(...found.range.x), Math.max(...found.range.x)];
    const ends = [Math.min(...found.range.y), Math.max(...found.range.y)].map((at) => Math.min(1, Math.max(0, at)));
    let inside = axes.filter((_, at) => at >= left && at <= right);
    if (!inside.length) inside = [axes[Math.min(axes.length - 1, Math.max(0, Math.round((left + right) / 2)))]];
    for (const axis of inside) brushesOf(figure).set(axis.name, ends.map((at) => value(axis, at)));
    show(figure);
  }

  // Number fields for every axis: an empty one is its end. Options have a list with "all" on top.
  function control(figure, axis) {
    const group = document.createElement("fieldset");
    const name = document.createElement("legend");
    name.textContent = axis.name;
    group.append(name);
    if (axis.options.length) {
      const select = document.createElement("select");
      select.add(new Option("all", ""));
      axis.options.forEach((option, place) => select.add(new Option(option, String(place))));
      select.setAttribute("aria-label", axis.name);
      select.addEventListener("change", () => {
        set(figure, axis, select.value === "" ? null : [Number(select.value), Number(select.value)]);
      });
      group.append(select);
      return group;
    }
    const fields = ["from", "to"].map((word) => {
      const field = document.createElement("input");
      field.type = "number";
      field.step = "any";
      field.setAttribute("aria-label", `${axis.name}, ${word}`);
      field.placeholder = word;
      return field;
    });
    const read = () => {
      const typed = fields.map((field, end) => (field.value === "" ? axisOf(figure, axis).ends[end] : Number(field.value)));
      set(figure, axis, fields.every((field) => field.value === "") ? null : typed);
    };
    for (const field of fields) field.addEventListener("change", read);
    group.append(...fields);
    return group;
  }

  const axisOf = (figure, axis) => axesOf(figure).find((one) => one.name === axis.name) || axis;

  function makeControls(figure) {
    const box = document.createElement("details");
    box.className = "ranges";
    const summary = document.createElement("summary");
    summary.textContent = "Choose trials by ranges";
    const clear = document.createElement("button");
    clear.type = "button";
    clear.textContent = "Show all trials";
    clear.addEventListener("click", () => {
      brushesOf(figure).clear();
      show(figure);
    });
    const count = document.createElement("p");
    count.setAttribute("role", "status");
    count.className = "count";
    const fields = document.createElement("div");
    fields.className = "fields";
    fields.append(...axesOf(figure).map((axis) => control(figure, axis)));
    box.append(summary, fields, clear);
    plotOf(figure).after(count, box);
    return box;
  }

  // The fields are made again when an axis or an option is new.
  function fillControls(figure, numbers) {
    const shape = JSON.stringify(axesOf(figure).map((axis) => [axis.name, axis.options]));
    let box = figure.querySelector(":scope > .ranges");
    if (box && box.dataset.shape !== shape) {
      figure.querySelector(":scope > .count").remove();
      const open = box.open;
      box.remove();
      box = makeControls(figure);
      box.open = open;
    }
    box ||= makeControls(figure);
    box.dataset.shape = shape;
    const all = figure.chart.layout.meta.trials.length;
    figure.querySelector(":scope > .count").textContent = numbers === null ? `${all} trials` : `${numbers.length} of ${all} trials`;
    axesOf(figure).forEach((axis, place) => {
      const range = brushesOf(figure).get(axis.name);
      const fields = box.querySelectorAll("fieldset")[place].querySelectorAll("input, select");
      fields.forEach((field, end) => {
        if (field === document.activeElement) return;
        if (!range) field.value = "";
        else if (axis.options.length) field.value = range[0] === range[1] ? String(range[0]) : "";
        else field.value = String(Number(range[end].toPrecision(4)));
      });
    });
  }

  document.addEventListener("drawn", (event) => {
    const figure = event.target;
    if (!axesOf(figure)) return;
    const plot = plotOf(figure);
    if (!plot.dataset.brushing) {
      plot.dataset.brushing = "yes";
      plot.on("plotly_selected", (found) => select(figure, found));
    }
    show(figure);
  });
  document.addEventListener("theme", () => {
    for (const figure of document.querySelectorAll("figure.chart")) if (axesOf(figure)) show(figure);
  });
})();
