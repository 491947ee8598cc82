// The page: which of its parts is seen, and what is asked of the server. The address holds the job: #id.

import * as api from "./api.js";
import * as result from "./result.js";
import { filesOfDrop, inWords, send, worthSending } from "./upload.js";

const POLL = 1000;
const PARTS = ["send", "wait", "failure", "result"];

const element = (id) => document.getElementById(id);

let service = null;
let turn = 0; // of what is waited for now; what was asked before is no longer listened to

function see(part, focus = true) {
  PARTS.forEach((name) => (element(name).hidden = name !== part));
  if (focus && part !== "send") {
    element(`${part}-title`).focus({ preventScroll: true });
    window.scrollTo({ top: 0 });
  }
}

function say(text, done = null, of = null) {
  if (element("status").textContent !== text) {
    element("status").textContent = text; // only what is new is read out
  }
  const bar = element("progress");
  if (done === null) {
    bar.removeAttribute("value");
  } else {
    [bar.max, bar.value] = [of, done];
  }
}

function fail(error, job = null) {
  element("failure-text").textContent = error.message;
  element("failure-hint").textContent = error.hint || "";
  element("failure-quality").hidden = !job;
  if (job) {
    element("failure-quality").href = api.resultPath(job, "quality.html");
  }
  see("failure");
}

async function upload(files) {
  const mine = ++turn;
  const stopping = new AbortController();
  see("wait");
  say("Sending");
  element("come-back").hidden = true;
  element("stop").onclick = () => stopping.abort();
  try {
    const job = await send(worthSending(files), service.limits, element("diagnosis").value, {
      onJob: () => say("Sending", 0, 1),
      onProgress: (done, total) => {
        // in tens, so that a screen reader is not kept talking
        say(`Sending: ${10 * Math.floor((10 * done) / total)} % of ${inWords(total)}`, done, total);
      },
      signal: stopping.signal,
    });
    history.pushState(null, "", `#${job}`);
    await follow(job, mine);
  } catch (error) {
    if (stopping.signal.aborted) {
      start();
    } else if (turn === mine) {
      fail(error);
    }
  }
}

async function follow(job, mine) {
  see("wait");
  element("come-back").hidden = false;
  element("stop").onclick = () => remove(job);
  while (turn === mine) {
    const status = await api.show(job);
    if (turn !== mine) {
      return;
    }
    if (status.state === "done") {
      await finish(job, status);
      return;
    }
    if (status.state === "failed") {
      fail({ message: status.error, hint: status.hint }, status.results.includes("quality.html") ? job : null);
      return;
    }
    if (status.state === "queued") {
      say(status.ahead ? `Waiting: ${status.ahead} before this one` : "Waiting");
    } else if (status.state === "running") {
      say(status.step ? `Step ${status.step} of ${status.steps}: ${status.name}` : "Beginning", status.step ? status.step - 0.5 : null, status.steps);
    } else {
      fail({ message: "the upload was broken off", hint: "send the CT again" });
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, POLL));
  }
}

async function finish(job, status) {
  see("result");
  try {
    await result.show(job, status);
  } catch (error) {
    fail(error);
    return;
  }
  element("remove").onclick = () => remove(job);
}

async function remove(job) {
  try {
    await api.remove(job);
    start();
  } catch (error) {
    fail(error);
  }
}

function start() {
  turn++;
  history.replaceState(null, "", location.pathname);
  result.clear();
  ["files", "folder"].forEach((id) => (element(id).value = ""));
  see("send");
  element("files").focus();
}

function resume() {
  const job = location.hash.slice(1);
  const mine = ++turn;
  result.clear();
  if (/^[0-9a-f]{32}$/.test(job)) {
    follow(job, mine).catch((error) => {
      if (turn === mine) {
        fail(error.status === 404 ? { message: "this CT is not here any more", hint: "results are removed after a while" } : error);
      }
    });
  } else {
    see("send", false);
  }
}

function describe() {
  Object.entries(result.NAMES).forEach(([label, name]) => element("diagnosis").add(new Option(name, label)));
  const { model, operating_point: point, limits, version } = service;
  element("version").textContent = version;
  element("limits").textContent =
    `One scan of the chest, ${limits.least_slices} slices or more, ${inWords(limits.upload_bytes)} at most. Names of files stay with you. ` +
    `Everything is removed after ${hours(limits.keep_seconds)}, or when you say so.`;
  element("model").textContent =
    `Model ${model.sha256.slice(0, 12)}, ` +
    (model.trained ? "" : "not trained, so that its answers mean nothing, ") +
    (point ? `evaluated on ${point.cases} cases.` : "not calibrated: no evaluation of it was given.");
}

function hours(seconds) {
  return seconds < 3600 ? `${Math.max(1, Math.round(seconds / 60))} minutes` : `${Number((seconds / 3600).toPrecision(3))} hours`;
}

const drop = element("drop");
["dragenter", "dragover"].forEach((name) => document.addEventListener(name, (event) => {
  event.preventDefault();
  drop.classList.add("over");
}));
["dragleave", "drop"].forEach((name) => document.addEventListener(name, (event) => {
  event.preventDefault();
  drop.classList.remove("over");
}));
document.addEventListener("drop", async (event) => {
  if (element("send").hidden) {
    return;
  }
  try {
    await upload(await filesOfDrop(event.dataTransfer));
  } catch (error) {
    fail(error); // a file that the browser may not read
  }
});
["files", "folder"].forEach((id) => element(id).addEventListener("change", ({ target }) => {
  if (target.files.length) {
    upload([...target.files]);
  }
}));
document.querySelectorAll(".again").forEach((button) => button.addEventListener("click", start));
window.addEventListener("popstate", resume);

try {
  service = await api.service();
  describe();
  element("sign-out").hidden = !service.token_needed;
  resume();
} catch (error) {
  fail(error);
}
