// The JSON API, as functions. A RefusedError says what the server said.

export class RefusedError extends Error {
  constructor(status, said) {
    super(said.error || `the server answered with ${status}`);
    this.status = status;
    this.hint = said.hint || "";
  }
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new RefusedError(0, { error: "the server cannot be reached", hint: "is it still running?" });
  }
  if (answer.status === 401) {
    location.assign("/sign-in");
  }
  if (!answer.ok) {
    throw new RefusedError(answer.status, await answer.json().catch(() => ({})));
  }
  return answer.status === 204 ? null : answer.json();
}

export const service = () => ask("/api/service");
export const create = (diagnosis) => ask(diagnosis ? `/api/jobs?diagnosis=${diagnosis}` : "/api/jobs", { method: "POST" });
export const show = (job) => ask(`/api/jobs/${job}`);
export const start = (job) => ask(`/api/jobs/${job}/start`, { method: "POST" });
export const remove = (job) => ask(`/api/jobs/${job}`, { method: "DELETE" });
export const resultPath = (job, name) => `/api/jobs/${job}/results/${name}`;
export const result = (job) => ask(resultPath(job, "result.json"));

// fetch tells nothing of how far an upload is; XMLHttpRequest does
export function putFile(job, number, file, onBytes, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", `/api/jobs/${job}/files/${number}`);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.onprogress = (event) => onBytes(event.loaded);
    request.onload = () => {
      if (request.status === 204) {
        onBytes(file.size);
        resolve();
        return;
      }
      let said = {};
      try {
        said = JSON.parse(request.responseText);
      } catch {
        // not from the page itself, but from a proxy before it
      }
      reject(new RefusedError(request.status, said));
    };
    request.onerror = () => reject(new RefusedError(0, { error: "the upload broke off", hint: "is the server still running?" }));
    request.onabort = () => reject(new RefusedError(0, { error: "stopped" }));
    signal.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}
