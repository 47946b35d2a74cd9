// Opens videos, plays them, and reads the keyboard.

import { get, onUnauthorized, post, remove, upload } from "/page/api.js";
import { fillFormats } from "/page/downloads.js";
import { clear, loaded } from "/page/frames.js";
import { add, reset, text } from "/page/prompt.js";
import { layout, show } from "/page/stage.js";
import { absent, apply, doubtfulFrame, loadRows, newest, refresh, step, stop, watch } from "/page/targets.js";
import { clearFilm, drawFilm, onSeek } from "/page/timeline.js";
import { attempt, chosen, emit, last, on, say, state } from "/page/state.js";

const by = (id) => document.getElementById(id);

// -- the start page ---------------------------------------------------------------------------------

async function openStart() {
  stop();
  Object.assign(state, { video: null, job: null, playing: 0, chosen: null, frame: 0 });
  by("work").hidden = true;
  by("start").hidden = false;
  by("video-name").textContent = by("video-facts").textContent = "";
  document.title = "vltrack studio";
  const facts = await attempt(() => get("/api/state"));
  if (!facts || state.video) return;
  state.facts = facts;
  fillFormats();
  by("model").replaceChildren(...facts.models.map((name) => new Option(name, name)));
  const videos = facts.videos.filter((each) => each.state === "ready").map(known);
  by("known").replaceChildren(...(videos.length ? videos.reverse() : [text("li", "None yet.", "quiet")]));
  by("clips").replaceChildren(...facts.clips.map(clip));
}

function known(video) {
  const item = document.createElement("li"), link = text("a", "", "button open");
  link.append(text("b", video.name));
  link.href = `#${video.id}`;
  link.title = video.name;
  const drop = text("button", "Remove");
  drop.type = "button";
  drop.setAttribute("aria-label", `Remove ${video.name}`);
  drop.addEventListener("click", async () => {
    await attempt(() => remove(`/api/videos/${video.id}`));
    openStart();
  });
  item.append(link, text("span", lengthOf(video.facts), "quiet small"), drop);
  return item;
}

function clip(card) {
  const item = document.createElement("li"), button = text("button", "", "open");
  button.append(text("b", card.clip));
  button.type = "button";
  button.title = card.attribution;
  button.addEventListener("click", async () => {
    const opened = await attempt(() => post("/api/clips", { clip: card.clip }));
    if (opened) location.hash = opened.id;
  });
  item.append(button, text("span", card.text, "quiet small"));
  return item;
}

const lengthOf = ({ frames, rate }) => `${frames} frames, ${clock(frames / rate)}`;
const clock = (seconds) => `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;

async function take(file) {
  if (!file) return;
  by("upload").hidden = false;
  const id = await attempt(() => upload(file, (share) => {
    by("upload-bar").value = share;
    by("upload-text").textContent = share < 1 ? `${Math.round(share * 100)} % of ${file.name}` : "Reading it …";
  }));
  by("upload").hidden = true;
  by("file").value = "";
  if (id) location.hash = id;
}

by("file").addEventListener("change", (event) => take(event.target.files[0]));
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    by("drop").classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) by("drop").classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  by("drop").classList.remove("over");
  take(event.dataTransfer.files[0]);
});

// -- a video ----------------------------------------------------------------------------------------

async function openVideo(id) {
  if (!state.facts) await openStart();
  const video = await attempt(() => get(`/api/videos/${id}`));
  if (!video || video.state !== "ready") {
    if (video) say(video.error ? video.error.message : "The video is not complete.", true);
    await openStart();
    return;
  }
  stop();
  clear();
  clearFilm();
  state.rows.clear();
  state.looks.clear();
  state.clicks.clear();
  Object.assign(state, { video, job: null, frame: 0, playing: 0, chosen: video.targets[0]?.id || null, box: null, answer: null, picked: -1 });
  by("start").hidden = true;
  by("work").hidden = false;
  by("video-name").textContent = by("video-name").title = video.name;
  by("video-facts").textContent = `${video.facts.width} \u00D7 ${video.facts.height}, ${lengthOf(video.facts)}`;
  document.title = `${video.name} - vltrack studio`;
  by("seek").max = by("frame-number").max = String(last());
  by("timeline").style.setProperty("--frames", last() + 1);
  say("");
  reset();
  layout();
  seek(video.targets[0]?.start.frame || 0);
  drawFilm();
  emit("video");
  post(`/api/videos/${id}/warm`).catch(() => {}); // only to be quicker later
  await Promise.all(video.targets.filter((each) => each.revision).map(loadRows));
  emit("rows");
  watch();
}

function route() {
  const id = location.hash.slice(1);
  if (/^[0-9a-f]{32}$/.test(id)) openVideo(id);
  else openStart();
}

// -- the player -------------------------------------------------------------------------------------

function seek(frame) {
  const wanted = Math.max(0, Math.min(last(), Math.round(frame)));
  if (Number.isNaN(wanted)) return;
  if (wanted !== state.frame) state.box = null;
  state.frame = wanted;
  by("seek").value = String(wanted);
  by("seek").setAttribute("aria-valuetext", `frame ${wanted} of ${last()}`);
  if (document.activeElement !== by("frame-number")) by("frame-number").value = String(wanted);
  by("frame-count").textContent = by("frame-count").title = `of ${last()} \u00B7 ${clock(wanted / state.video.facts.rate)}`;
  by("timeline").style.setProperty("--frame", wanted);
  show();
  emit("frame");
}

function touch(frame) {
  by("follow").checked = false;
  seek(frame);
}

let since = 0, from = 0;
function play(way) {
  state.playing = way;
  by("play").textContent = way ? "\u2759\u2759" : "\u25B6\uFE0E";
  by("play").setAttribute("aria-label", way ? "Pause" : "Play");
  if (!way) { emit("frame"); return; }
  by("follow").checked = false;
  if (way > 0 && state.frame >= last()) seek(0);
  [since, from] = [performance.now(), state.frame];
  requestAnimationFrame(tick);
}

// Goes to the frame that is due, or to the latest before it that has come; a slow reader slows the player.
function tick(now) {
  const way = state.playing;
  if (!way || !state.video) return;
  const due = from + way * Math.floor((Math.max(0, now - since) / 1000) * state.video.facts.rate);
  const edge = way > 0 ? last() : 0;
  let next = way > 0 ? Math.min(due, edge) : Math.max(due, edge);
  const beyond = () => (next - state.frame) * way > 0; // a frame may have been sought meanwhile, beyond what is due
  while (beyond() && !loaded(next)) next -= way;
  if (beyond()) seek(next);
  else if (Math.abs(due - state.frame) > 3) {
    [since, from] = [now, state.frame];
    seek(state.frame);
  }
  if (state.frame === edge) play(0);
  else requestAnimationFrame(tick);
}

function doubtful(way) {
  const next = doubtfulFrame(way);
  if (next === undefined) say(`No doubtful frame ${way > 0 ? "after" : "before"} this one.`);
  else touch(next);
}

by("back").addEventListener("click", () => touch(state.frame - 1));
by("forward").addEventListener("click", () => touch(state.frame + 1));
by("play").addEventListener("click", () => play(state.playing ? 0 : 1));
by("seek").addEventListener("input", (event) => touch(Number(event.target.value)));
by("frame-number").addEventListener("change", (event) => touch(Number(event.target.value)));
by("doubt-back").addEventListener("click", () => doubtful(-1));
by("doubt-next").addEventListener("click", () => doubtful(1));
onSeek(touch);
on("touched", () => { by("follow").checked = false; if (state.playing) play(0); });
on("follow", () => { const frame = newest(); if (frame !== null) seek(frame); });
on("seek-answer", () => state.answer && seek(state.answer.frame));
by("follow").addEventListener("change", (event) => { if (event.target.checked) emit("follow"); });

// -- the keyboard -----------------------------------------------------------------------------------

const KEYS = {
  " ": () => play(state.playing ? 0 : 1),
  ArrowLeft: (event) => touch(state.frame - (event.shiftKey ? 10 : 1)),
  ArrowRight: (event) => touch(state.frame + (event.shiftKey ? 10 : 1)),
  j: () => play(-1),
  k: () => play(0),
  l: () => play(1),
  "[": () => doubtful(-1),
  "]": () => doubtful(1),
  n: () => absent(),
  Enter: () => (chosen()?.revision && state.box && !state.answer ? apply() : add()),
  Escape: () => reset(),
};

// The status line tells of the last thing that was done; the next one clears it.
for (const name of ["pointerdown", "keydown"]) document.addEventListener(name, () => say(""), true);

document.addEventListener("keydown", (event) => {
  if (!state.video || document.querySelector("dialog[open]")) return;
  const kind = event.target.tagName, types = event.target.type;
  if ((kind === "INPUT" && !["range", "checkbox"].includes(types)) || kind === "SELECT" || kind === "PRE") return;
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
    step(event.shiftKey ? "redo" : "undo");
    event.preventDefault();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  // A button that has the focus is pressed by space and Enter, and the slider moves by its own arrows.
  if ((kind === "BUTTON" || kind === "SUMMARY" || kind === "A") && (event.key === " " || event.key === "Enter")) return;
  const call = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!call) return;
  event.preventDefault();
  call(event);
});

by("help-button").addEventListener("click", () => by("help").showModal());

// -- the token, and what happened while the page was away -------------------------------------------

onUnauthorized(() => { if (!by("login").open) by("login").showModal(); });
by("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await post("/api/login", { token: by("token").value });
    location.reload();
  } catch (error) {
    by("login-error").textContent = error.message;
  }
});
document.addEventListener("visibilitychange", async () => {
  if (document.visibilityState !== "visible" || !state.video) return;
  await refresh();
  watch();
});
addEventListener("hashchange", route);
by("home").addEventListener("click", (event) => {
  event.preventDefault();
  location.hash = "";
});
route();
