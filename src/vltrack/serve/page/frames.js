// Frames of the open video: fetched by number, a few kept, those around the shown one fetched ahead.

import { request } from "/page/api.js";
import { last, state } from "/page/state.js";

const KEPT = 60, AT_ONCE = 4;
const images = new Map();
let loading = new Map(), video = null, width = 0;

// The width that is worth fetching for a stage of so many device pixels.
export function setWidth(pixels) {
  const most = state.video.facts.width;
  const wanted = Math.min(most, Math.ceil(pixels / 320) * 320);
  const chosen = wanted >= most ? 0 : wanted;
  if (chosen === width && video === state.video.id) return;
  width = chosen;
  video = state.video.id;
  clear();
}

export function clear() {
  images.forEach((image) => image.close());
  images.clear();
  loading.forEach((each) => each.abort.abort());
  loading = new Map();
}

export const loaded = (frame) => images.get(frame);

export async function fetchFrame(frame) {
  if (images.has(frame)) return images.get(frame);
  if (!loading.has(frame)) {
    const abort = new AbortController();
    const entry = { abort, promise: load(frame, abort.signal) };
    entry.promise.catch(() => {}).finally(() => { if (loading.get(frame) === entry) loading.delete(frame); });
    loading.set(frame, entry);
  }
  return loading.get(frame).promise;
}

async function load(frame, signal) {
  const query = width ? `?width=${width}` : "";
  const blob = await request("GET", `/api/videos/${video}/frames/${frame}${query}`, undefined, { signal });
  const image = await createImageBitmap(blob);
  if (signal.aborted) throw new DOMException("", "AbortError");
  images.set(frame, image);
  if (images.size > KEPT) {
    const far = [...images.keys()].sort((a, b) => Math.abs(b - state.frame) - Math.abs(a - state.frame))[0];
    images.get(far).close();
    images.delete(far);
  }
  return image;
}

// Forgets requests that are of no use any more, and asks for the next frames in the direction of play.
export function ahead(frame, step) {
  for (const [number, entry] of loading) if (Math.abs(number - frame) > 12) entry.abort.abort();
  const direction = step || 1, count = step ? 8 : 2;
  for (let n = 1; n <= count && loading.size < AT_ONCE; n++) {
    const next = frame + n * direction;
    if (next >= 0 && next <= last()) fetchFrame(next).catch(() => {});
  }
}
