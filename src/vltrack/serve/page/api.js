// Requests to the server: JSON in and out, errors as sentences, uploads in pieces.

const PIECE = 8 << 20;

export class Failure extends Error {
  constructor(status, error) {
    super([error.message, error.hint].filter(Boolean).join(" "));
    this.status = status;
    this.code = error.code;
  }
}

const unauthorized = new Set();
export function onUnauthorized(call) { unauthorized.add(call); }

export async function request(method, path, body, options = {}) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers: body === undefined ? options.headers : { "content-type": "application/json", ...options.headers },
      body: body === undefined ? options.raw : JSON.stringify(body),
      signal: options.signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(0, { message: "The server does not answer.", hint: "Is vltrack studio still running?" });
  }
  if (answer.status === 401) unauthorized.forEach((call) => call());
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    throw new Failure(answer.status, said.error || { message: `The server answered ${answer.status}.`, hint: "" });
  }
  if (answer.status === 204) return null;
  return answer.headers.get("content-type").startsWith("application/json") ? answer.json() : answer.blob();
}

export const get = (path, options) => request("GET", path, undefined, options);
export const post = (path, body) => request("POST", path, body === undefined ? {} : body);
export const patch = (path, body) => request("PATCH", path, body);
export const remove = (path) => request("DELETE", path);

// Sends a file in pieces; one that breaks off is tried again from where the server has it.
export async function upload(file, progress) {
  const { id } = await post("/api/videos", { name: file.name, size: file.size });
  let sent = 0, failures = 0, last = null;
  while (sent < file.size) {
    try {
      last = await request("PUT", `/api/videos/${id}/content`, undefined, {
        raw: file.slice(sent, sent + PIECE), headers: { "upload-offset": String(sent) },
      });
      sent = last.received;
      failures = 0;
    } catch (error) {
      if (![0, 409].includes(error.status) || ++failures > 5) throw error;
      await new Promise((done) => setTimeout(done, 500 * failures));
      sent = (await get(`/api/videos/${id}`)).received;
    }
    progress(sent / file.size);
  }
  return id;
}
