"use strict";
// Draws strokes, requests predictions while they grow, and sends the label that a person gives.

const SIDE = 280, PEN = 20;   // pixels: the drawing as it is sent, and the width of its pen
const PAUSE = 700;            // milliseconds after the last stroke until its prediction is logged
const STEP = 10;              // pixels by which an arrow key moves the pen
const local = () => globalThis.localModel;   // in a page that contains its model

const element = (id) => document.getElementById(id);
const write = (id, text) => { element(id).textContent = text; };
const board = element("board"), pen = board.getContext("2d");

let strokes = [], version = 0;       // the drawing: points in SIDE; its number of changes
let pointer = null;                  // that draws now
let cursor = null, penDown = false;  // of the keyboard
let pending = false, stale = false;  // one request at a time, then one for what changed meanwhile
let answer = null;                   // the newest prediction
let timer = 0, logged = null;        // until the prediction is logged; its id in the log
let label = null;                    // what a person chose

// -- the board ---------------------------------------------------------------------------------

function trace(context, scale, colour) {
  context.lineCap = context.lineJoin = "round";
  context.lineWidth = PEN * scale;
  context.strokeStyle = colour;
  for (const points of strokes) {
    context.beginPath();
    context.moveTo(points[0][0] * scale, points[0][1] * scale);
    points.slice(1, -1).forEach(([x, y], n) => {   // through the middles, so that it is smooth
      const [nextX, nextY] = points[n + 2];
      const middle = [(x + nextX) / 2, (y + nextY) / 2];
      context.quadraticCurveTo(...[x, y, ...middle].map((value) => value * scale));
    });
    const [x, y] = points.at(-1);
    context.lineTo(x * scale, y * scale + (points.length === 1 ? .01 : 0));   // a point is a dot
    context.stroke();
  }
}

function paint() {
  const side = Math.round(board.clientWidth * devicePixelRatio), scale = side / SIDE;
  board.width = board.height = side;
  const style = getComputedStyle(document.documentElement);
  trace(pen, scale, style.getPropertyValue("--ink"));
  if (cursor && document.activeElement === board) {
    pen.beginPath();
    pen.arc(cursor[0] * scale, cursor[1] * scale, PEN / 2 * scale, 0, 7);
    pen.lineWidth = 2 * devicePixelRatio;
    pen.strokeStyle = style.getPropertyValue(penDown ? "--good" : "--first");
    pen.stroke();
  }
  document.body.classList.toggle("drawn", strokes.length > 0);
  element("undo").disabled = element("clear").disabled = !strokes.length;
}

function begin(point) {
  if (label !== null) clear();   // the drawing before is finished
  strokes.push([point]);
  changed();
}

function changed() {
  version += 1;
  logged = null;
  clearTimeout(timer);
  paint();
  stale = true;
  predict();
}

function lifted() {
  clearTimeout(timer);
  if (strokes.length) timer = setTimeout(log, PAUSE);
}

function clear() {
  strokes = [];
  label = logged = answer = null;
  version += 1;
  penDown = stale = false;
  clearTimeout(timer);
  paint();
  show();
  report("");
}

function undo() {
  if (strokes.length < 2) return clear();
  strokes.pop();
  label = null;
  penDown = false;
  report("");
  changed();
  lifted();
}

function position(event) {
  const box = board.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]
    .map((part) => Math.min(1, Math.max(0, part)) * SIDE);
}

board.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || pointer !== null) return;
  event.preventDefault();
  board.focus({ preventScroll: true });
  board.setPointerCapture(event.pointerId);
  pointer = event.pointerId;
  cursor = null;
  begin(position(event));
});
board.addEventListener("pointermove", (event) => {
  if (event.pointerId !== pointer) return;
  strokes.at(-1).push(position(event));
  changed();
});
for (const name of ["pointerup", "pointercancel"]) {
  board.addEventListener(name, (event) => {
    if (event.pointerId !== pointer) return;
    pointer = null;
    lifted();
  });
}
// A stroke that ends in motion is a fling, and the browser would take the next tap to stop it.
board.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function moveCursor(direction) {
  cursor = cursor.map((value, axis) =>
    Math.min(SIDE - PEN, Math.max(PEN, value + STEP * direction[axis])));
  if (!penDown) return paint();
  strokes.at(-1).push(cursor);
  changed();
  lifted();
}

function togglePen() {
  const down = !penDown;
  if (down) begin(cursor); else lifted();   // begin may clear, which lifts the pen
  penDown = down;
  write("announcement", down ? "Pen down" : "Pen up");
  paint();
}

board.addEventListener("keydown", (event) => {
  const actions = { " ": togglePen, z: undo, Z: undo, Delete: clear, Backspace: clear };
  const action = ARROWS[event.key] ? () => moveCursor(ARROWS[event.key]) : actions[event.key];
  if (event.ctrlKey || event.metaKey || event.altKey || !action) return;
  event.preventDefault();
  cursor ??= [SIDE / 2, SIDE / 4];
  action();
});
for (const name of ["focus", "blur"]) board.addEventListener(name, paint);
element("undo").addEventListener("click", undo);
element("clear").addEventListener("click", clear);

// -- the server --------------------------------------------------------------------------------

async function request(path, options = {}) {
  if (local()) return local()(path, options);
  const token = sessionStorage.getItem("token");
  const authorization = token ? { Authorization: `Bearer ${token}` } : {};
  const headers = { ...options.headers, ...authorization };
  const response = await fetch(path, { ...options, headers });
  if (response.status === 401) {
    await askForToken();
    return request(path, options);
  }
  const content = await response.json();
  if (!response.ok) throw Object.assign(new Error(content.message), { status: response.status });
  return content;
}

let gate = null;   // one dialog for all requests that wait
function askForToken() {
  gate ??= new Promise((resolve) => {
    sessionStorage.removeItem("token");
    element("gate").addEventListener("close", () => {
      sessionStorage.setItem("token", element("token").value);
      element("token").value = "";
      gate = null;
      resolve();
    }, { once: true });
    element("gate").showModal();
  });
  return gate;
}

function drawing() {
  const canvas = Object.assign(document.createElement("canvas"), { width: SIDE, height: SIDE });
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, SIDE, SIDE);
  trace(context, 1, "#000");
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

async function prediction(keep) {
  const body = await drawing();
  const headers = { "Content-Type": body.type };
  return request(`predict?details=1&keep=${keep}`, { method: "POST", body, headers });
}

async function predict() {
  if (pending) return;
  pending = true;
  while (stale) {
    stale = false;
    const requested = version;
    try {
      const newest = await prediction(0);
      if (strokes.length) show(newest);
    } catch (error) {
      if (requested === version) fail(error);
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }
  pending = false;
}

function log() {   // the whole drawing, once; resolves to its id in the log
  clearTimeout(timer);
  const requested = version;
  logged ??= prediction(1).then((newest) => {
    if (requested !== version) return null;
    show(newest);
    const { answer: digit, probability, id } = newest.answers[0];
    const words = digit === null ? "No answer" : `${digit}, ${percent(probability)} sure`;
    write("announcement", words);
    return id;
  }).catch((error) => {
    if (requested === version) { logged = null; fail(error); }
    return null;
  });
  return logged;
}

async function choose(name) {
  if (!strokes.length || local()) return;
  const id = await log(), requested = version;
  if (!id) return;
  const headers = { "Content-Type": "application/json" };
  try {
    await request("label", { method: "POST", headers, body: JSON.stringify({ id, label: name }) });
  } catch (error) { return fail(error); }
  if (requested !== version) return;
  label = name;
  show();
  report(`Saved as ${article(name)}. Draw the next one.`);
}

document.addEventListener("keydown", (event) => {
  const other = event.ctrlKey || event.metaKey || event.altKey || element("gate").open;
  if (!other && element("bars").querySelector(`[data-label="${CSS.escape(event.key)}"]`)) {
    choose(event.key);
  }
});

// -- the results -------------------------------------------------------------------------------

const article = (name) => `${name === "8" ? "an" : "a"} ${name}`;
const named = ({ model, version }) => `${model}, version ${version}`;
const percent = (value) => value > .9995 ? "over 99.9%" : `${(100 * value).toFixed(1)}%`;

function show(newest = answer) {
  answer = newest;
  const first = answer?.answers[0];
  const classes = document.body.classList;
  classes.toggle("empty", !first);
  classes.toggle("abstained", first?.answer === null);
  for (const button of element("bars").children) showBar(button, first);
  write("digit", first?.answer ?? (first ? "?" : ""));
  write("confidence", !first ? "Waiting for a stroke"
    : first.answer === null ? "No answer" : `${percent(first.probability)} sure`);
  write("note", first ? note(first) : "");
  write("time", first ? `in ${answer.milliseconds.toFixed(1)} ms` : "");
  if (first) write("first", named(answer));
  showInput(first?.prepared.flat(9) ?? [0]);
}

function showBar(button, first) {
  const name = button.dataset.label, value = first?.probabilities[name] ?? 0;
  button.querySelector("i").style.transform = `scaleY(${value})`;
  button.disabled = !first;
  button.classList.toggle("best", first?.answer === name);
  button.setAttribute("aria-pressed", label === name);
  const shown = first ? ` (${percent(value)})` : "";
  button.setAttribute("aria-label", `It was ${article(name)}${shown}`);
}

function note(first) {
  const guess = `Best\u00a0guess:\u00a0${first.best}`;
  return first.answer === null ? `Unlike the digits it was trained on. ${guess}` : "";
}

function showInput(values) {
  const low = Math.min(...values), range = Math.max(...values) - low || 1;
  const side = Math.sqrt(values.length), image = new ImageData(side, side);
  values.forEach((value, n) => {
    const grey = 255 * (value - low) / range;
    image.data.set([grey, grey, grey, side > 1 ? 255 : 0], 4 * n);
  });
  Object.assign(element("input"), { width: side, height: side });
  element("input").getContext("2d").putImageData(image, 0, 0);
}

function report(text, isError = false) {
  write("status", text);
  element("status").classList.toggle("error", isError);
}

function fail(error) {
  if (error.status === 422 && pointer !== null) return;   // a dot is no drawing yet
  report(error.status ? error.message : "The server does not respond. Draw on to try again.", true);
}

function addBars(labels) {
  element("bars").style.setProperty("--labels", labels.length);
  element("bars").replaceChildren(...labels.map((name) => {
    const button = Object.assign(document.createElement("button"), { type: "button" });
    button.dataset.label = name;
    button.innerHTML = '<span class="pair"><i></i></span><b></b>';
    button.lastChild.textContent = name;
    button.addEventListener("click", () => choose(name));
    return button;
  }));
}

async function start() {
  let facts = { labels: [..."0123456789"], keeps_inputs: false };
  try {
    facts = await request("version");
    write("first", named(facts.champion));
  } catch (error) { fail(error); }
  const drawings = facts.keeps_inputs ? "Drawings are stored" : "Drawings are not stored";
  write("privacy", drawings);
  write("storage", `${drawings}. The server stores predictions and labels.`);
  if (local()) {
    const text = "The model is in this page: nothing is sent or stored.";
    for (const id of ["question", "storage"]) write(id, text);
  }
  addBars(facts.labels);
  show();
  paint();
}

addEventListener("resize", paint);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
start();
