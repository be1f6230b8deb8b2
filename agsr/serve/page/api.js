// The API as the page uses it: upload, events, result. Errors have `code`, `detail` and `retry`.

const TOKEN = "agsr-token";

export class ApiError extends Error {
  constructor(code, detail, status = 0, retry = null) {
    super(detail);
    Object.assign(this, { code, detail, status, retry });
  }
}

export function setToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

function headers() {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

function errorOf(status, text, retry) {
  try {
    const problem = JSON.parse(text);
    return new ApiError(problem.code, problem.detail, status, Number(retry) || null);
  } catch {
    return new ApiError("http", `The server answered ${status}.`, status, Number(retry) || null);
  }
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: headers(), cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("offline", "The server can't be reached.");
  }
  if (!answer.ok) {
    throw errorOf(answer.status, await answer.text(), answer.headers.get("Retry-After"));
  }
  return answer;
}

export async function models() {
  return (await ask("v1/models")).json();
}

/** Send a file; resolves to the job. */
export function submit(file, options, onShare, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `v1/jobs?${new URLSearchParams(options)}`);
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.setRequestHeader("Content-Type", file.type || "application/octet-stream");
    request.upload.onprogress = (event) => event.total && onShare(event.loaded / event.total);
    request.onload = () => {
      if (request.status === 202) resolve(JSON.parse(request.responseText));
      else reject(errorOf(request.status, request.responseText, request.getResponseHeader("Retry-After")));
    };
    request.onerror = () => reject(new ApiError("offline", "The server can't be reached."));
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

/** Call `onJob` with every state of a job until it is finished; returns the last. */
export async function follow(id, onJob, signal) {
  let job = null;
  while (!signal.aborted) {
    try {
      const answer = await ask(`v1/jobs/${id}/events`, { signal });
      for await (const found of eventsOf(answer.body)) onJob((job = found));
    } catch (error) {
      if (error.name === "AbortError" || error.status === 404 || error.status === 401) throw error;
    }
    if (job && !["queued", "running"].includes(job.state)) return job;
    await new Promise((resolve) => setTimeout(resolve, 1000)); // the stream broke: begin again
  }
  throw new DOMException("cancelled", "AbortError");
}

async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
      const data = text.slice(0, end).split("\n").find((line) => line.startsWith("data: "));
      if (data) yield JSON.parse(data.slice(6));
    }
  }
}

export async function result(id, signal) {
  return (await ask(`v1/jobs/${id}/result`, { signal })).blob();
}

export async function remove(id) {
  try {
    await ask(`v1/jobs/${id}`, { method: "DELETE" });
  } catch {
    // it expires
  }
}
