// Tables that can be sorted and saved, figures that can be saved and clicked.
const numberIn = (cell) => {
  const found = cell.textContent.replaceAll(/[\u2212\u2013](?=\d)/g, "-").replaceAll(",", "").match(/-?\d*\.?\d+/);
  return found ? Number(found[0]) : NaN;
};

// The cell of a row that stands under a column: a heading, and a cell, may span several.
function under(row, column) {
  let at = 0;
  for (const cell of row.cells) {
    if (at >= column) return at === column ? cell : null;
    at += cell.colSpan;
  }
  return null;
}

function sortBy(table, heading, column) {
  const down = heading.getAttribute("aria-sort") !== "descending";
  for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  for (const body of table.tBodies) {
    const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
    const keyed = rows.map((row) => {
      const cell = under(row, column);
      const number = cell && column ? numberIn(cell) : NaN;
      return {row, number, text: cell?.textContent.trim() ?? ""};
    });
    keyed.sort((a, b) => {
      if (Number.isNaN(a.number) && Number.isNaN(b.number)) return down ? a.text.localeCompare(b.text) : b.text.localeCompare(a.text);
      if (Number.isNaN(a.number) || Number.isNaN(b.number)) return Number.isNaN(a.number) ? 1 : -1; // without a number: last
      return down ? b.number - a.number : a.number - b.number;
    });
    body.append(...keyed.map((each) => each.row)); // rows of a group's name stay first
  }
}

function tool(text, action) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = "tool";
  made.textContent = text;
  made.addEventListener("click", action);
  return made;
}

for (const table of document.querySelectorAll("section .scroll > table")) {
  const head = table.tHead?.rows[0];
  if (!head || !table.tBodies.length || table.id === "map") continue;
  let column = 0;
  for (const heading of head.cells) {
    const at = column;
    column += heading.colSpan;
    if (!heading.textContent.trim()) continue;
    const sort = tool("", () => sortBy(table, heading, at));
    sort.className = "sort";
    sort.title = "Sort by this column";
    sort.append(...heading.childNodes);
    heading.append(sort);
  }
  table.parentElement.after(tool("Table as CSV", () => {
    const rows = [...table.rows].map((row) => [...row.cells].map((cell) => {
      const parts = [cell.firstChild?.textContent, cell.querySelector("small")?.textContent].map((part) => part?.trim());
      return parts[1] && parts[0] !== parts[1] ? parts.join(" ") : cell.textContent.trim();
    }));
    const caption = table.closest("section").querySelector("h2").textContent;
    save(`${caption.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-")}.csv`, csvOf(rows), "text/csv");
  }));
}

// Draw every figure from the JSON that follows its box; on a dark page styles turn its colours.
for (const box of document.querySelectorAll(".plot")) {
  const figure = JSON.parse(box.nextElementSibling.textContent);
  Plotly.newPlot(box, figure.data, figure.layout, {responsive: true, displaylogo: false, displayModeBar: false});
  const name = box.parentElement.id || "figure";
  box.nextElementSibling.after(tool("Figure as SVG", () => Plotly.downloadImage(box, {format: "svg", filename: name})));
  const cells = figure.layout.meta?.cells;
  if (!cells) continue;
  box.classList.add("clickable");
  box.on("plotly_click", ({points: [point]}) => {
    const [down, across] = Array.isArray(point.pointIndex) ? point.pointIndex : point.pointNumber;
    goTo({...cells.fixed, [cells.x]: cells.across[across], [cells.y]: cells.down[down]});
  });
}

// Samples by method and language.
const samples = document.getElementById("drawn");
if (samples) {
  const filter = () => {
    const [method, lang] = ["drawn-method", "drawn-lang"].map((id) => document.getElementById(id).value);
    for (const block of samples.querySelectorAll("details")) {
      block.hidden = Boolean(method) && block.dataset.method !== method;
      if (method && !block.hidden) block.open = true;
      for (const each of block.querySelectorAll("li")) each.hidden = Boolean(lang) && each.dataset.target !== lang;
    }
  };
  for (const id of ["drawn-method", "drawn-lang"]) document.getElementById(id).addEventListener("change", filter);
}
