"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const one = (selector, root = document) => root.querySelector(selector);

// Sorting: first the better guess (numbers from large to small), then the other way; what is missing stays last.
function cellValue(row, column) {
  const cell = row.cells[column];
  if (!cell) return null;
  const text = cell.textContent.trim();
  if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
  if (text === "" || text === "–") return null;
  return Number.isNaN(Number(text)) ? text : Number(text);
}
function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a === "number" && typeof b === "number") return sign * (a - b);
  return sign * String(a).localeCompare(String(b), undefined, { numeric: true });
}
for (const table of all("table.sortable")) {
  const heads = all("thead th", table);
  heads.forEach((head, column) => one("button", head).addEventListener("click", () => {
    const rows = all("tbody tr", table);
    const numeric = rows.some(row => typeof cellValue(row, column) === "number");
    const before = head.getAttribute("aria-sort");
    const next = before ? (before === "ascending" ? "descending" : "ascending") : (numeric ? "descending" : "ascending");
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", next);
    const sign = next === "ascending" ? 1 : -1;
    const keyed = rows.map(row => [cellValue(row, column), row]);
    keyed.sort((a, b) => compare(a[0], b[0], sign));
    one("tbody", table).append(...keyed.map(pair => pair[1]));
  }));
}

// Which runs are shown: whatever belongs to several is hidden with the last of them.
const boxes = all("[data-toggle]");
function show() {
  const shown = new Set(boxes.filter(box => box.checked).map(box => box.dataset.toggle));
  for (const element of all("[data-g]")) {
    const visible = element.dataset.g.split(" ").some(group => shown.has(group));
    element.style.display = visible ? "" : "none";
  }
}
function check(rule) { boxes.forEach(box => { box.checked = rule(box); }); show(); }
boxes.forEach(box => box.addEventListener("change", show));
all("[data-show]").forEach(button => button.addEventListener("click", () => check(() => button.dataset.show === "all")));
one("#filter")?.addEventListener("input", event => {
  const wanted = event.target.value.toLowerCase();
  check(box => box.closest("label").textContent.toLowerCase().includes(wanted));
});
all("[data-minor]").forEach(box => box.addEventListener("change", () =>
  document.getElementById(box.dataset.minor).classList.toggle("show-minor", box.checked)));

// Config differences against the chosen run.
for (const block of all(".settings")) {
  const select = one("select", block);
  const mark = () => {
    const base = Number(select.value);
    for (const row of all("tr", block)) {
      const cells = all("[data-g]", row);
      cells.forEach((cell, i) => {
        cell.classList.toggle("base", i === base);
        cell.classList.toggle("other", cell.tagName === "TD" && cell.textContent !== cells[base].textContent);
      });
    }
  };
  select.addEventListener("change", mark);
  mark();
}

// Values under the pointer.
const readout = one("#readout");
const points = path => path.getAttribute("d").slice(1).split("L").map(pair => pair.split(" ").map(Number));
function toValue(code, place) {
  const [low, high, start, end, log] = code.split(",").map(Number);
  const share = (place - start) / (end - start);
  return log ? 10 ** (Math.log10(low) + share * Math.log10(high / low)) : low + share * (high - low);
}
function read(figure, event) {
  const svg = one("svg", figure), [x, y] = figure.dataset.scale.split(" ");
  const box = svg.getBoundingClientRect();
  const at = (event.clientX - box.left) * svg.viewBox.baseVal.width / box.width;
  const lines = all("g[data-label]", svg).filter(line => line.style.display !== "none").map(line => {
    const near = points(one(".mean", line)).reduce((a, b) => Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a);
    return { line, near, value: toValue(y, near[1]) };
  }).sort((a, b) => a.near[1] - b.near[1]);
  if (!lines.length) return;
  const place = lines.reduce((a, b) => Math.abs(b.near[0] - at) < Math.abs(a.near[0] - at) ? b : a).near[0];
  readout.replaceChildren(Object.assign(document.createElement("b"), { textContent: `step ${Math.round(toValue(x, place))}` }));
  for (const { line, value } of lines.slice(0, 12)) {
    const row = document.createElement("div"), name = document.createElement("span"), figure = document.createElement("span");
    name.textContent = line.dataset.label;
    name.style.color = getComputedStyle(line).getPropertyValue("--c");
    figure.textContent = value.toPrecision(4);
    row.append(name, figure);
    readout.append(row);
  }
  let cross = one(".cross", svg);
  if (!cross) {
    cross = document.createElementNS("http://www.w3.org/2000/svg", "path");
    cross.setAttribute("class", "cross");
    svg.append(cross);
  }
  const [, , bottom, top] = y.split(",");
  cross.setAttribute("d", `M${place} ${top}V${bottom}`);
  readout.hidden = false;
  readout.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - readout.offsetWidth - 8))}px`;
  readout.style.top = `${Math.max(4, Math.min(event.clientY + 14, innerHeight - readout.offsetHeight - 8))}px`;
}
for (const figure of all(".chart")) {
  figure.addEventListener("pointermove", event => read(figure, event));
  figure.addEventListener("pointerleave", () => { readout.hidden = true; one(".cross", figure)?.remove(); });
}

// Pictures in full, commands to the clipboard, links to folded runs, paper with everything unfolded.
const large = one("#large");
all(".picture").forEach(button => button.addEventListener("click", () => {
  const [from, to] = [one("img", button), one("img", large)];
  to.src = from.src;
  to.alt = from.alt;
  one("p", large).textContent = one("figcaption", button.closest("figure")).textContent;
  large.showModal();
}));
large.addEventListener("click", event => { if (event.target === large) large.close(); });
all("[data-copy]").forEach(button => {
  if (!navigator.clipboard) return;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(one("pre", button.parentElement).textContent);
    button.textContent = "Copied";
  });
});
function unfold() {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  const run = target.matches("details") ? target : one("details.run", target);
  if (run && !target.matches("section")) { run.open = true; target.scrollIntoView(); }
}
addEventListener("hashchange", unfold);
unfold();
let folded = [];
addEventListener("beforeprint", () => { folded = all("details:not([open])"); folded.forEach(part => { part.open = true; }); });
addEventListener("afterprint", () => folded.forEach(part => { part.open = false; }));

const theme = one("#theme");
theme.hidden = false;
theme.addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
if (innerWidth < 860 && boxes.length > 6) one("#legend").open = false;
