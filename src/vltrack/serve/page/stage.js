// The frame and the boxes over it. Boxes are in pixels of the frame; only this file knows pixels of the screen.

import { ahead, fetchFrame, loaded, setWidth } from "/page/frames.js";
import { chosen, colorOf, emit, hasBox, NOT_VISIBLE, on, rowOf, state } from "/page/state.js";

const stage = document.getElementById("stage"), note = document.getElementById("stage-note");
const picture = document.getElementById("picture"), overlay = document.getElementById("overlay");
const HANDLE = 7, SMALLEST = 3;
let scale = 1, drag = null;

export function layout() {
  if (!state.video?.facts || !stage.clientWidth) return;
  const { width, height } = state.video.facts, ratio = window.devicePixelRatio || 1;
  scale = Math.min(stage.clientWidth / width, stage.clientHeight / height);
  const wide = Math.round(width * scale), high = Math.round(height * scale);
  for (const canvas of [picture, overlay]) {
    canvas.style.left = `${Math.round((stage.clientWidth - wide) / 2)}px`;
    canvas.style.top = `${Math.round((stage.clientHeight - high) / 2)}px`;
    canvas.style.width = `${wide}px`;
    canvas.style.height = `${high}px`;
    canvas.width = Math.round(wide * ratio);
    canvas.height = Math.round(high * ratio);
  }
  setWidth(picture.width);
  paint();
}

// Shows the frame of the state: at once where it is there, else when it comes, unless another is wanted by then.
export async function show() {
  const frame = state.frame, id = state.video.id;
  ahead(frame, state.playing);
  if (loaded(frame)) { paint(); return; }
  drawBoxes();
  try {
    await fetchFrame(frame);
    note.hidden = true;
  } catch (error) {
    if (error.name === "AbortError" || frame !== state.frame || id !== state.video?.id) return;
    note.textContent = error.message;
    note.hidden = false;
  }
  if (frame === state.frame && id === state.video?.id) paint();
}

function paint() {
  const image = loaded(state.frame);
  if (image) {
    picture.getContext("2d").drawImage(image, 0, 0, picture.width, picture.height);
    note.hidden = true;
    picture.setAttribute("aria-label", `Frame ${state.frame} of the video`);
    stage.dataset.shown = String(state.frame);
  } else show();
  drawBoxes();
}

function drawBoxes() {
  const draw = overlay.getContext("2d"), ratio = overlay.width / state.video.facts.width, shown = [];
  draw.setTransform(1, 0, 0, 1, 0, 0);
  draw.clearRect(0, 0, overlay.width, overlay.height);
  for (const each of state.video.targets) {
    const row = rowOf(each.id, state.frame), bold = each.id === state.chosen;
    if (bold && state.box && each.revision) continue;
    if (each.start.frame === state.frame && !row && each.start.box) shown.push({ box: each.start.box, color: colorOf(each), label: each.name, bold });
    if (!hasBox(row)) continue;
    const name = each.name.length > 24 ? `${each.name.slice(0, 23)}…` : each.name;
    const label = `${name} ${row[4].toFixed(2)}${row[5] ? "" : " not visible"}`;
    shown.push({ box: row, color: row[5] ? colorOf(each) : "#b4b4b4", label, dashed: !row[5], bold, handles: bold && !state.playing });
  }
  if (state.answer && state.answer.frame === state.frame && !state.box) {
    state.answer.boxes.forEach(({ box, score }, number) => {
      const bold = number === state.picked;
      shown.push({ box, color: bold ? "#ffffff" : "#c8d4ff", label: `${number + 1}  ${Math.round(score * 100)} %`, dashed: !bold, bold });
    });
  }
  if (state.box) shown.push({ box: state.box, color: "#ffffff", label: "not applied", bold: true, handles: true });
  shown.sort((a, b) => Number(a.bold) - Number(b.bold)).forEach((each) => outline(draw, ratio, each));
  const taken = [];
  shown.reverse().forEach((each) => taken.push(label(draw, ratio, each, taken)));
  overlay.dataset.labels = JSON.stringify(taken);
}

function outline(draw, ratio, { box: [x, y, w, h], color, dashed, bold, handles }) {
  const device = window.devicePixelRatio || 1, place = [x * ratio, y * ratio, w * ratio, h * ratio];
  draw.setLineDash(dashed ? [6 * device, 4 * device] : []);
  draw.lineWidth = (bold ? 4 : 3.5) * device;
  draw.strokeStyle = "rgb(0 0 0 / .55)";
  draw.strokeRect(...place);
  draw.lineWidth = (bold ? 2.5 : 1.5) * device;
  draw.strokeStyle = color;
  draw.strokeRect(...place);
  draw.setLineDash([]);
  if (!handles) return;
  draw.fillStyle = color;
  for (const [px, py] of corners(place)) draw.fillRect(px - 3 * device, py - 3 * device, 6 * device, 6 * device);
}

// Draws a label at its box where no other label is, whole within the picture; returns [left, top, width, height].
function label(draw, ratio, { box: [x, y, w, h], color, label: text }, taken) {
  const device = window.devicePixelRatio || 1, [left, top, right, bottom] = [x, y, x + w, y + h].map((side) => side * ratio);
  draw.font = `${12 * device}px system-ui, sans-serif`;
  const wide = draw.measureText(text).width + 8 * device, high = 17 * device;
  const rows = [top - high, bottom, top, bottom - high]; // above, below, inside at the top and at the bottom
  for (let n = 1; n < 9; n++) rows.push(top + n * high, top - (n + 1) * high);
  const places = rows.flatMap((y) => [[left, y], [right - wide, y]])
    .map(([x, y]) => [Math.max(0, Math.min(x, overlay.width - wide)), y, wide, high])
    .filter((place) => place[1] >= 0 && place[1] + high <= overlay.height);
  const free = (one) => !taken.some((two) => meet(one, two));
  const place = places.find(free) || places[0] || [0, 0, wide, high];
  draw.fillStyle = "rgb(12 14 16 / .82)";
  draw.fillRect(...place);
  draw.fillStyle = color;
  draw.fillText(text, place[0] + 4 * device, place[1] + 12.5 * device);
  return place;
}
const meet = ([ax, ay, aw, ah], [bx, by, bw, bh]) => ax < bx + bw && bx < ax + aw && ay < by + bh && by < ay + ah;

function corners([x, y, w, h]) {
  return [[x, y], [x + w, y], [x, y + h], [x + w, y + h], [x + w / 2, y], [x + w / 2, y + h], [x, y + h / 2], [x + w, y + h / 2]];
}
// Which sides each corner moves: left, top, right, bottom.
const SIDES = [[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 1], [0, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 1, 0]];

// -- dragging ---------------------------------------------------------------------------------------

function point(event) {
  const place = overlay.getBoundingClientRect(), { width, height } = state.video.facts;
  const x = (event.clientX - place.left) * (width / place.width), y = (event.clientY - place.top) * (height / place.height);
  return [Math.max(0, Math.min(width, x)), Math.max(0, Math.min(height, y))];
}

// The box that a drag may change: the one not applied, else that of the chosen target in this frame.
function editable() {
  if (state.box) return state.box;
  const each = chosen(), row = each && rowOf(each.id, state.frame);
  return hasBox(row) ? row.slice(0, 4) : null;
}

function sidesAt([px, py], box) {
  if (!box) return null;
  const near = HANDLE / scale;
  const found = corners(box).findIndex(([x, y]) => Math.abs(px - x) <= near && Math.abs(py - y) <= near);
  if (found >= 0) return SIDES[found];
  const inside = px > box[0] && px < box[0] + box[2] && py > box[1] && py < box[1] + box[3];
  return inside ? [1, 1, 1, 1] : null;
}

overlay.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || !state.video) return;
  const from = point(event), box = editable();
  const candidate = state.answer?.frame === state.frame && !state.box ? candidateAt(from) : -1;
  drag = { from, box, sides: candidate < 0 ? sidesAt(from, box) : null, candidate, moved: false };
  overlay.setPointerCapture(event.pointerId);
  event.preventDefault();
});

function candidateAt([x, y]) {
  const inside = state.answer.boxes.map(({ box: [a, b, w, h] }, n) => [x >= a && x <= a + w && y >= b && y <= b + h, w * h, n]);
  const hit = inside.filter(([yes]) => yes).sort((a, b) => a[1] - b[1])[0];
  return hit ? hit[2] : -1;
}

overlay.addEventListener("pointermove", (event) => {
  if (!state.video) return;
  const to = point(event);
  if (!drag) {
    const sides = sidesAt(to, editable()), row = rowOf(targetAt(to), state.frame);
    overlay.title = hasBox(row) && !row[5] && !state.box ? NOT_VISIBLE : "";
    overlay.style.cursor = !sides ? "crosshair" : sides.every(Boolean) ? "move" : "pointer";
    return;
  }
  if (!drag.moved && Math.hypot(to[0] - drag.from[0], to[1] - drag.from[1]) * scale < SMALLEST) return;
  drag.moved = true;
  emit("touched");
  setBox(drag.sides ? changed(drag, to) : spanned(drag.from, to));
});

for (const name of ["pointerup", "pointercancel"]) {
  overlay.addEventListener(name, () => {
    const done = drag;
    drag = null;
    if (!done || done.moved || name === "pointercancel") return;
    if (done.candidate >= 0) {
      state.picked = done.candidate;
      emit("answer", "box");
    } else {
      state.chosen = targetAt(done.from) ?? state.chosen;
      emit("targets");
    }
  });
}

function targetAt([x, y]) {
  const hits = state.video.targets
    .map((each) => [each.id, rowOf(each.id, state.frame) || each.start.box])
    .filter(([, box]) => box && x >= box[0] && x <= box[0] + box[2] && y >= box[1] && y <= box[1] + box[3])
    .sort((a, b) => a[1][2] * a[1][3] - b[1][2] * b[1][3]);
  return hits[0]?.[0];
}

const spanned = ([ax, ay], [bx, by]) => [Math.min(ax, bx), Math.min(ay, by), Math.abs(ax - bx), Math.abs(ay - by)];

function changed({ from, box: [x, y, w, h], sides }, [px, py]) {
  const dx = px - from[0], dy = py - from[1], { width, height } = state.video.facts;
  if (sides.every(Boolean)) {
    return [Math.max(0, Math.min(width - w, x + dx)), Math.max(0, Math.min(height - h, y + dy)), w, h];
  }
  const left = x + sides[0] * dx, top = y + sides[1] * dy, right = x + w + sides[2] * dx, bottom = y + h + sides[3] * dy;
  return spanned([left, top], [right, bottom]);
}

function setBox(box) {
  state.box = box.map((side) => Math.round(side * 100) / 100);
  emit("box");
}

// A box as the overlay shows it, for tests: frame pixels to page pixels.
export const toPage = ([x, y]) => {
  const place = overlay.getBoundingClientRect();
  return [place.left + (x * place.width) / state.video.facts.width, place.top + (y * place.height) / state.video.facts.height];
};

new ResizeObserver(layout).observe(stage);
on("box answer targets rows", () => state.video?.facts && drawBoxes());
