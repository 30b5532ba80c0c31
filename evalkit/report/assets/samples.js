// The samples of a run, one by one. All text comes from models and data: it is only ever set as text.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("samples-data").textContent);
  data.rows = data.rows.map((row) => Object.fromEntries(row.map((value, i) => [data.fields[i], value ?? undefined])));
  const browser = document.getElementById("browser");
  const form = document.getElementById("sample-filters");
  const detail = document.getElementById("sample");
  const status = document.getElementById("sample-count");
  const plain = (text) => String(text ?? "").replace(/[&<>]/g, " "); // what DataTables may read as markup
  const place = new Map(data.rows.map((row, i) => [row.id, i]));
  const far = data.rows.some((row) => row.d !== undefined);
  const near = data.rows.some((row) => row.iou !== undefined);
  let current = -1;

  function node(tag, attributes = {}, ...children) {
    const svg = ["svg", "image", "rect", "circle", "line", "polyline", "path", "g", "title", "text"].includes(tag);
    const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined) made.setAttribute(name, value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }

  // DataTables makes cells by innerHTML: they are left empty and filled as text when they are made
  const said = (value) => (Array.isArray(value) ? value.map(short).join(", ") : short(value));
  const short = (value) => (typeof value === "number" ? String(Math.round(value * 100) / 100) : String(value ?? ""));
  const spot = (value) => (Array.isArray(value) ? value : null);
  const text = (key, cut) => ({
    data: null,
    render: (_cell, type, row) => (type === "display" ? "" : plain(key(row))),
    createdCell: (cell, _value, row) => {
      const whole = String(key(row) ?? "");
      cell.textContent = cut && whole.length > cut ? `${whole.slice(0, cut)}…` : whole;
    },
  });
  const number = (key) => ({
    data: null,
    className: "number",
    render: (_cell, type, row) => (type === "display" ? "" : row[key] ?? (type === "filter" ? "" : -1)),
    createdCell: (cell, _value, row) => {
      cell.textContent = row[key] === undefined ? "" : row[key].toFixed(2);
    },
  });
  const verdict = (row) => data.verdicts[row.v];
  const columns = [
    { ...text((row) => row.id), title: "Sample" },
    { ...text((row) => row.class), title: "Class" },
    { ...text((row) => said(row.gold)), title: "Gold" },
    { ...text((row) => said(row.answer)), title: "Answer" },
    { ...text(verdict), title: "Verdict" },
  ];
  if (far) columns.push({ ...number("d"), title: "Distance" });
  if (near) columns.push({ ...number("iou"), title: "IoU" });
  columns.push({ ...text((row) => row.reply ?? "", 60), title: "Reply", className: "reply" });

  const table = new DataTable("#samples", {
    data: data.rows,
    columns,
    deferRender: true,
    autoWidth: false,
    pageLength: 15,
    order: [],
    layout: { topStart: null, topEnd: null, bottomStart: "info", bottomEnd: "paging" },
    language: { info: "_START_–_END_ of _TOTAL_", infoEmpty: "none", infoFiltered: "", zeroRecords: "No sample fits." },
    createdRow: (row, sample) => {
      row.classList.add(`is-${verdict(sample)}`);
      // the first cell holds the way in for the keyboard
      const button = node("button", { type: "button", class: "open" });
      button.textContent = sample.id;
      row.cells[0].replaceChildren(button);
    },
  });
  const inOrder = () => table.rows({ search: "applied", order: "applied" }).indexes().toArray();

  document.querySelector("#samples tbody").addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    const at = row ? table.row(row).index() : undefined;
    if (at !== undefined) show(at, true);
  });

  function filter() {
    const wish = filters.chosen(form);
    const code = wish.verdict ? data.verdicts.indexOf(wish.verdict) : -1;
    table.search.fixed("verdict", code < 0 ? null : (_text, row) => row.v === code);
    table.search.fixed("maps", wish.maps ? (_text, row) => row.id in data.maps : null);
    table.search(wish.q || "").draw();
    const found = inOrder();
    status.textContent = `${found.length.toLocaleString("en")} of ${data.rows.length.toLocaleString("en")} samples`;
    if (found.length && !found.includes(current)) show(found[0], false);
    else remember();
  }

  function remember() {
    const state = new URLSearchParams(filters.chosen(form));
    if (current >= 0) state.set("sample", data.rows[current].id);
    history.replaceState(null, "", `#${state}`);
  }

  function restore() {
    const state = new URLSearchParams(location.hash.slice(1));
    filters.fill(form, state);
    const wanted = place.get(state.get("sample"));
    if (wanted !== undefined) current = wanted;
    filter();
    if (wanted !== undefined) show(wanted, true);
  }

  function step(by) {
    const found = inOrder();
    const at = found.indexOf(current);
    const next = found[Math.min(Math.max(at + by, 0), found.length - 1)];
    if (next !== undefined) show(next, true);
  }

  // ---- one sample

  function show(at, follow) {
    current = at;
    const row = data.rows[at];
    if (follow) {
      const found = inOrder();
      const page = Math.floor(found.indexOf(at) / table.page.len());
      if (page >= 0 && page !== table.page()) table.page(page).draw("page");
    }
    for (const other of document.querySelectorAll("#samples tbody tr")) {
      other.classList.toggle("chosen", table.row(other).index() === at);
    }
    detail.replaceChildren(...[picture(row), facts(row), ...maps(row), elsewhere(row)].filter(Boolean));
    remember();
  }

  function facts(row) {
    const list = node("dl");
    const add = (name, value, kind) => {
      if (value === undefined || value === null || value === "") return;
      const shown = node("dd", { class: kind });
      shown.textContent = value;
      const label = node("dt");
      label.textContent = name;
      list.append(label, shown);
    };
    add("Sample", row.id);
    add("Verdict", verdict(row) + (row.why ? `: ${row.why}` : ""), `verdict is-${verdict(row)}`);
    add("Gold", said(row.gold) + (spot(row.gold) ? " px" : ""));
    add("Answer", said(row.answer) + (row.px && said(row.px) !== said(row.answer) ? `  =  ${said(row.px)} px` : ""));
    add("Distance", row.d === undefined ? "" : `${row.d.toFixed(2)} cells`);
    add("IoU", row.iou === undefined ? "" : row.iou.toFixed(3));
    add("Prompt", data.prompts[row.p], "said");
    add("Reply", row.reply ?? "no reply", "said");
    const took = [row.s === undefined ? "" : `${row.s} s`, row.tokens ? `${row.tokens[0] ?? "?"} tokens in, ${row.tokens[1]} out` : ""];
    add("Took", took.filter(Boolean).join(", "));
    add("Ended by", row.finish);
    return list;
  }

  function frame(row, label) {
    const [width, height] = row.size || [1, 1];
    return node("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, class: "frame" });
  }

  function picture(row) {
    const words = [`gold ${said(row.gold)}`, row.answer === undefined ? "no answer" : `answer ${said(row.answer)}`, verdict(row)];
    const drawn = row.img || spot(row.gold) || row.px || row.marks;
    const figure = node("figure", { class: "picture" });
    if (!row.size || !drawn) {
      figure.append(caption("This page has no picture of the sample: the data were not there when it was made."));
      return figure;
    }
    const svg = frame(row, `Sample ${row.id}: ${words.join(", ")}`);
    lay(svg, row);
    marks(svg, row);
    mark(svg, spot(row.gold), row.size, "gold", "gold");
    mark(svg, row.px, row.size, "answer", "answer");
    figure.append(svg, caption(legend(row)));
    return figure;
  }

  function lay(svg, row) {
    const [width, height] = row.size;
    svg.append(node("rect", { width, height, class: "paper-white" }));
    if (row.img) svg.append(node("image", { href: row.img, width, height, preserveAspectRatio: "none" }));
  }

  function legend(row) {
    const parts = [];
    if (spot(row.gold)) parts.push("gold: solid line");
    if (row.px) parts.push("answer: dashed line");
    const marks = row.marks || {};
    if (marks.crossings_xy) parts.push("rings: the crossings");
    if (marks.queried_xy) parts.push("rings: the nodes asked for");
    if (marks.path_xy) parts.push("dotted: the path between them");
    return parts.join(" · ");
  }

  function caption(words) {
    const made = node("figcaption");
    made.textContent = words;
    return made;
  }

  function mark(svg, at, size, kind, label) {
    if (!at) return;
    const unit = Math.max(...size) / 100;
    if (at.length === 4) {
      const [x0, y0, x1, y1] = at;
      svg.append(node("rect", { x: x0, y: y0, width: Math.max(x1 - x0, 0), height: Math.max(y1 - y0, 0), class: `mark-${kind}` }));
      svg.append(tag(x0, y0 - unit, label, kind, unit));
      return;
    }
    const [x, y] = at;
    if (kind === "gold") svg.append(node("circle", { cx: x, cy: y, r: 2.4 * unit, class: "mark-gold" }));
    else {
      svg.append(node("line", { x1: x - 2 * unit, y1: y - 2 * unit, x2: x + 2 * unit, y2: y + 2 * unit, class: "mark-answer" }));
      svg.append(node("line", { x1: x - 2 * unit, y1: y + 2 * unit, x2: x + 2 * unit, y2: y - 2 * unit, class: "mark-answer" }));
    }
    // the two labels keep to different sides, and inside the picture
    const right = (kind === "gold") === (x < 0.8 * size[0] && x > 0.2 * size[0]) ? x < 0.8 * size[0] : x < 0.2 * size[0];
    svg.append(tag(x + (right ? 3.5 : -3.5) * unit, y + (kind === "gold" ? -2 : 4) * unit, label, kind, unit, right ? "start" : "end"));
  }

  function tag(x, y, label, kind, unit, anchor) {
    if (!label) return node("g");
    const made = node("text", {
      x, y: Math.max(y, 4 * unit), "font-size": 3.6 * unit, "text-anchor": anchor, class: `label-${kind}`,
    });
    made.textContent = label;
    return made;
  }

  function marks(svg, row) {
    const unit = Math.max(...row.size) / 100;
    const found = row.marks || {};
    if (found.path_xy) svg.append(node("polyline", { points: found.path_xy.map((at) => at.join(",")).join(" "), class: "mark-path" }));
    for (const [x, y] of [...(found.crossings_xy || []), ...(found.queried_xy || [])]) {
      svg.append(node("circle", { cx: x, cy: y, r: 3 * unit, class: "mark-gold" }));
    }
  }

  // ---- what the models looked at

  function maps(row) {
    const found = data.maps[row.id];
    if (!found || !row.size) return [];
    const slider = node("input", { type: "range", min: "0", max: "100", value: "80", id: "opacity" });
    const label = node("label", { for: "opacity" });
    label.textContent = "Opacity of the maps ";
    label.append(slider);
    const grid = node("div", { class: "maps" });
    for (const kind of ["attention", "norm"]) {
      for (const one of found.filter((map) => map.kind === kind)) {
        const [x0, y0, x1, y1] = one.extent_xyxy;
        const what = kind === "attention" ? "attention of the last answer token" : "norm of the visual tokens";
        const svg = frame(row, `${one.stage}: ${what}, from ${one.low} to ${one.high}`);
        lay(svg, row);
        svg.append(node("image", {
          href: `data:image/png;base64,${one.png}`, x: x0, y: y0, width: x1 - x0, height: y1 - y0,
          preserveAspectRatio: "none", class: "map",
        }));
        marks(svg, row);
        mark(svg, spot(row.gold), row.size, "gold", "");
        const figure = node("figure");
        figure.append(svg, caption(`${one.stage}: ${kind}, ${one.low} to ${one.high}. Said: ${one.answer}`));
        grid.append(figure);
      }
    }
    const fade = () => grid.querySelectorAll(".map").forEach((map) => map.setAttribute("opacity", slider.value / 100));
    slider.addEventListener("input", fade);
    fade();
    const title = node("h3");
    title.textContent = "Where base, NTP and NTP + KLAL look";
    const about = node("p", { class: "elsewhere" });
    about.textContent = "Above, attention of the last answer token: one scale for all, by its square root. Below, norms of the visual tokens after the last layer: each its own range.";
    return [title, about, label, grid];
  }

  function elsewhere(row) {
    const others = JSON.parse(document.getElementById("others-data").textContent);
    if (!others.length) return null;
    const list = node("p", { class: "elsewhere" });
    list.append("The same sample in ");
    others.forEach((other, i) => {
      const link = node("a", { href: `${other.href}#${new URLSearchParams({ sample: row.id })}` });
      link.textContent = other.name;
      list.append(...(i ? [", ", link] : [link]));
    });
    return list;
  }

  browser.hidden = false;
  document.getElementById("no-browser").hidden = true;
  restore();
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("previous").addEventListener("click", () => step(-1));
  document.getElementById("next").addEventListener("click", () => step(1));
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, select, textarea")) return;
    if (event.key === "j" || event.key === "ArrowRight") step(1);
    else if (event.key === "k" || event.key === "ArrowLeft") step(-1);
    else return;
    event.preventDefault();
  });
  addEventListener("hashchange", restore);
  document.documentElement.dataset.ready = "yes";
})();
