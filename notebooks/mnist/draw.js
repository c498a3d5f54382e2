"use strict";
// Draws strokes, asks the server about them while they grow, and tells it what the digit was.

const at = (id) => document.getElementById(id);
const board = at("board"), pen = board.getContext("2d"), seen = at("seen").getContext("2d");
const SIDE = 280, PEN = 20;            // the drawing as it is sent, in pixels, and the width of its pen
const SETTLED = 700;                   // milliseconds after the last stroke until the answer is kept
const STEP = 10;                       // how far an arrow key moves the pen

let strokes = [], picture = null;      // what is asked about: strokes of points in SIDE, or a file
let labels = [], keepsInputs = false;
let asking = false, changed = false;   // one question at a time; what changed meanwhile is asked next
let id = null, keeping = null;         // of the answer that was kept for this drawing
let told = null, settled = 0, drawing = null, cursor = null, downByKey = false, turn = 0;

// -- the board --------------------------------------------------------------------------------------------------------

function line(context, scale, width, colour) {
  context.lineCap = context.lineJoin = "round";
  context.lineWidth = width * scale;
  context.strokeStyle = context.fillStyle = colour;
  for (const points of strokes) {
    context.beginPath();
    context.moveTo(points[0][0] * scale, points[0][1] * scale);
    for (let n = 1; n < points.length - 1; n++) {    // through the middles, so that a stroke is smooth
      const [x, y] = points[n], [next, below] = points[n + 1];
      context.quadraticCurveTo(x * scale, y * scale, (x + next) / 2 * scale, (y + below) / 2 * scale);
    }
    const [x, y] = points[points.length - 1];
    context.lineTo(x * scale, y * scale + (points.length === 1 ? .01 : 0));
    context.stroke();
  }
}

function paint() {
  const side = board.clientWidth * devicePixelRatio;
  if (board.width !== Math.round(side)) board.width = board.height = Math.round(side);
  pen.clearRect(0, 0, board.width, board.height);
  const style = getComputedStyle(document.documentElement), scale = board.width / SIDE;
  if (picture) {
    const fit = Math.min(board.width / picture.width, board.height / picture.height);
    const [wide, high] = [picture.width * fit, picture.height * fit];
    pen.drawImage(picture.bitmap, (board.width - wide) / 2, (board.height - high) / 2, wide, high);
  }
  line(pen, scale, PEN, style.getPropertyValue("--ink"));
  if (cursor && document.activeElement === board) {
    pen.beginPath();
    pen.arc(cursor[0] * scale, cursor[1] * scale, PEN / 2 * scale, 0, 7);
    pen.lineWidth = 2 * devicePixelRatio;
    pen.strokeStyle = style.getPropertyValue(downByKey ? "--good" : "--first");
    pen.stroke();
  }
  const any = strokes.length > 0 || picture !== null;
  document.body.classList.toggle("drawn", any);
  at("undo").disabled = strokes.length === 0;
  at("clear").disabled = !any;
}

function place(event) {
  const box = board.getBoundingClientRect();
  const inside = (value) => Math.min(SIDE, Math.max(0, value));
  return [inside((event.clientX - box.left) / box.width * SIDE), inside((event.clientY - box.top) / box.height * SIDE)];
}

function begin(point) {
  if (told !== null || picture) clear();   // the drawing before is finished
  strokes.push([point]);
  touched();
}

function touched() {
  id = keeping = null;
  turn += 1;
  clearTimeout(settled);
  paint();
  changed = true;
  ask();
}

function lifted() {
  clearTimeout(settled);
  if (strokes.length || picture) settled = setTimeout(keep, SETTLED);
}

function clear() {
  strokes = [];
  picture = told = id = keeping = null;
  turn += 1;
  downByKey = changed = false;
  clearTimeout(settled);
  paint();
  show(null);
  say("");
}

board.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || drawing !== null) return;
  event.preventDefault();
  board.focus({ preventScroll: true });
  board.setPointerCapture(event.pointerId);
  drawing = event.pointerId;
  cursor = null;
  begin(place(event));
});
board.addEventListener("pointermove", (event) => {
  if (event.pointerId !== drawing) return;
  const events = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
  strokes[strokes.length - 1].push(...(events.length ? events : [event]).map(place));
  touched();
});
for (const name of ["pointerup", "pointercancel"]) board.addEventListener(name, (event) => {
  if (event.pointerId !== drawing) return;
  drawing = null;
  lifted();
});

// A stroke that ends in motion is a fling for the browser, which then takes the tap after it for the one that stops it.
board.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });

board.addEventListener("keydown", (event) => {
  const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (event.ctrlKey || event.metaKey || event.altKey || !(move || [" ", "z", "Z", "Delete", "Backspace"].includes(event.key))) return;
  event.preventDefault();
  if (event.key === "Delete" || event.key === "Backspace") return clear();
  if (event.key === "z" || event.key === "Z") return undo();
  cursor = cursor || [SIDE / 2, SIDE / 4];
  if (move) {
    cursor = cursor.map((value, axis) => Math.min(SIDE - PEN, Math.max(PEN, value + STEP * move[axis])));
    if (downByKey) { strokes[strokes.length - 1].push([...cursor]); touched(); lifted(); } else paint();
  } else {
    downByKey = !downByKey;
    if (downByKey) begin([...cursor]); else lifted();
    downByKey = downByKey && strokes.length > 0;
    hear(downByKey ? "Pen down" : "Pen up");
    paint();
  }
});
for (const name of ["focus", "blur"]) board.addEventListener(name, paint);

function undo() {
  strokes.pop();
  told = null;
  downByKey = false;
  say("");
  if (!strokes.length) return clear();
  touched();
  lifted();
}
at("undo").addEventListener("click", undo);
at("clear").addEventListener("click", () => { clear(); board.focus({ preventScroll: true }); });

async function take(file) {
  if (!file) return;
  clear();
  try {
    const bitmap = await createImageBitmap(file);
    picture = { file, bitmap, width: bitmap.width, height: bitmap.height };
  } catch { return say("This picture cannot be read: use a PNG or JPEG file.", true); }
  touched();
  lifted();
}
at("file").addEventListener("change", (event) => { take(event.target.files[0]); event.target.value = ""; });
document.addEventListener("paste", (event) => take([...event.clipboardData.files].find((file) => file.type.startsWith("image/"))));

// -- the server ---------------------------------------------------------------------------------------------------------

async function request(path, options = {}) {
  if (globalThis.localModel) return globalThis.localModel(path, options);   // a page that has its model inside
  const token = sessionStorage.getItem("token");
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  const answer = await fetch(path, { ...options, headers });
  if (answer.status === 401) {
    await gate();
    return request(path, options);
  }
  const content = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(content.message), { status: answer.status });
  return content;
}

let waiting = null;
function gate() {
  waiting = waiting || new Promise((done) => {
    const dialog = at("gate");
    sessionStorage.removeItem("token");
    dialog.addEventListener("close", () => {
      sessionStorage.setItem("token", at("token").value);
      at("token").value = "";
      waiting = null;
      done();
    }, { once: true });
    dialog.showModal();
  });
  return waiting;
}

function body() {
  if (picture) return picture.file;
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, SIDE, SIDE);
  line(context, 1, PEN, "#000");
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

async function question(keeps) {
  const content = await body();
  const began = performance.now();
  const answer = await request(`predict?details=1&keep=${keeps ? 1 : 0}`,
                               { method: "POST", body: content, headers: { "Content-Type": content.type } });
  return { ...answer, way: performance.now() - began };
}

async function ask() {
  if (asking) return;
  asking = true;
  while (changed) {
    changed = false;
    const mine = turn;
    try {
      const answer = await question(false);
      if (strokes.length || picture) show(answer);
    } catch (error) {
      if (mine === turn) trouble(error);
      await new Promise((done) => setTimeout(done, 200));
    }
  }
  asking = false;
}

function keep() {   // ask once more, so that the log has the whole drawing, once
  clearTimeout(settled);
  const mine = turn;
  keeping = keeping || question(true).then((answer) => {
    if (mine !== turn) return null;
    show(answer, true);
    return id = answer.answers[0].id;
  }).catch((error) => { keeping = null; if (mine === turn) trouble(error); return null; });
  return keeping;
}

async function tell(label) {
  if (!strokes.length && !picture || globalThis.localModel) return;
  const known = id || await keep();
  if (!known) return;
  const mine = turn;
  try {
    await request("label", { method: "POST", headers: { "Content-Type": "application/json" },
                             body: JSON.stringify({ id: known, label }) });
  } catch (error) { return trouble(error); }
  if (mine !== turn) return;
  told = label;
  press();
  say(`Kept: it was ${named(label)}. Draw the next one.`);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || at("gate").open || !labels.includes(event.key)) return;
  tell(event.key);
});

// -- what is shown ------------------------------------------------------------------------------------------------------

function named(label) { return `${label === "8" ? "an" : "a"} ${label}`; }

function percent(value) {
  return value > .9995 ? "over 99.9 %" : `${(100 * value).toFixed(1)} %`;
}

function show(answer, settledNow = false) {
  const first = answer && answer.answers[0], second = answer && answer.shadow && answer.shadow.answers && answer.shadow.answers[0];
  document.body.classList.toggle("empty", !first);
  document.body.classList.toggle("unknown", Boolean(first) && first.answer === null);
  document.body.classList.toggle("shadowed", Boolean(second));
  at("has-shadow").hidden = !second;
  for (const button of at("bars").children) {
    const label = button.dataset.label, chance = first ? first.probabilities[label] || 0 : 0;
    const other = second ? second.probabilities[label] || 0 : 0;
    const [one, two] = button.querySelectorAll("i");
    one.style.transform = `scaleY(${chance})`;
    two.style.transform = `scaleY(${other})`;
    button.disabled = !first;
    button.classList.toggle("best", Boolean(first) && first.answer === label);
    button.setAttribute("aria-label", `It was ${named(label)}` + (first ? ` (champion ${percent(chance)}${second ? `, shadow ${percent(other)}` : ""})` : ""));
  }
  press();
  if (!first) {
    at("digit").textContent = "\u00a0";
    at("sure").textContent = "Waiting for a stroke";
    at("why").textContent = at("time").textContent = "";
    seen.clearRect(0, 0, 28, 28);
    return;
  }
  at("digit").textContent = first.answer === null ? "?" : first.answer;
  at("sure").textContent = first.answer === null ? "I do not know" : `${percent(first.probability)} sure`;
  at("why").textContent = first.answer === null ? `Unlike the digits I learned from. A\u00a0guess:\u00a0${first.best}` : agreement(first, second);
  at("first").textContent = `${answer.model}, version ${answer.version}`;
  at("second").textContent = second ? `${answer.shadow.model}, version ${answer.shadow.version}, in its shadow` : "";
  at("time").textContent = `in ${answer.milliseconds.toFixed(1)} ms`;
  at("time").title = `${answer.way.toFixed(0)} ms with the way there and back`;
  if (first.prepared) look(first.prepared);
  if (settledNow) hear(first.answer === null ? "I do not know." : `${first.answer}, sure to ${percent(first.probability)}.`);
}

function agreement(first, second) {
  if (!second) return "";
  if (second.answer === null) return "The shadow does not know";
  return second.answer === first.answer ? "The shadow agrees" : `The shadow says ${second.answer}`;
}

function look(prepared) {
  const values = prepared.flat(9), low = Math.min(...values), high = Math.max(...values);
  const side = Math.round(Math.sqrt(values.length)), image = seen.createImageData(side, side);
  values.forEach((value, n) => image.data.set(Array(3).fill(255 * (value - low) / (high - low || 1)).concat(255), 4 * n));
  seen.canvas.width = seen.canvas.height = side;
  seen.putImageData(image, 0, 0);
}

function press() {
  for (const button of at("bars").children) button.setAttribute("aria-pressed", String(told === button.dataset.label));
}

function say(text, wrong = false) {
  at("told").textContent = text;
  at("told").classList.toggle("wrong", wrong);
}

function hear(text) { at("heard").textContent = text; }

function trouble(error) {
  const message = error.status ? error.message : "The server does not answer. It is asked again with the next stroke.";
  if (error.status === 422 && drawing !== null) return;   // a dot is no drawing yet
  say(message, true);
}

function columns() {
  const bars = at("bars");
  bars.style.setProperty("--labels", labels.length);
  bars.replaceChildren(...labels.map((label) => {
    const button = document.createElement("button"), pair = document.createElement("span"), name = document.createElement("b");
    button.type = "button";
    button.dataset.label = label;
    pair.className = "pair";
    pair.append(document.createElement("i"), Object.assign(document.createElement("i"), { className: "second" }));
    name.textContent = label;
    button.append(pair, name);
    button.addEventListener("click", () => tell(label));
    return button;
  }));
}

async function start() {
  try {
    const facts = await request("version");
    labels = facts.labels;
    keepsInputs = facts.keeps_inputs;
    at("first").textContent = `${facts.champion.model}, version ${facts.champion.version}`;
  } catch (error) {
    labels = [..."0123456789"];
    trouble(error);
  }
  if (globalThis.localModel) at("ask").textContent = "The model is in this page: nothing is sent or kept.";
  at("kept").textContent = globalThis.localModel ? "Nothing: this page has no server." : keepsInputs
    ? "Finished drawings are kept on the server with their answers, so that models can learn from them."
    : "The server keeps answers and what you say they were, and no drawing.";
  at("private").textContent = keepsInputs ? "Drawings are kept" : "No drawing is kept";
  columns();
  show(null);
  paint();
}

for (const [name, keys] of [["keydown", true], ["pointerdown", false]]) {   // rings are for those who use keys
  addEventListener(name, () => document.body.classList.toggle("keys", keys), { capture: true });
}
addEventListener("resize", paint);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
start();
