// What the page shows, in one object, and who wants to know of changes.

export const COLORS = ["#40e080", "#ffb020", "#50b0ff", "#ff6090", "#be82ff", "#f0e646", "#40d8d8", "#ff8048"];
export const colorOf = (target) => COLORS[target.color % COLORS.length];

export const state = {
  facts: null, // of the server: clips, models, formats
  video: null, // facts of the open video, with targets and jobs
  frame: 0,
  chosen: null, // id of the target that is corrected; null: a new one is named
  rows: new Map(), // id of a target -> Map of frame -> [x, y, w, h, score, visible, status, doubt]
  looks: new Map(), // id of a target -> frames that deserve a look, rising
  clicks: new Map(), // id of a target -> boxes that linear interpolation would need
  box: null, // drawn and not applied
  answer: null, // what a sentence names: {frame, text, boxes, ...}
  picked: -1, // which of its boxes
  job: null, // the job that is shown
  playing: 0, // frames a tick: 1, 0, -1
};

export const NOT_VISIBLE = "Not visible: the tracker is not sure enough that it is there. The dashed box is its guess.";

const listeners = new Map();

export function on(names, call) {
  for (const name of names.split(" ")) {
    if (!listeners.has(name)) listeners.set(name, []);
    listeners.get(name).push(call);
  }
}

export function emit(...names) {
  new Set(names.flatMap((name) => listeners.get(name) || [])).forEach((call) => call());
}

export const target = (id) => state.video?.targets.find((each) => each.id === id) || null;
export const chosen = () => target(state.chosen);
export const rowOf = (id, frame) => state.rows.get(id)?.get(frame);
// Whether a row has a box to show: where a person said "not here" it only holds the last one.
export const hasBox = (row) => row && row[6] !== "waiting" && (row[5] || row[4] > 0);
export const last = () => Math.max(0, (state.video?.facts?.frames || 1) - 1);
export const live = (job) => job && (job.state === "queued" || job.state === "running");

const statusLine = document.getElementById("status");
export function say(text, bad = false) {
  statusLine.textContent = text;
  statusLine.title = text;
  statusLine.classList.toggle("bad", bad);
}

// Runs what a person asked for; what goes wrong is said, not thrown.
export async function attempt(call) {
  try {
    return await call();
  } catch (error) {
    if (error.name !== "AbortError") say(error.message, true);
    if (error.status === undefined && error.name !== "AbortError") console.error(error);
    return undefined;
  }
}
