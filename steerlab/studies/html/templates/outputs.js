// Outputs to be read: unpacks them, lists those of a cell, lays two methods side by side.
const reading = {data: null, setting: null, count: 0};

async function unpackOutputs() {
  const packed = document.getElementById("outputs-packed");
  if (!packed) return;
  const bytes = Uint8Array.from(atob(packed.textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  reading.data = JSON.parse(await new Response(stream).text());
  startReading();
}

const PAGEFUL = 20;
const FILTERS = [
  ["", "all outputs"], ["+joint", "joint"], ["-joint", "not joint"], ["+in_language", "in the language"],
  ["-in_language", "in another language"], ["+faithful", "faithful"], ["+loop", "loops"], ["+echo", "copies of the source"],
];
const by = (id) => document.getElementById(id);

function element(tag, text, kind) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function options(select, pairs, chosen) {
  select.replaceChildren(...pairs.map(([value, text]) => { const made = element("option", text); made.value = value; return made; }));
  if (chosen !== undefined) select.value = chosen;
  if (select.selectedIndex < 0) select.selectedIndex = 0;
}

const distinct = (values) => [...new Set(values)];
const labelOf = (name) => reading.data.methods.find((each) => each.name === name)?.label ?? name;
const langOf = (code) => reading.data.langs[code] ?? code;

function startReading() {
  const {methods, cells, flags} = reading.data;
  if (!cells.length) return;
  const named = methods.map((each) => [each.name, each.control ? `Control: ${each.label}` : each.label]);
  options(by("first"), named);
  options(by("second"), [["", "no other"], ...named]);
  options(by("only"), FILTERS.filter(([value]) => !value || flags.includes(value.slice(1))));
  by("reader").hidden = false;
  by("reader-missing").hidden = true;
  for (const id of ["first", "second", "lang", "from", "split", "sentence", "only"]) {
    by(id).addEventListener("change", () => { if (id !== "sentence" && id !== "only") settle(); list(); });
  }
  by("more").addEventListener("click", () => list(reading.count + PAGEFUL));
  by("csv").addEventListener("click", downloadOutputs);
  by("map").addEventListener("keydown", walk);
  settle();
  list();
}

const own = () => reading.data.cells.filter((cell) => cell.method === by("first").value);

// Make the choices fit each other: each offers what the method was run with.
function settle() {
  let cells = own();
  const splits = distinct(cells.map((cell) => cell.split));
  options(by("split"), splits.map((split) => [split, split]), splits.includes(by("split").value) ? by("split").value : splits.includes("test") ? "test" : splits[0]);
  cells = cells.filter((cell) => cell.split === by("split").value);
  options(by("from"), distinct(cells.map((cell) => cell.source)).map((lang) => [lang, langOf(lang)]), by("from").value);
  cells = cells.filter((cell) => cell.source === by("from").value);
  options(by("lang"), distinct(cells.map((cell) => cell.target)).map((lang) => [lang, langOf(lang)]), by("lang").value);
  cells = cells.filter((cell) => cell.target === by("lang").value);
  const there = cells.some((cell) => same(cell, reading.setting));
  if (!there) reading.setting = cells.reduce((best, cell) => (cell.joint > best.joint ? cell : best), cells[0]);
  drawMap(cells);
}

const same = (cell, setting) => setting && cell.layer === setting.layer && cell.strength === setting.strength;

function drawMap(cells) {
  const layers = distinct(cells.map((cell) => cell.layer)).sort((a, b) => a - b);
  const strengths = distinct(cells.map((cell) => cell.strength)).sort((a, b) => a - b);
  const most = Math.max(0.01, ...cells.map((cell) => cell.joint));
  by("map-note").textContent = `Joint of ${labelOf(by("first").value)} from ${langOf(by("from").value)} to ${langOf(by("lang").value)} on ${by("split").value} lines, n = ${Math.max(...cells.map((cell) => cell.n))} outputs in each; layers down, strengths across.`;
  const head = element("tr");
  head.append(element("th", "layer"), ...strengths.map((strength) => element("th", String(strength))));
  const rows = layers.map((layer) => {
    const row = element("tr");
    row.append(element("th", layer < 0 ? "–" : String(layer)));
    for (const strength of strengths) {
      const box = element("td");
      const cell = cells.find((each) => each.layer === layer && each.strength === strength);
      if (cell) box.append(cellButton(cell, most));
      row.append(box);
    }
    return row;
  });
  const top = element("thead"), body = element("tbody");
  top.append(head);
  body.append(...rows);
  by("map").replaceChildren(top, body);
}

function cellButton(cell, most) {
  const made = element("button", cell.joint.toFixed(2).replace(/^0/, ""), cell.joint / most > 0.55 ? "high" : "");
  made.type = "button";
  made.style.setProperty("--part", (cell.joint / most).toFixed(3));
  made.setAttribute("aria-label", `layer ${cell.layer}, strength ${cell.strength}: joint ${cell.joint.toFixed(2)} of ${cell.n} outputs`);
  made.setAttribute("aria-current", same(cell, reading.setting));
  made.tabIndex = same(cell, reading.setting) ? 0 : -1;
  made.addEventListener("click", () => {
    reading.setting = cell;
    settle();
    list();
    by("map").querySelector("[aria-current=true]").focus();
  });
  return made;
}

function walk(event) {
  const here = event.target.closest("td");
  if (!here) return;
  const row = here.parentElement;
  const next = {
    ArrowRight: here.nextElementSibling, ArrowLeft: here.previousElementSibling,
    ArrowDown: row.nextElementSibling?.children[here.cellIndex], ArrowUp: row.previousElementSibling?.children[here.cellIndex],
  };
  if (!(event.key in next)) return;
  event.preventDefault();
  next[event.key]?.querySelector("button")?.focus();
}

// The other method's cell: at the same setting if it has it, else at its best.
function cellOf(name) {
  const cells = reading.data.cells.filter((cell) => cell.method === name && cell.split === by("split").value && cell.source === by("from").value && cell.target === by("lang").value);
  return cells.find((cell) => same(cell, reading.setting)) ?? cells.reduce((best, cell) => (best && best.joint >= cell.joint ? best : cell), null);
}

const flag = (row, name) => Boolean(row[5] >> reading.data.flags.indexOf(name) & 1) && reading.data.flags.includes(name);

function passes(row) {
  const only = by("only").value;
  return !only || flag(row, only.slice(1)) === (only[0] === "+");
}

function list(count = PAGEFUL) {
  const {texts} = reading.data;
  const first = cellOf(by("first").value);
  const second = by("second").value ? cellOf(by("second").value) : null;
  const chosen = by("sentence").value;
  const rows = first.rows.filter(passes);
  options(by("sentence"), [["", "all"], ...first.rows.map((row) => [String(row[0]), texts[row[1]].slice(0, 60)])], chosen);
  const kept = rows.filter((row) => !by("sentence").value || String(row[0]) === by("sentence").value);
  reading.count = Math.min(count, kept.length);
  by("read").replaceChildren(...kept.slice(0, reading.count).map((row) => item(row, first, second)));
  by("more").hidden = reading.count >= kept.length;
  const where = first.layer < 0 ? "" : ` at layer ${first.layer}, strength ${first.strength}`;
  by("shown").textContent = `${labelOf(first.method)}${where}: ${reading.count} of ${kept.length} outputs; joint ${first.joint.toFixed(2)} and in the language ${first.in_language.toFixed(2)} over all ${first.n}.`;
}

function item(row, first, second) {
  const {texts} = reading.data;
  const made = element("li");
  const said = element("p", texts[row[1]], "source");
  said.lang = first.source;
  said.dir = "auto";
  made.append(said);
  if (texts[row[2]]) {
    const reference = element("p", texts[row[2]], "reference");
    reference.lang = first.target;
    reference.dir = "auto";
    made.append(reference);
  }
  const beside = element("div", undefined, "beside");
  beside.append(answer(row, first));
  if (second) {
    const other = second.rows.find((each) => each[0] === row[0]);
    if (other) beside.append(answer(other, second));
  }
  made.append(beside);
  return made;
}

function answer(row, cell) {
  const box = element("div", undefined, `answer-of ${flag(row, "joint") ? "good" : "bad"}`);
  const where = cell.layer < 0 ? "" : ` · layer ${cell.layer}, strength ${cell.strength}`;
  const said = element("p", reading.data.texts[row[3]] || "(nothing)", "output");
  said.lang = row[4];
  said.dir = "auto";
  const judged = [langOf(row[4]), ...reading.data.flags.filter((name) => name !== "in_language" && flag(row, name)).map((name) => name.replaceAll("_", " "))];
  if (row[6] !== null) judged.push(`rating ${row[6]}`);
  box.append(element("p", `${labelOf(cell.method)}${where}`, "who"), said, element("p", judged.join(" · "), "judged"));
  return box;
}

function save(name, text, kind) {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([text], {type: kind}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// A leading =, +, - or @ would be a formula to a spreadsheet.
function field(value) {
  const text = String(value ?? "");
  const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
const csvOf = (rows) => "\ufeff" + rows.map((row) => row.map(field).join(",")).join("\r\n") + "\r\n";

function downloadOutputs() {
  const {flags, texts} = reading.data;
  const head = ["method", "split", "layer", "strength", "source", "target", "sentence", "prompt", "reference", "output", "language", ...flags, "rating"];
  const cells = [by("first").value, by("second").value].filter(Boolean).map(cellOf).filter(Boolean);
  const rows = cells.flatMap((cell) => cell.rows.filter(passes).map((row) => [
    cell.method, cell.split, cell.layer, cell.strength, cell.source, cell.target, row[0], texts[row[1]], texts[row[2]], texts[row[3]], row[4],
    ...flags.map((name) => Number(flag(row, name))), row[6],
  ]));
  save("outputs.csv", csvOf([head, ...rows]), "text/csv");
}

// Go to a cell of a figure: what it fixes, and the values of its two axes.
function goTo(place) {
  if (!reading.data) return;
  const wanted = reading.data.cells.filter((cell) => Object.entries(place).every(([key, value]) => !(key in cell) || cell[key] === value));
  if (!wanted.length) return;
  const cell = wanted[0];
  by("first").value = cell.method;
  reading.setting = cell;
  settle();
  by("split").value = cell.split;
  settle();
  by("from").value = cell.source;
  by("lang").value = cell.target;
  reading.setting = cell;
  settle();
  by("sentence").value = "";
  list();
  by("reader").scrollIntoView();
}

unpackOutputs();
