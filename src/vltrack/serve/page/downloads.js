// Files to take away, and the command and the Python lines that do the same.

import { get, post } from "/page/api.js";
import { attempt, on, say, state } from "/page/state.js";

const by = (id) => document.getElementById(id);
const DRAWN = ["mp4", "gif", "png"];
let drawing = null;

export function fillFormats() {
  by("format").replaceChildren(...state.facts.formats.map(({ name, title }) => new Option(title, name)));
  by("format").value = state.facts.formats.some((each) => each.name === "cvat") ? "cvat" : "csv";
}

const tracked = () => (state.video?.targets || []).filter((each) => each.revision).map((each) => each.id);

by("download").addEventListener("click", async () => {
  const form = by("format").value, id = state.video.id, targets = tracked();
  if (!DRAWN.includes(form)) {
    save(`/api/videos/${id}/files/${form}?targets=${targets.join(",")}`);
    return;
  }
  const queued = await attempt(() => post(`/api/videos/${id}/export`, { targets, format: form }));
  if (!queued) return;
  drawing = queued.job;
  by("download-text").textContent = "Drawing …";
  by("download").disabled = true;
  follow(queued.job);
});

async function follow(id) {
  const job = await attempt(() => get(`/api/jobs/${id}`));
  if (drawing !== id) return;
  if (job && (job.state === "queued" || job.state === "running")) {
    by("download-text").textContent = job.total ? `Drawing ${job.done} of ${job.total}` : "Drawing …";
    setTimeout(() => follow(id), 300);
    return;
  }
  drawing = null;
  by("download-text").textContent = "";
  show();
  if (job?.state === "done") save(`/api/jobs/${id}/file`);
  else if (job?.error) say(`${job.error.message} ${job.error.hint}`.trim(), true);
}

// Checks first, so that an error is said here and not saved as a file.
async function save(path) {
  const blob = path.includes("/jobs/") ? null : await attempt(() => get(path));
  if (blob === undefined) return;
  const link = document.createElement("a");
  link.href = path;
  link.download = "";
  link.click();
  say("Saved by the browser.");
}

async function show() {
  const any = tracked().length > 0;
  by("download").disabled = !any || drawing !== null;
  if (!state.video?.targets.length) {
    by("command").textContent = by("python").textContent = "";
    return;
  }
  const lines = await attempt(() => get(`/api/videos/${state.video.id}/recipe?format=${by("format").value}`));
  if (!lines) return;
  by("command").textContent = lines.command;
  by("python").textContent = lines.python;
}

for (const kind of ["command", "python"]) {
  by(`copy-${kind}`).addEventListener("click", async () => {
    await navigator.clipboard.writeText(by(kind).textContent).then(() => say("Copied."), () => say("Select the text and copy it.", true));
  });
}

// What is folded out at the end of the panel is brought into view.
document.querySelectorAll("aside details").forEach((each) => each.addEventListener("toggle", () => each.open && each.scrollIntoView({ block: "nearest" })));
by("format").addEventListener("change", show);
on("targets video", show);
