// Targets, their tracks, the job that is running, and corrections.

import { get, patch, post, remove } from "/page/api.js";
import { text } from "/page/prompt.js";
import { attempt, chosen, colorOf, emit, live, NOT_VISIBLE, on, rowOf, say, state } from "/page/state.js";

const by = (id) => document.getElementById(id);
const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
let stream = null, renaming = null;

// -- the list ---------------------------------------------------------------------------------------

function list() {
  const all = state.video ? state.video.targets : [];
  if (renaming && document.activeElement === renaming) return;
  const items = all.map(item);
  if (all.length) items.push(newItem());
  by("targets").replaceChildren(...(items.length ? items : [text("li", "None yet.", "empty")]));
  buttons();
}

function item(each) {
  const one = document.createElement("li");
  one.classList.toggle("chosen", each.id === state.chosen);
  const swatch = text("span", "", "swatch");
  swatch.style.background = colorOf(each);
  const pick = document.createElement("button");
  pick.type = "button";
  pick.className = "pick";
  pick.setAttribute("aria-pressed", String(each.id === state.chosen));
  pick.append(text("b", each.name));
  pick.title = each.warnings.length ? `${each.name}: ${each.warnings.join(" ")}` : each.name;
  pick.addEventListener("click", () => choose(each.id));
  const rename = icon("\u270E\uFE0E", `Rename ${each.name}`, () => edit(one, each));
  const drop = icon("\u00D7", `Remove ${each.name}`, async () => {
    await attempt(() => remove(`/api/targets/${each.id}`));
    state.rows.delete(each.id);
    if (state.chosen === each.id) state.chosen = null;
    await refresh();
  });
  one.append(swatch, pick, text("span", stateOf(each), "state"), rename, drop);
  return one;
}

function newItem() {
  const one = document.createElement("li");
  one.classList.toggle("chosen", state.chosen === null);
  const pick = document.createElement("button");
  pick.type = "button";
  pick.className = "pick quiet";
  pick.textContent = "+ another target";
  pick.setAttribute("aria-pressed", String(state.chosen === null));
  pick.addEventListener("click", () => choose(null));
  one.append(pick);
  return one;
}

function stateOf(each) {
  const corrections = each.marks.length - 1;
  if (!each.revision) return `from frame ${each.start.frame}`;
  return corrections > 0 ? count(corrections, "correction") : count(each.rows, "frame");
}

function icon(sign, label, call) {
  const button = text("button", sign, "icon");
  button.type = "button";
  button.title = label;
  button.setAttribute("aria-label", label);
  button.addEventListener("click", call);
  return button;
}

function edit(one, each) {
  const input = Object.assign(document.createElement("input"), { value: each.name, maxLength: 64 });
  input.setAttribute("aria-label", `Name of ${each.name}`);
  one.querySelector(".pick").replaceWith(input);
  renaming = input;
  input.select();
  const end = async (keep) => {
    if (renaming !== input) return;
    renaming = null;
    if (keep && input.value.trim() && input.value !== each.name) {
      await attempt(() => patch(`/api/targets/${each.id}`, { name: input.value.trim() }));
    }
    await refresh();
  };
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === "Escape") end(event.key === "Enter");
  });
  input.addEventListener("blur", () => end(true));
}

export function choose(id) {
  state.chosen = id;
  state.box = null;
  if (id) state.answer = null;
  emit("targets", "box", "answer");
}

// -- rows -------------------------------------------------------------------------------------------

export async function refresh() {
  const id = state.video.id, seen = await attempt(() => get(`/api/videos/${id}`));
  if (!seen || state.video?.id !== id) return;
  const before = new Map(state.video.targets.map((each) => [each.id, each.revision]));
  state.video = seen;
  if (state.chosen && !chosen()) state.chosen = null;
  const changed = seen.targets.filter((each) => each.revision && (before.get(each.id) !== each.revision || !state.looks.has(each.id)));
  await Promise.all(changed.map(loadRows));
  emit("targets", "rows");
}

export async function loadRows(each) {
  const found = await attempt(() => get(`/api/targets/${each.id}/rows`));
  if (!found) return;
  state.rows.set(each.id, new Map(found.rows.map(([frame, ...row]) => [frame, row])));
  state.looks.set(each.id, found.review);
  state.clicks.set(each.id, found.interpolation);
}

// -- jobs -------------------------------------------------------------------------------------------

export async function track() {
  const all = state.video.targets, waiting = all.filter((each) => !each.revision);
  const wanted = waiting.length ? waiting : [chosen()].filter(Boolean);
  if (!wanted.length) return;
  const body = { targets: wanted.map((each) => each.id), model: by("model").value };
  const queued = await attempt(() => post(`/api/videos/${state.video.id}/track`, body));
  if (!queued) return;
  for (const each of wanted) {
    state.rows.set(each.id, new Map());
    state.looks.set(each.id, []);
  }
  say("");
  state.chosen = wanted[0].id;
  by("follow").checked = true;
  emit("targets", "rows");
  await refreshJobs();
}

async function refreshJobs() {
  const seen = await attempt(() => get(`/api/videos/${state.video.id}`));
  if (seen && seen.id === state.video?.id) state.video = seen;
  watch();
}

// Shows the first job that is not finished, else the last one that was broken off.
export function watch() {
  const jobs = state.video?.jobs || [];
  const next = jobs.find(live);
  const left = jobs.filter((job) => job.state !== "done").at(-1);
  const broken = left && left.id === jobs.at(-1)?.id ? left : null;
  if (next && state.job?.id === next.id && stream) return;
  stop();
  state.job = next || broken;
  if (next) listen(next);
  showJob();
}

export function stop() {
  stream?.close();
  stream = null;
}

function listen(job) {
  const video = state.video.id;
  let from = 0;
  stream = new EventSource(`/api/jobs/${job.id}/events`);
  const mine = stream;
  stream.onmessage = async ({ data }) => {
    if (mine !== stream) return;
    const event = JSON.parse(data);
    Object.assign(job, event.job);
    for (const [frame, rows] of event.rows) {
      from = Math.max(from, frame);
      for (const [id, row] of Object.entries(rows)) {
        if (!state.rows.has(id)) state.rows.set(id, new Map());
        state.rows.get(id).set(frame, row);
      }
    }
    if (event.rows.length) {
      emit("rows");
      if (by("follow").checked) emit("follow");
    }
    showJob();
    if (live(job)) return;
    stop();
    if (state.video?.id !== video) return;
    if (job.error) say([job.error.message, job.error.hint].filter(Boolean).join(" "), true);
    else if (job.state === "done") say(doneText(job));
    emit("job-done");
    await refresh();
    watch();
  };
  stream.addEventListener("gone", () => { if (mine === stream) stop(); });
}

export const newest = () => {
  const names = state.job?.request?.targets || [];
  const all = names.flatMap((id) => [...(state.rows.get(id)?.keys() || [])].slice(-1));
  return all.length ? Math.max(...all) : null;
};

function doneText(job) {
  const said = { track: "Tracked.", correct: gone || "Corrected.", draw: "Drawn." };
  const warning = (job.warnings || [])[0];
  return warning ? `${said[job.kind].slice(0, -1)}, but: ${warning}` : said[job.kind];
}

function showJob() {
  const job = state.job, bar = by("job-bar");
  const names = { track: "Tracking", correct: "Correcting", draw: "Drawing" };
  by("cancel").disabled = !live(job);
  by("cancel").hidden = !(by("resume").hidden = !(job && ["interrupted", "canceled", "failed"].includes(job.state) && job.kind === "track"));
  bar.value = job && job.total ? Math.min(1, job.done / job.total) : job?.state === "done" ? 1 : 0;
  let said = "";
  if (job?.state === "queued") said = `${names[job.kind]}: waiting for its turn`;
  else if (job?.state === "running" && !job.done) said = `${names[job.kind]}: starting`;
  else if (job?.state === "running") said = `${job.done} of ${job.total ?? "?"} frames \u00B7 ${job.pace || ""}`;
  else if (job) said = `${names[job.kind]}: ${job.state}${job.total ? `, ${job.done} of ${job.total} frames` : ""}`;
  by("job-text").textContent = said;
  by("job").dataset.state = job ? job.state : "";
  buttons();
}

by("track").addEventListener("click", track);
by("cancel").addEventListener("click", () => attempt(() => post(`/api/jobs/${state.job.id}/cancel`)));
by("resume").addEventListener("click", async () => {
  await attempt(() => post(`/api/jobs/${state.job.id}/resume`));
  await refreshJobs();
});

// -- corrections ------------------------------------------------------------------------------------

async function mark(body) {
  const each = chosen();
  if (!each?.revision) return;
  const done = await attempt(() => post(`/api/targets/${each.id}/marks`, { frame: state.frame, ...body }));
  if (!done) return;
  const next = each.marks.map((one) => one.frame).filter((frame) => frame > state.frame).sort((a, b) => a - b)[0];
  gone = body.absent ? `Not here from frame ${state.frame} ${next === undefined ? "to the end" : `up to the correction in frame ${next}`}.` : "";
  // Shown at once; the job brings the rows around it.
  if (body.box) state.rows.get(each.id)?.set(state.frame, [...body.box, 1, true, "ok"]);
  state.box = null;
  emit("box", "rows");
  await refreshJobs();
}

let gone = "";  // what the last correction took away
export const apply = () => state.box && mark({ box: state.box });
export const absent = () => mark({ absent: true });

export async function step(way) {
  const each = chosen();
  if (!each || !each[way]) return;
  await attempt(() => post(`/api/targets/${each.id}/${way}`));
  await refresh();
  say(way === "undo" ? "Undone." : "Done again.");
}

by("apply").addEventListener("click", apply);
by("absent").addEventListener("click", absent);
by("unmark").addEventListener("click", () => mark({ remove: true }));
by("undo").addEventListener("click", () => step("undo"));
by("redo").addEventListener("click", () => step("redo"));

function buttons() {
  const each = chosen(), tracked = Boolean(each?.revision), all = state.video?.targets || [];
  const waiting = all.filter((one) => !one.revision).length, busy = live(state.job);
  by("track").disabled = busy || !(waiting || each);
  by("track").textContent = waiting > 1 ? `Track ${waiting} targets` : waiting || !tracked ? "Track" : "Track again";
  by("track").classList.toggle("primary", waiting > 0 || !tracked);
  by("track").title = tracked && !waiting ? `Track ${each.name} again from frame ${each.start.frame}, without its other marks; undo brings them back` : "";
  const row = each && rowOf(each.id, state.frame);
  by("correct-name").textContent = tracked ? each.name : "";
  by("apply").disabled = !(tracked && state.box && row);
  by("absent").disabled = !(tracked && row);
  by("unmark").disabled = !(tracked && each.marks.length > 1 && each.marks.some((one) => one.frame === state.frame));
  by("undo").disabled = !each?.undo;
  by("redo").disabled = !each?.redo;
  by("doubt-back").disabled = doubtfulFrame(-1) === undefined;
  by("doubt-next").disabled = doubtfulFrame(1) === undefined;
  by("here").textContent = hereText(each, row);
  const clicks = tracked && state.clicks.get(each.id);
  by("correct-count").textContent = clicks
    ? `${count(each.marks.length - 1, "correction")}; linear interpolation between hand-drawn boxes would need ${clicks}.` : "";
}

// What the frame shows of the target that is chosen, and what can be done about it.
function hereText(each, row) {
  if (!each?.revision) return "Drag the box where it is wrong and apply it: only the frames up to the next corrections change.";
  if (!row) return `No row in frame ${state.frame}: it was not tracked so far.`;
  const mark = each.marks.filter((one) => one.frame <= state.frame).sort((a, b) => a.frame - b.frame).at(-1);
  if (mark?.absent) return `Not here from frame ${mark.frame} on, set by hand. Drag a box where it is back.`;
  if (mark?.frame === state.frame) return `Frame ${mark.frame} was set by hand. Drag the box to change it.`;
  if (row[6] === "waiting") return "No box yet: the target comes in a later frame.";
  return row[5] ? `Score ${row[4].toFixed(2)} in frame ${state.frame}. If the box is wrong, drag it and apply it.` : NOT_VISIBLE;
}

export function doubtfulFrame(way) {
  const looks = state.looks.get(state.chosen) || [];
  return way > 0 ? looks.find((frame) => frame > state.frame) : looks.findLast((frame) => frame < state.frame);
}

on("targets video", list);
on("box frame rows", buttons);
