// From what was dropped or chosen to a job whose files are all at the server.

import * as api from "./api.js";

const AT_ONCE = 3;

// The files of a drop, folders opened. Entries must be taken before the first wait: a drop is gone after it.
export async function filesOfDrop(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) {
    return [...transfer.files];
  }
  return (await Promise.all(entries.map(filesOfEntry))).flat();
}

async function filesOfEntry(entry) {
  if (entry.isFile) {
    return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  }
  const reader = entry.createReader();
  const files = [];
  for (;;) {
    // a reader gives a hundred at a time, and none at the end
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) {
      return files;
    }
    files.push(...(await Promise.all(some.map(filesOfEntry))).flat());
  }
}

// Folders have what is no scan: .DS_Store and its like
export const worthSending = (files) => files.filter((file) => file.size > 0 && !file.name.startsWith("."));

// Sends the files under numbers, not names: names may name a patient. The heatmap will be of the diagnosis, or of the most
// probable one where that is "". Gives the job's id.
export async function send(files, limits, diagnosis, { onJob, onProgress, signal }) {
  const total = files.reduce((sum, file) => sum + file.size, 0);
  if (!files.length) {
    throw new api.RefusedError(0, { error: "there is no file in it" });
  }
  if (files.length > limits.files) {
    throw new api.RefusedError(0, { error: `${files.length} files are too many`, hint: `at most ${limits.files}: one scan` });
  }
  if (total > limits.upload_bytes) {
    throw new api.RefusedError(0, { error: `${inWords(total)} are too much`, hint: `at most ${inWords(limits.upload_bytes)}: one scan` });
  }
  const job = (await api.create(diagnosis)).id;
  onJob(job);
  const sent = new Array(files.length).fill(0);
  let next = 0;
  let done = 0;
  const sendSome = async () => {
    while (next < files.length) {
      const number = next++;
      await api.putFile(job, number, files[number], (bytes) => {
        done += bytes - sent[number];
        sent[number] = bytes;
        onProgress(Math.min(done, total), total);
      }, signal);
    }
  };
  try {
    await Promise.all(Array.from({ length: Math.min(AT_ONCE, files.length) }, sendSome));
    await api.start(job);
  } catch (error) {
    await api.remove(job).catch(() => null);
    throw error;
  }
  return job;
}

export const inWords = (bytes) =>
  bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : bytes < 1e9 ? `${Math.round(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
