// Naming a target: a sentence with its guess and rivals, a box, or both.

import { get, post } from "/page/api.js";
import { attempt, chosen, emit, hasBox, on, rowOf, say, state } from "/page/state.js";

const by = (id) => document.getElementById(id);
const fields = ["x", "y", "w", "h"].map((side) => by(`box-${side}`));
let asked = null;

export function reset() {
  state.box = state.answer = null;
  state.picked = -1;
  asked?.abort();
  emit("box", "answer");
}

by("prompt").addEventListener("submit", (event) => {
  event.preventDefault();
  find();
});

async function find() {
  const text = by("sentence").value.trim(), frame = state.frame, video = state.video.id;
  if (!text) { say("Type what to find.", true); return; }
  reset();
  by("verdict").textContent = `Looking for "${text}" …`;
  by("find").disabled = true;
  const found = await attempt(() => post(`/api/videos/${video}/find`, { frame, text }));
  by("find").disabled = false;
  if (!found || state.video?.id !== video) { showAnswer(); return; }
  state.box = null;
  state.answer = { ...found, frame, text };
  state.picked = found.fits ? 0 : -1;
  state.chosen = null;
  emit("answer", "box", "targets");
}

function showAnswer() {
  const found = state.answer;
  const verdict = by("verdict");
  by("answer").scrollTop = 0;
  verdict.className = `small ${!found ? "quiet" : !found.fits ? "bad" : found.ambiguous ? "doubt" : ""}`;
  if (!found) {
    verdict.textContent = "Type a sentence, or drag a box in the frame, or both. Find shows the guess with its rivals, and what each word does.";
    by("candidates").replaceChildren();
    by("words-say").textContent = "";
    return;
  }
  const nothing = "Probably not in this frame. The nearest things, if one of them is meant, click it:";
  const several = `${found.boxes.length} things may be meant. Click the right one.`;
  verdict.textContent = !found.fits ? nothing : found.ambiguous ? several : `Found in frame ${found.frame}.`;
  by("candidates").replaceChildren(...found.boxes.map(candidate));
  by("words-say").textContent = found.fits ? sentenceOf(found) : found.warnings.join(" ");
}

function candidate(one, number) {
  const item = document.createElement("li"), button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-pressed", String(number === state.picked && !state.box));
  const share = document.createElement("span"), bar = document.createElement("i");
  share.className = "share";
  bar.style.width = `${Math.round(one.score * 100)}%`;
  share.append(bar);
  const what = [one.label, ...one.words.filter((each) => each !== one.label)].filter(Boolean).join(", ");
  button.append(text("span", String(number + 1)), share, text("span", percent(one.score), "percent"), text("span", what, "what"));
  button.addEventListener("click", () => {
    state.picked = number;
    state.box = null;
    emit("seek-answer", "answer", "box");
  });
  item.append(button);
  return item;
}

// Words that name nothing: what leaving them out changes is chance.
const FILLERS = new Set("a an the this that of in on at with and or is are was to his her its their who which".split(" "));
const telling = (effect) => !FILLERS.has(effect.word.toLowerCase());

function sentenceOf(found) {
  const parts = [], words = found.words.filter(telling);
  for (const [kind, one, several] of [["decides", "decides", "decide"], ["helps", "helps", "help"], ["hurts", "makes it less sure", "make it less sure"]]) {
    const these = words.filter((each) => each.kind === kind).map((each) => `"${each.word}"${signed(each.change)}`);
    if (these.length) parts.push(`${these.join(", ")} ${these.length === 1 ? one : several}`);
  }
  const idle = words.filter((each) => each.kind === "nothing");
  if (idle.length) parts.push(idle.length === 1 ? `"${idle[0].word}" changes nothing` : parts.length ? "The other words change nothing" : "No word changes much");
  const apart = found.ambiguous ? found.boxes[0].words : [];
  if (apart.length) parts.push(`"${apart.join('", "')}" would tell the first apart`);
  return [...parts.map((part) => `${part}.`), ...found.warnings].join(" ");
}

const percent = (share) => `${Math.round(share * 100)} %`;
const signed = (change) => (Math.abs(change) < 0.005 ? "" : ` (${change > 0 ? "+" : "\u2212"}${percent(Math.abs(change))})`);

export function text(kind, content, name = "") {
  const element = document.createElement(kind);
  element.textContent = content;
  if (name) element.className = name;
  return element;
}

// -- the box ----------------------------------------------------------------------------------------

function current() {
  if (state.box) return state.box;
  if (state.answer?.frame === state.frame && state.picked >= 0) return state.answer.boxes[state.picked].box;
  const row = rowOf(state.chosen, state.frame);
  return hasBox(row) ? row : null;
}

export function showBox() {
  const box = current();
  fields.forEach((field, n) => {
    if (document.activeElement !== field) field.value = box ? String(Math.round(box[n] * 100) / 100) : "";
  });
  const start = startOf();
  by("add").disabled = !start;
  by("clear").disabled = !state.box && !state.answer;
  by("add").classList.toggle("primary", Boolean(start) && !chosen()?.revision);
  by("add").textContent = start && !start.box ? "Add, wait for it" : chosen()?.revision ? "Add as new target" : "Add target";
}

for (const field of fields) {
  field.addEventListener("input", () => {
    const box = fields.map((each) => Number.parseFloat(each.value));
    if (box.every(Number.isFinite) && box[2] > 0 && box[3] > 0) {
      state.box = box;
      emit("box");
    }
  });
}

// What Add would start a target with.
function startOf() {
  if (!state.video?.facts) return null;
  const sentence = state.answer?.text || "", here = state.answer?.frame === state.frame;
  const start = { frame: state.frame };
  if (sentence && here) start.text = sentence;
  if (state.box) return { ...start, box: state.box };
  if (!state.answer || !here) return null;
  return state.picked >= 0 ? { ...start, box: state.answer.boxes[state.picked].box } : start;
}

export async function add() {
  const start = startOf();
  if (!start) return;
  const made = await attempt(() => post(`/api/videos/${state.video.id}/targets`, { start }));
  if (!made) return;
  state.video = await get(`/api/videos/${state.video.id}`);
  by("sentence").value = "";
  state.chosen = made.id;
  reset();
  emit("targets");
  say(`Added "${made.name}". Press Track.`);
}

by("add").addEventListener("click", add);
by("clear").addEventListener("click", reset);
on("answer", showAnswer);
on("box answer frame targets rows", showBox);
