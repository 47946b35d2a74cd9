// The film strip and a lane for each target: score, where it is visible, doubt, and corrections.

import { request } from "/page/api.js";
import { colorOf, emit, last, on, state } from "/page/state.js";

const film = document.getElementById("film"), lanes = document.getElementById("lanes");
const THUMB = 80, HIGH = 31, EDGE = 6; // a lane reaches over the first and the last frame, so that marks are whole
let stripOf = "", urls = [], pending = false;

export function clearFilm() {
  urls.forEach((url) => URL.revokeObjectURL(url));
  urls = [];
  film.replaceChildren();
  stripOf = "";
}

// One thumbnail for each 80 pixels, of the frame in its middle; fetched one after the other, so that the player comes first.
export async function drawFilm() {
  const count = Math.min(last() + 1, Math.max(4, Math.floor(film.clientWidth / THUMB)));
  const key = `${state.video.id} ${count}`;
  if (key === stripOf) return;
  clearFilm();
  stripOf = key;
  const images = Array.from({ length: count }, () => Object.assign(new Image(), { alt: "", draggable: false }));
  film.replaceChildren(...images);
  for (let n = 0; n < count && stripOf === key; n++) {
    const frame = Math.floor(((n + 0.5) / count) * (last() + 1));
    try {
      const url = URL.createObjectURL(await request("GET", `/api/videos/${state.video.id}/frames/${frame}?width=160`));
      urls.push(url);
      images[n].src = url;
    } catch {
      continue; // a frame that does not decode stays empty
    }
  }
}

const frameAt = (event) => {
  const place = film.getBoundingClientRect();
  return Math.floor(((event.clientX - place.left) / place.width) * (last() + 1));
};

export let seek = () => {};
export function onSeek(call) { seek = call; }

function scrubs(element, before = () => {}) {
  element.addEventListener("pointerdown", (event) => {
    before();
    if (event.target.tagName === "SPAN") return;
    element.setPointerCapture(event.pointerId);
    seek(frameAt(event));
  });
  element.addEventListener("pointermove", (event) => { if (element.hasPointerCapture(event.pointerId)) seek(frameAt(event)); });
}
scrubs(film);

// -- lanes ------------------------------------------------------------------------------------------

function build() {
  const wanted = state.video ? state.video.targets : [];
  const have = new Map([...lanes.children].map((lane) => [lane.dataset.id, lane]));
  lanes.replaceChildren(...wanted.map((each) => have.get(each.id) || newLane(each)));
  for (const each of wanted) {
    const lane = [...lanes.children].find((one) => one.dataset.id === each.id);
    lane.classList.toggle("chosen", each.id === state.chosen);
    lane.firstChild.textContent = lane.firstChild.title = each.name;
  }
  draw();
}

function newLane(each) {
  const lane = document.createElement("div");
  lane.className = "lane";
  lane.dataset.id = each.id;
  lane.append(document.createElement("span"), document.createElement("canvas"));
  scrubs(lane, () => { state.chosen = each.id; emit("targets"); });
  return lane;
}

export function draw() {
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => {
    pending = false;
    if (!state.video?.facts) return;
    const colors = getComputedStyle(document.documentElement);
    for (const lane of lanes.children) {
      const each = state.video.targets.find((one) => one.id === lane.dataset.id);
      if (each) drawLane(lane.querySelector("canvas"), each, colors);
    }
  });
}

function drawLane(canvas, each, colors) {
  const ratio = window.devicePixelRatio || 1, whole = canvas.clientWidth, wide = whole - 2 * EDGE, rows = state.rows.get(each.id);
  if (canvas.width !== Math.round(whole * ratio)) [canvas.width, canvas.height] = [Math.round(whole * ratio), Math.round(HIGH * ratio)];
  const pen = canvas.getContext("2d"), step = wide / (last() + 1);
  pen.setTransform(ratio, 0, 0, ratio, EDGE * ratio, 0);
  pen.clearRect(-EDGE, 0, whole, HIGH);
  const x = (frame) => (frame + 0.5) * step;
  if (rows) {
    // Columns of at least a pixel: of several frames the lowest score and the highest doubt are drawn.
    const every = Math.max(1, Math.floor(1 / step));
    pen.globalAlpha = 0.3;
    pen.fillStyle = colorOf(each);
    columns(rows, every, (frame, lowest, doubt, seen) => {
      if (seen) pen.fillRect(frame * step, HIGH - 2 - lowest * (HIGH - 8), Math.max(1, step * every + 0.3), lowest * (HIGH - 8) + 2);
    });
    pen.globalAlpha = 1;
    columns(rows, every, (frame, lowest, doubt, seen) => {
      pen.fillStyle = seen ? colorOf(each) : colors.getPropertyValue("--edge");
      pen.fillRect(frame * step, HIGH - 3 - (seen ? lowest * (HIGH - 8) : 0), Math.max(1, step * every + 0.3), 2);
      if (doubt > 0.3) {
        pen.fillStyle = colors.getPropertyValue("--doubt");
        pen.fillRect(frame * step, HIGH - doubt * 14, Math.max(1, Math.min(3, step * every)), doubt * 14);
      }
    });
  }
  pen.fillStyle = colors.getPropertyValue("--doubt");
  for (const frame of state.looks.get(each.id) || []) triangle(pen, x(frame));
  pen.fillStyle = colors.getPropertyValue("--text");
  for (const mark of each.marks) diamond(pen, x(mark.frame), mark.absent);
}

function columns(rows, every, call) {
  for (let from = 0; from <= last(); from += every) {
    let lowest = 2, doubt = 0, seen = false, some = false;
    for (let frame = from; frame < from + every; frame++) {
      const row = rows.get(frame);
      if (!row) continue;
      some = true;
      lowest = Math.min(lowest, row[4]);
      doubt = Math.max(doubt, row[7] || 0);
      seen = seen || Boolean(row[5]);
    }
    if (some) call(from, Math.min(1, lowest), doubt, seen);
  }
}

function diamond(pen, x, hollow) {
  pen.beginPath();
  pen.moveTo(x, 1);
  pen.lineTo(x + 4, 5.5);
  pen.lineTo(x, 10);
  pen.lineTo(x - 4, 5.5);
  pen.closePath();
  if (hollow) { pen.strokeStyle = pen.fillStyle; pen.lineWidth = 1.2; pen.stroke(); } else pen.fill();
}

function triangle(pen, x) {
  pen.beginPath();
  pen.moveTo(x - 4, HIGH);
  pen.lineTo(x + 4, HIGH);
  pen.lineTo(x, HIGH - 6);
  pen.closePath();
  pen.fill();
}

new ResizeObserver(() => { draw(); if (state.video?.facts) drawFilm(); }).observe(film);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
on("targets video", build);
on("rows", draw);
