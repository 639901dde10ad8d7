// The explorer: reads the controls, asks the server, shows tokens as they come.
"use strict";
const page = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const PAUSE = 30; // milliseconds without another change before the model is asked
const NUMBERS = ["new_tokens", "temperature", "seed"];
const CHOICES = ["source", "target", "estimator", "operator", "prompt"];
const names = new Map(page.langs.map((lang) => [lang.code, lang.name]));
let setting = null; // what is shown, as the server takes it
let colours = new Map(); // of languages, in the order in which they were met
let running = null; // what can break off the present request
let timer = 0;

function make(tag, text = "", attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// ------------------------------------------------------------------------------------- the controls

function fill(select, options, chosen) {
  select.replaceChildren(...options.map(([value, text]) => make("option", text, {value})));
  select.value = chosen;
  if (select.selectedIndex < 0) select.selectedIndex = 0;
}

function nice(number) {
  return String(Math.round(number * 1000) / 1000);
}

// Put a setting into the controls; what a control does not offer stays out.
function show(wanted) {
  setting = {...wanted};
  at("text").value = setting.text;
  const langs = page.langs.map((lang) => [lang.code, `${lang.name} (${lang.code})`]);
  fill(at("source"), langs, setting.source);
  fill(at("target"), langs, setting.target);
  fill(at("estimator"), Object.keys(page.estimators).map((name) => [name, name]), setting.estimator);
  const forms = page.prompts.includes(setting.prompt) ? page.prompts : [setting.prompt, ...page.prompts];
  fill(at("prompt"), forms.map((form) => [form, form]), setting.prompt);
  for (const id of NUMBERS) at(id).value = setting[id];
  showOperators();
  showLayers();
  showStrength();
}

function showOperators() {
  fill(at("operator"), page.estimators[at("estimator").value].map((name) => [name, name]), setting.operator);
  setting.operator = at("operator").value;
}

function showStrength() {
  const operator = page.operators[setting.operator];
  const most = Math.max(...operator.grid) * 2;
  const slider = at("strength");
  slider.min = Math.min(0, setting.strength);
  slider.max = Math.max(most, setting.strength);
  slider.step = most / 80;
  slider.value = setting.strength;
  if (document.activeElement !== at("exact")) at("exact").value = nice(setting.strength);
  at("unit").textContent = `${operator.knob}, in ${operator.unit}`;
}

function showLayers() {
  const slider = at("layer");
  const whole = page.operators[setting.operator].whole;
  slider.min = 0;
  slider.max = page.layers.length - 1;
  slider.value = page.layers.indexOf(setting.layers[0]);
  slider.disabled = whole;
  const shown = whole ? "all" : setting.layers.length > 3 ? `${setting.layers.length} of them` : setting.layers.join(", ");
  at("layer-shown").textContent = shown;
  slider.setAttribute("aria-valuetext", `layer ${shown}`);
  for (const box of at("layers").querySelectorAll("input")) {
    box.checked = setting.layers.includes(Number(box.value));
    box.disabled = whole;
  }
}

for (const layer of page.layers) {
  const label = make("label");
  label.append(make("input", "", {type: "checkbox", value: layer}), ` ${layer}`);
  at("layers").append(label);
}

// Something was changed: read all controls, mark the map, ask the model in a moment.
function changed() {
  for (const id of CHOICES) setting[id] = at(id).value;
  for (const id of NUMBERS) setting[id] = at(id).valueAsNumber;
  setting.text = at("text").value;
  showMap();
  document.body.dataset.state = "waiting";
  clearTimeout(timer);
  timer = setTimeout(run, PAUSE);
}

at("strength").addEventListener("input", () => {
  setting.strength = Number(nice(at("strength").valueAsNumber));
  at("exact").value = setting.strength;
  changed();
});
at("exact").addEventListener("input", () => {
  if (Number.isNaN(at("exact").valueAsNumber)) return; // half written
  setting.strength = at("exact").valueAsNumber;
  showStrength();
  changed();
});
at("layer").addEventListener("input", () => {
  setting.layers = [page.layers[at("layer").valueAsNumber]];
  showLayers();
  changed();
});
at("layers").addEventListener("change", () => {
  const chosen = [...at("layers").querySelectorAll("input:checked")].map((box) => Number(box.value));
  if (chosen.length) setting.layers = chosen;
  showLayers();
  changed();
});
at("estimator").addEventListener("change", () => { showOperators(); showLayers(); showStrength(); changed(); });
at("operator").addEventListener("change", () => {
  setting.operator = at("operator").value;
  const {grid} = page.operators[setting.operator];
  setting.strength = grid.includes(1) ? 1 : grid[0]; // another knob, another unit
  showLayers();
  showStrength();
  changed();
});
for (const id of ["source", "target", "prompt", ...NUMBERS]) at(id).addEventListener("input", changed);
at("text").addEventListener("input", changed);
at("swap").addEventListener("click", () => {
  [at("source").value, at("target").value] = [at("target").value, at("source").value];
  changed();
});
for (const form of document.forms) form.addEventListener("submit", (event) => { event.preventDefault(); changed(); });
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); changed(); }
});

// ------------------------------------------------------------------------------------- the model

function say(id, message) {
  at(id).textContent = message;
  at(id).hidden = !message;
}

async function run() {
  if (running) running.abort();
  const mine = running = new AbortController();
  const asked = performance.now();
  for (const side of ["steered", "unsteered"]) at(side).querySelector(".tokens").classList.add("stale");
  remember();
  const begun = new Set();
  try {
    const answer = await fetch("run", {
      method: "POST", signal: mine.signal, body: JSON.stringify(setting), headers: {"content-type": "application/json"},
    });
    if (!answer.ok) throw new Error((await answer.json()).error);
    say("error", "");
    for await (const event of lines(answer.body)) {
      if (mine.signal.aborted) return;
      take(event, begun, asked);
    }
    if (document.body.dataset.state === "running") document.body.dataset.state = "done";
  } catch (error) {
    if (mine.signal.aborted) return; // another request took its place
    const lost = error instanceof TypeError;
    fail(lost ? "The explorer does not answer. Is it still running? Begin it again, then reload this page." : error.message);
  } finally {
    if (running === mine) { running = null; say("told", ""); }
  }
}

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}

function take(event, begun, asked) {
  if (event.kind === "begun") document.body.dataset.state = "running";
  else if (event.kind === "told") say("told", `${event.message} …`);
  else if (event.kind === "failed") fail(event.message);
  else if (event.kind === "said") said(event, begun, asked);
  else if (event.kind === "done") done(event, begun, asked);
  else if (event.kind === "end") {
    at("python").textContent = event.python || "";
    at("command").textContent = event.command || "";
  }
}

function fail(message) {
  const said = message.replace(/^text: /, ""); // the page has one box for text
  say("error", `${said.charAt(0).toUpperCase()}${said.slice(1)}.`);
  document.body.dataset.state = "failed";
}

// The first token of an output clears the one before.
function begin(side, begun, asked) {
  const box = at(side).querySelector(".tokens");
  if (begun.has(side)) return box;
  if (!begun.size) {
    colours = new Map([[setting.source, 0], [setting.target, 1]]);
    at("legend").replaceChildren();
  }
  begun.add(side);
  say("told", "");
  box.replaceChildren();
  box.classList.remove("stale");
  box.dataset.first = (performance.now() - asked).toFixed(1);
  return box;
}

function said(event, begun, asked) {
  const box = begin(event.side, begun, asked);
  const span = make("span", event.text);
  if (event.lang) {
    if (!colours.has(event.lang)) colours.set(event.lang, Math.min(colours.size, 7));
    span.className = `c${colours.get(event.lang)}`;
    legend(event.lang);
  }
  span.about = event;
  box.append(span);
}

function legend(lang) {
  if (at("legend").querySelector(`[data-lang="${lang}"]`)) return;
  at("legend").append(make("span", names.get(lang) || lang, {class: `c${colours.get(lang)}`, "data-lang": lang}));
}

function done(event, begun, asked) {
  begin(event.side, begun, asked);
  const facts = at(event.side).querySelector(".facts");
  const number = (value, digits) => (value === null ? "–" : value.toFixed(digits));
  const lang = make("dd", "", {class: "language", "data-lang": event.lang});
  const sure = event.probability ? ` (${event.probability.toFixed(2)})` : "";
  lang.append(`${event.name}${sure} `);
  if (event.side === "steered") lang.append(make("span", event.asked ? "✓ asked for" : "✗ not asked for", {class: event.asked ? "yes" : "no"}));
  facts.replaceChildren(make("dt", "language"), lang);
  const more = [["dose", number(event.dose, 2)], ["bits per byte", number(event.bits, 2)]];
  for (const [name, value] of more) facts.append(make("dt", name), make("dd", value));
  at(event.side).dataset.text = event.text;
}

// ------------------------------------------------------------------------------------- the tokens

function tell(span) {
  for (const other of document.querySelectorAll(".tokens .here")) other.classList.remove("here");
  if (!span) return;
  span.classList.add("here");
  const {text, lang, probability, projection} = span.about;
  const parts = [`“${text.replaceAll("\n", "↵")}”`, `probability ${probability.toFixed(3)}`];
  parts.push(lang ? `votes for ${names.get(lang) || lang}` : "votes for no language");
  if (projection !== null) parts.push(`along the direction ${projection.toFixed(2)}`);
  at("token").textContent = parts.join(" · ");
}
for (const box of document.querySelectorAll(".tokens")) {
  for (const kind of ["pointerover", "click"]) {
    box.addEventListener(kind, (event) => { if (event.target.about) tell(event.target); });
  }
  box.addEventListener("keydown", (event) => {
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (!step) return;
    event.preventDefault();
    const spans = [...box.children];
    const here = spans.findIndex((span) => span.classList.contains("here"));
    tell(spans[Math.max(0, Math.min(spans.length - 1, here + step))]);
  });
}

// ------------------------------------------------------------------------------------- the map

function showMap() {
  const found = page.scores.find((each) => each.estimator === setting.estimator && each.operator === setting.operator);
  const table = at("map");
  at("scores").hidden = !page.scores.length && !page.note;
  if (!found) {
    table.replaceChildren();
    const there = page.scores.map((each) => `${each.estimator} by ${each.operator}`).join(", ");
    at("scores-note").textContent = there ? `The run has no scores of this direction and operator; it has ${there}.` : page.note;
    return;
  }
  const own = found.cells[setting.target];
  const cells = own || found.cells[""];
  const value = new Map(cells.map(([layer, strength, mean, count]) => [`${layer} ${strength}`, [mean, count]]));
  const most = Math.max(0.01, ...cells.map((cell) => cell[2]));
  const whose = own ? names.get(setting.target) || setting.target : "all languages";
  at("scores-note").textContent = `Joint (right language, own sentence recognised) to ${whose} on ${found.split}, ${cells[0][3]} outputs in each. A click sets layer and strength.`;
  const key = `${found.method} ${own ? setting.target : ""}`;
  if (table.dataset.key !== key) {
    table.dataset.key = key;
    const head = make("tr");
    head.append(make("th", "layer"), ...found.strengths.map((strength) => make("th", nice(strength), {scope: "col"})));
    const rows = found.layers.map((layer) => {
      const row = make("tr");
      row.append(make("th", layer < 0 ? "all" : layer, {scope: "row"}));
      for (const strength of found.strengths) {
        const cell = make("td");
        const scored = value.get(`${layer} ${strength}`);
        if (scored) cell.append(button(layer, strength, scored, most));
        row.append(cell);
      }
      return row;
    });
    const top = make("thead");
    top.append(head);
    const body = make("tbody");
    body.append(...rows);
    table.replaceChildren(top, body);
  }
  let marked = false;
  for (const each of table.querySelectorAll("button")) {
    const layer = Number(each.dataset.layer);
    const here = (layer < 0 || (setting.layers.length === 1 && setting.layers[0] === layer)) && Math.abs(Number(each.dataset.strength) - setting.strength) < 1e-9;
    each.setAttribute("aria-current", here);
    each.tabIndex = here ? 0 : -1;
    marked = marked || here;
  }
  if (!marked) table.querySelector("button")?.setAttribute("tabindex", "0");
}

function button(layer, strength, [mean, count], most) {
  const text = mean.toFixed(2).replace(/^0/, "");
  const made = make("button", text, {type: "button", "data-layer": layer, "data-strength": strength});
  made.style.setProperty("--part", (mean / most).toFixed(3));
  if (mean / most > 0.55) made.className = "high";
  made.setAttribute("aria-label", `layer ${layer < 0 ? "all" : layer}, strength ${nice(strength)}: joint ${mean.toFixed(2)} of ${count} outputs`);
  made.addEventListener("click", () => {
    if (layer >= 0) setting.layers = [layer];
    setting.strength = strength;
    showLayers();
    showStrength();
    changed();
  });
  return made;
}

at("map").addEventListener("keydown", (event) => {
  const here = event.target.closest("td");
  if (!here) return;
  const row = here.parentElement;
  const next = {
    ArrowRight: () => here.nextElementSibling,
    ArrowLeft: () => here.previousElementSibling,
    ArrowDown: () => row.nextElementSibling?.children[here.cellIndex],
    ArrowUp: () => row.previousElementSibling?.children[here.cellIndex],
  }[event.key];
  if (!next) return;
  event.preventDefault();
  next()?.querySelector("button")?.focus();
});

// ------------------------------------------------------------------------------------- the rest

for (const each of document.querySelectorAll("[data-copy]")) {
  each.addEventListener("click", async () => {
    await navigator.clipboard.writeText(at(each.dataset.copy).textContent);
    each.textContent = "Copied";
    setTimeout(() => { each.textContent = "Copy"; }, 1500);
  });
}

// The setting stands behind # in the address, so that a reload, and a bookmark, come back to it.
function remember() {
  history.replaceState(null, "", `#${encodeURIComponent(JSON.stringify(setting))}`);
}

function remembered() {
  try {
    const kept = JSON.parse(decodeURIComponent(location.hash.slice(1)));
    const known = Object.keys(page.setting).every((key) => typeof kept[key] === typeof page.setting[key]);
    const there = kept.estimator in page.estimators && kept.operator in page.operators && names.has(kept.source) && names.has(kept.target);
    const layered = Array.isArray(kept.layers) && kept.layers.length > 0 && kept.layers.every((layer) => page.layers.includes(layer));
    return known && there && layered ? Object.fromEntries(Object.keys(page.setting).map((key) => [key, kept[key]])) : null;
  } catch {
    return null;
  }
}

show(remembered() || page.setting);
changed();
