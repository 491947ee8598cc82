// The result on the page. Whatever comes from a file becomes text, never markup.

import * as api from "./api.js";
import { Viewer, canShow } from "./viewer.js";

export const NAMES = {
  healthy: "Healthy lungs",
  covid: "COVID-19",
  other_viral: "Other viral pneumonia",
  bacterial: "Bacterial pneumonia",
};

const DOWNLOADS = {
  "report.html": "Report (HTML)",
  "heatmap.nii.gz": "Heatmap (NIfTI)",
  "heatmap-dicom.zip": "Heatmap (DICOM, names the patient)",
  "ct.nii.gz": "CT as shown (NIfTI)",
  "result.json": "Figures (JSON)",
};

const element = (id) => document.getElementById(id);

function make(tag, text = "", attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  return made;
}

let viewer = null;

export async function show(job, status) {
  const result = await api.result(job);
  showProbabilities(result);
  showTrust(result);
  showRegions(result.regions);
  showQuality(result.quality);
  element("quality-report").href = api.resultPath(job, "quality.html");
  const links = Object.entries(DOWNLOADS)
    .filter(([name]) => status.results.includes(name))
    .map(([name, text]) => make("a", text, { class: "button", href: `${api.resultPath(job, name)}?download`, download: name }));
  element("downloads").replaceChildren(...links);
  element("no-dicom").hidden = !result.no_dicom;
  element("no-dicom").textContent = `No DICOM objects: ${result.no_dicom}.`;
  element("expires").textContent = `Removed by itself ${new Date(status.expires * 1000).toLocaleString()}.`;
  element("explained").textContent =
    `Grad-CAM for: ${NAMES[result.explained]}, probability ${result.probabilities[result.explained].toFixed(3)}. Relative to its own maximum: where the evidence lies, not how ill the lung is.`;
  await showPictures(job, result);
}

export function clear() {
  viewer?.close();
  viewer = null;
  // niivue keeps its listeners on the canvas: a new one for the next CT
  const old = element("canvas");
  old.replaceWith(old.cloneNode(true));
}

function showProbabilities({ probabilities, lowest, highest, calibrated }) {
  const labels = Object.keys(probabilities).sort((a, b) => probabilities[b] - probabilities[a]);
  document.querySelectorAll(".calibrated").forEach((cell) => (cell.hidden = !calibrated));
  element("probabilities").tBodies[0].replaceChildren(
    ...labels.map((label, index) => {
      const row = make("tr", "", index === 0 ? { class: "first" } : {});
      const bar = make("div", "", { class: "bar" });
      const share = make("i");
      const spread = make("b");
      share.style.width = `${100 * probabilities[label]}%`;
      spread.style.left = `${100 * lowest[label]}%`;
      spread.style.width = `${100 * (highest[label] - lowest[label])}%`;
      bar.append(share, spread);
      const chart = make("td", "", { class: "chart", "aria-hidden": "true" });
      chart.append(bar);
      const number = make("td", probabilities[label].toFixed(3), { class: "number" });
      number.append(make("small", `${lowest[label].toFixed(3)} to ${highest[label].toFixed(3)}`));
      row.append(make("th", NAMES[label], { scope: "row" }), chart, number);
      if (calibrated) {
        row.append(make("td", calibrated[label].toFixed(3), { class: "number" }));
      }
      return row;
    }),
  );
}

function showTrust({ samplings, operating_point: point, called }) {
  const lines = [];
  if (point) {
    lines.push(
      make("li", `COVID-19 ${called ? "reaches" : "does not reach"} the operating point of ${point.threshold.toFixed(3)} (${point.chosen}).`, { class: "called" }),
      make("li", `There, on ${point.cases} test cases (${point.dataset}): sensitivity ${interval(point.sensitivity)}, specificity ${interval(point.specificity)}; AUC ${interval(point.auc)}.`),
    );
    const errors = point.ece === null ? "" : ` Expected calibration error ${point.ece.toFixed(3)}, Brier score ${point.brier.toFixed(3)}.`;
    lines.push(
      make("li", point.temperature === null
        ? `Not calibrated: the evaluation had no validation cases.${errors}`
        : `Calibrated at temperature ${point.temperature.toFixed(2)}, fitted on validation cases; the operating point is of the probability before.${errors}`),
    );
  } else {
    lines.push(make("li", "Not calibrated, and without an operating point: no evaluation of this model was given to the server."));
  }
  lines.push(make("li", `Means of ${samplings} samplings of 16 slices, with the lowest and the highest of them.`, { class: "muted" }));
  element("trust").replaceChildren(...lines);
}

function interval({ value, low, high }) {
  if (value === null) {
    return "unknown";
  }
  return low === null || high === null ? value.toFixed(3) : `${value.toFixed(3)} [${low.toFixed(3)}, ${high.toFixed(3)}]`;
}

function showRegions(regions) {
  element("regions").hidden = !regions.length;
  element("no-regions").hidden = Boolean(regions.length);
  element("regions").tBodies[0].replaceChildren(
    ...regions.map((region) => {
      const row = make("tr");
      const go = make("button", "Show", { type: "button", class: "link", "aria-label": `Show the region on slice ${region.slice}, ${region.side}` });
      go.addEventListener("click", () => {
        viewer?.place(region.position_mm);
        element("view").scrollIntoView({ block: "start" });
      });
      const last = make("td");
      last.append(go);
      go.hidden = !canShow();
      row.append(
        make("th", region.side, { scope: "row" }),
        make("td", region.slice, { class: "number" }),
        make("td", region.volume_ml.toFixed(1), { class: "number" }),
        make("td", region.peak.toFixed(2), { class: "number" }),
        last,
      );
      return row;
    }),
  );
}

function showQuality(quality) {
  const facts = [
    ["Slices", quality.slices],
    ["Spacing as the network sees it", `${quality.spacing_mm.map((side) => Number(side.toFixed(2))).join(" × ")} mm`],
    ["Interpolated slices", quality.interpolated],
    ["Unreadable files", quality.unreadable],
    ...Object.entries(quality.tags).map(([name, value]) => [name, typeof value === "number" ? Number(value.toPrecision(5)) : value]),
    ...quality.not_used.map((series) => [`Series ${series.series}, not used`, `${series.slices} slices: ${series.reason}`]),
  ];
  const rows = facts.filter(([, value]) => value !== null).map(([name, value]) => {
    const row = make("div");
    row.append(make("dt", name), make("dd", value));
    return row;
  });
  const flags = make("div");
  const values = make("dd", quality.flags.length ? "" : "none");
  values.append(...quality.flags.map((flag) => make("span", flag, { class: "flag" })));
  flags.append(make("dt", "Flags"), values);
  element("quality").replaceChildren(flags, ...rows);
}

async function showPictures(job, result) {
  const pictures = canShow();
  document.querySelector(".viewer").hidden = !pictures;
  element("montage").hidden = pictures;
  if (!pictures) {
    const image = element("montage").querySelector("img");
    image.src = api.resultPath(job, "montage.png");
    image.alt = `Slices of the CT under the heatmap of ${NAMES[result.explained]}`;
    return;
  }
  const canvas = element("canvas");
  const slider = element("slice");
  const told = ({ slice, hu, heat }) => {
    slider.value = slice;
    slider.setAttribute("aria-valuetext", `${slice} of ${viewer.slices}, from the feet`);
    element("place").textContent =
      `Slice ${slice} of ${viewer.slices} from the feet; at the cross ${Math.round(hu)} HU, heatmap ${heat.toFixed(2)}`;
  };
  viewer = new Viewer(canvas, told);
  element("place").textContent = "Loading the CT…";
  await viewer.open(api.resultPath(job, "ct.nii.gz"), api.resultPath(job, "overlay.nii.gz"));
  element("controls").reset();
  slider.max = viewer.slices;
  viewer.least(element("least").value / 100);
  if (result.regions.length) {
    viewer.place(result.regions[0].position_mm);
  } else {
    viewer.slice(Math.ceil(viewer.slices / 2));
  }
  canvas.dataset.ready = "yes";
}

element("slice").addEventListener("input", (event) => viewer.slice(Number(event.target.value)));
element("least").addEventListener("input", ({ target }) => {
  target.setAttribute("aria-valuetext", `${target.value} % of the maximum`);
  viewer.least(target.value / 100);
});
element("opacity").addEventListener("input", (event) => viewer.opacity(event.target.value / 100));
element("controls").addEventListener("change", ({ target }) => {
  if (target.name === "window") {
    viewer.window(...target.value.split(",").map(Number));
  } else if (target.name === "plane") {
    viewer.plane(target.value);
  }
});
element("controls").addEventListener("submit", (event) => event.preventDefault());
