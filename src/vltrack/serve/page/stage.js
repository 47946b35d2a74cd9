// The frame and the boxes over it. Boxes are in pixels of the frame; only this file knows pixels of the screen.

import { ahead, fetchFrame, loaded, setWidth } from "/page/frames.js";
import { chosen, colorOf, emit, on, rowOf, state } from "/page/state.js";

const stage = document.getElementById("stage"), note = document.getElementById("stage-note");
const picture = document.getElementById("picture"), overlay = document.getElementById("overlay");
const HANDLE = 7, SMALLEST = 3;
let scale = 1, drag = null, shown = -1;

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
  setWidth(canvasWidth());
  paint();
}

const canvasWidth = () => picture.width;

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
    shown = state.frame;
    note.hidden = true;
    picture.setAttribute("aria-label", `Frame ${state.frame} of the video`);
    stage.dataset.shown = String(shown);
  } else if (!picture.dataset.empty) {
    show();
  }
  drawBoxes();
}

function drawBoxes() {
  const draw = overlay.getContext("2d"), ratio = overlay.width / state.video.facts.width;
  draw.setTransform(1, 0, 0, 1, 0, 0);
  draw.clearRect(0, 0, overlay.width, overlay.height);
  for (const each of state.video.targets) {
    const row = rowOf(each.id, state.frame), start = each.start.frame === state.frame && !row ? each.start.box : null;
    if (each.id === state.chosen && state.box) continue;
    if (start) outline(draw, ratio, start, colorOf(each), { label: each.name, bold: each.id === state.chosen });
    if (!hasBox(row)) continue;
    const name = each.name.length > 24 ? `${each.name.slice(0, 23)}…` : each.name;
    const label = `${name} ${row[4].toFixed(2)}${row[5] ? "" : " not visible"}`;
    outline(draw, ratio, row, row[5] ? colorOf(each) : "#969696", {
      label, dashed: !row[5], bold: each.id === state.chosen, handles: each.id === state.chosen && !state.playing,
    });
  }
  if (state.answer && state.answer.frame === state.frame && !state.box) {
    state.answer.boxes.forEach((one, number) => {
      const picked = number === state.picked;
      outline(draw, ratio, one.box, picked ? "#ffffff" : "#c8d4ff", {
        label: `${number + 1}  ${Math.round(one.score * 100)} %`, dashed: !picked, bold: picked,
      });
    });
  }
  if (state.box) outline(draw, ratio, state.box, "#ffffff", { label: "not applied", bold: true, handles: true });
}

// Whether a row has a box to show: where a person said "not here" it only holds the last one.
const hasBox = (row) => row && row[6] !== "waiting" && row[6] !== "outside" && (row[5] || row[4] > 0);

function outline(draw, ratio, [x, y, w, h], color, { label = "", dashed = false, bold = false, handles = false }) {
  const device = window.devicePixelRatio || 1, place = [x * ratio, y * ratio, w * ratio, h * ratio];
  draw.setLineDash(dashed ? [6 * device, 4 * device] : []);
  draw.lineWidth = (bold ? 4 : 3.5) * device;
  draw.strokeStyle = "rgb(0 0 0 / .55)";
  draw.strokeRect(...place);
  draw.lineWidth = (bold ? 2.5 : 1.5) * device;
  draw.strokeStyle = color;
  draw.strokeRect(...place);
  draw.setLineDash([]);
  if (label) {
    draw.font = `${12 * device}px system-ui, sans-serif`;
    const shown = label.length > 40 ? `${label.slice(0, 39)}…` : label;
    const wide = draw.measureText(shown).width + 8 * device, high = 17 * device;
    const left = Math.max(0, Math.min(place[0], overlay.width - wide));
    const top = place[1] >= high ? place[1] - high : Math.min(place[1], overlay.height - high);
    draw.fillStyle = "rgb(12 14 16 / .82)";
    draw.fillRect(left, top, wide, high);
    draw.fillStyle = color;
    draw.fillText(shown, left + 4 * device, top + 12.5 * device);
  }
  if (!handles) return;
  draw.fillStyle = color;
  for (const [px, py] of corners(place)) draw.fillRect(px - 3 * device, py - 3 * device, 6 * device, 6 * device);
}

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
    const sides = sidesAt(to, editable());
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
      chooseAt(done.from);
    }
  });
}

function chooseAt([x, y]) {
  const hits = state.video.targets
    .map((each) => [each.id, rowOf(each.id, state.frame) || each.start.box])
    .filter(([, box]) => box && x >= box[0] && x <= box[0] + box[2] && y >= box[1] && y <= box[1] + box[3])
    .sort((a, b) => a[1][2] * a[1][3] - b[1][2] * b[1][3]);
  if (hits.length) { state.chosen = hits[0][0]; emit("targets"); }
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
