// The page: files come in, wait, are upscaled one after the other, and can be compared and saved.

import * as api from "./api.js";
import { Viewer } from "./viewer.js";

const AT_ONCE = 2; // uploads, so that the next is there when the server is free
const SAVED = "agsr-settings";
const $ = (id) => document.getElementById(id);
const viewer = new Viewer();
const items = [];
let current = null;
let known = { models: [], limits: {} };

const WORDS = {
  too_large: "This picture is larger than this server accepts.",
  unusable_file: "This file can't be read as a picture.",
  not_installed: "This server can't read this kind of file.",
  queue_full: "The server is busy.",
  disk_full: "The server has no room for more results.",
  out_of_memory: "The server has too little memory for this picture. Try a smaller size.",
  offline: "The server can't be reached. Is it still running?",
  stopping: "The server is stopping.",
  too_slow: "The upload was too slow.",
  no_job: "The server no longer has this result.",
  wrong_token: "The server did not accept the token.",
  bad_option: "These settings don't fit this picture.",
  backend_failed: "The network failed on this picture.",
  internal: "The server failed on this picture.",
};

// ---------------------------------------------------------------- settings

const TITLES = { psnr: "Clean pictures", gan: "Crisp detail", photo: "Photos" };
const EFFORT = ["fastest", "fast", "good", "best", "best", "best"];

function describeSteps() {
  const steps = $("steps").valueAsNumber;
  $("steps-text").textContent = `${steps} ${steps === 1 ? "step" : "steps"}, ${EFFORT[steps - 1] ?? "slow"}`;
}

function chosenModel() {
  const name = document.querySelector("input[name=model]:checked")?.value;
  return known.models.find((model) => model.name === name) ?? known.models[0];
}

function fillModels() {
  const chosen = saved().model;
  const named = known.models.some((model) => model.name === chosen);
  $("models").replaceChildren(
    ...known.models.map((model) => {
      const label = document.createElement("label");
      const input = Object.assign(document.createElement("input"), { type: "radio", name: "model", value: model.name });
      input.checked = named ? model.name === chosen : model.default;
      const name = Object.assign(document.createElement("b"), { textContent: TITLES[model.name] ?? model.name });
      if (TITLES[model.name]) name.append(Object.assign(document.createElement("code"), { textContent: model.name }));
      const text = Object.assign(document.createElement("span"), { textContent: model.text });
      label.append(input, name, text);
      return label;
    }),
  );
}

function adaptToModel() {
  const model = chosenModel();
  if (!model) return;
  $("steps-field").hidden = model.steps.length < 2;
  if (model.steps.length) {
    $("steps").min = Math.min(...model.steps);
    $("steps").max = Math.max(...model.steps);
    $("steps").value = saved().steps ?? model.default_steps;
  }
  adaptSizes(model.scale);
  const before = $("precision").value || saved().precision;
  const choices = [["", "as the server chooses"], ...model.precisions.map((name) => [name, name])];
  $("precision").replaceChildren(...choices.map(([value, text]) => new Option(text, value)));
  $("precision").value = model.precisions.includes(before) ? before : "";
  describeSteps();
}

/** The middle size is the network's own; others must be within its two passes. */
function adaptSizes(scale) {
  const [two, own, eight] = document.querySelectorAll("input[name=size]");
  own.value = scale ?? "";
  own.nextElementSibling.textContent = scale ? `${scale}×` : "its own";
  two.parentElement.hidden = Boolean(scale) && scale <= 2;
  eight.parentElement.hidden = Boolean(scale) && (scale === 8 || scale ** 2 < 8);
  const checked = document.querySelector("input[name=size]:checked");
  if (!checked || checked.parentElement.hidden) own.checked = true;
}

function adaptToSettings() {
  $("side-field").hidden = size() !== "side";
  $("quality-field").hidden = !["jpg", "webp", "avif"].includes($("format").value);
  if ($("normal_map").checked) $("separate_alpha").checked = false;
  $("separate_alpha").disabled = $("normal_map").checked;
  for (const option of $("format").options) {
    option.disabled = $("normal_map").checked && ["jpg", "avif"].includes(option.value);
  }
  if ($("format").selectedOptions[0].disabled) $("format").value = "png";
}

function size() {
  return document.querySelector("input[name=size]:checked").value;
}

const FIELDS = ["steps", "format", "quality", "precision", "border", "side"];
const CHECKS = ["separate_alpha", "normal_map", "strip"];

function saved() {
  try {
    return JSON.parse(localStorage.getItem(SAVED)) ?? {};
  } catch {
    return {};
  }
}

function save() {
  const now = { model: chosenModel()?.name, size: size() };
  for (const name of FIELDS) now[name] = $(name).value;
  localStorage.setItem(SAVED, JSON.stringify(now));
}

function restore() {
  const before = saved();
  for (const name of FIELDS) if (before[name] !== undefined && name !== "precision") $(name).value = before[name];
  const radio = document.querySelector(`input[name=size][value="${CSS.escape(before.size ?? "4")}"]`);
  if (radio) radio.checked = true;
  if (!$("format").value) $("format").value = "png";
}

/** The options of a request, by the names of the API. */
function options(file) {
  const video = file.type.startsWith("video/");
  const found = { name: file.name, weights: chosenModel().name };
  if (!$("steps-field").hidden) found.steps = $("steps").value;
  if (size() === "side") found.max_size = $("side").value;
  else if (size()) found.scale = size();
  if ($("precision").value) found.precision = $("precision").value;
  if ($("border").value) found.border = $("border").value;
  for (const name of ["strip", "tta"]) if ($(name).checked) found[name] = "true";
  if (video) return found;
  found.format = $("format").value;
  if (!$("quality-field").hidden && $("quality").value && !$("normal_map").checked) found.quality = $("quality").value;
  for (const name of ["separate_alpha", "normal_map"]) if ($(name).checked) found[name] = "true";
  return found;
}

// ---------------------------------------------------------------- items

function add(files) {
  for (const file of files) start({ file, url: URL.createObjectURL(file) });
}

function start({ file, url }) {
  const item = {
    file, url, options: options(file), state: "local", share: 0, left: null, position: null,
    job: null, result: null, warnings: [], hint: null, error: null, size: null, abort: new AbortController(), element: null,
  };
  items.unshift(item);
  item.element = listed(item);
  $("items").prepend(item.element);
  $("session").hidden = $("more-files").hidden = false;
  measure(item);
  const busy = current && ["local", "upload", "queued", "running"].includes(current.state);
  if (!busy || items.length === 1) open(item);
  update(item);
  next();
}

async function measure(item) {
  const probe = new Image();
  probe.src = item.url;
  try {
    await probe.decode();
    item.size = { width: probe.naturalWidth, height: probe.naturalHeight };
  } catch {
    item.unseen = true; // a format that this browser can't show, or no picture
  }
  update(item);
}

function next() {
  const busy = items.filter((item) => ["upload", "queued", "running", "fetch"].includes(item.state)).length;
  const waiting = items.filter((item) => item.state === "local").reverse();
  for (const item of waiting.slice(0, Math.max(0, AT_ONCE - busy))) run(item);
}

async function run(item) {
  const { signal } = item.abort;
  try {
    const limit = known.limits.max_bytes;
    if (item.file.size > limit) {
      throw new api.ApiError("too_large", `The file has ${bytes(item.file.size)}; at most ${bytes(limit)} are accepted.`);
    }
    change(item, { state: "upload", share: 0 });
    item.job = await submitted(item, signal);
    const job = await api.follow(item.job.id, (found) => followed(item, found), signal);
    if (job.state === "failed") throw new api.ApiError(job.problem.code, job.problem.detail);
    if (job.state !== "done") throw new api.ApiError("stopping", job.problem?.detail ?? "The work was cancelled.");
    change(item, { state: "fetch", share: 1, warnings: job.warnings });
    const blob = await api.result(job.id, signal);
    item.result = { ...job.result, url: URL.createObjectURL(blob), size: blob.size };
    api.remove(job.id); // it is here now
    change(item, { state: "done", elapsed: performance.now() - item.began });
    say(`${item.file.name} is ready: ${job.result.width} by ${job.result.height} pixels.`);
  } catch (error) {
    if (item.job) api.remove(item.job.id);
    if (error.name === "AbortError") change(item, { state: "cancelled" });
    else {
      if (!(error instanceof api.ApiError)) error = new api.ApiError("offline", String(error.message ?? error));
      change(item, { state: "failed", error });
      say(`${item.file.name}: ${WORDS[error.code] ?? error.detail}`);
    }
  }
  next();
}

/** Upload; where the server is busy, wait as long as it asks; where it wants a token, ask for it. */
async function submitted(item, signal) {
  for (;;) {
    try {
      return await api.submit(item.file, item.options, (share) => change(item, { share }), signal);
    } catch (error) {
      if (error.status === 401) await login(true);
      else if (error.code === "queue_full") {
        change(item, { state: "queued", share: 0, position: null });
        await new Promise((resolve, reject) => {
          setTimeout(resolve, 1000 * Math.min(error.retry ?? 5, 30));
          signal.addEventListener("abort", () => reject(new DOMException("cancelled", "AbortError")));
        });
      } else throw error;
    }
  }
}

function followed(item, job) {
  if (job.state === "running" && !item.began) item.began = performance.now();
  const state = ["queued", "running"].includes(job.state) ? job.state : item.state;
  change(item, { state, share: job.progress, left: job.seconds_left, position: job.position, hint: job.hint });
}

function change(item, changes) {
  Object.assign(item, changes);
  update(item);
}

function remove(item) {
  item.abort.abort();
  const index = items.indexOf(item);
  if (index < 0) return;
  items.splice(index, 1);
  item.element.remove();
  if (!items.some((other) => other.url === item.url)) URL.revokeObjectURL(item.url);
  if (item.result) URL.revokeObjectURL(item.result.url);
  $("session").hidden = $("more-files").hidden = !items.length;
  if (current === item) open(items[Math.min(index, items.length - 1)] ?? null);
  (items.length ? $("items").querySelector("button") : $("choose")).focus();
  next();
}

// ---------------------------------------------------------------- what is shown

function listed(item) {
  const element = document.createElement("li");
  element.className = "item";
  const open_ = Object.assign(document.createElement("button"), { type: "button", className: "open" });
  const thumb = Object.assign(document.createElement("img"), { className: "thumb", alt: "", src: item.url });
  thumb.addEventListener("error", () => thumb.replaceWith(placeholder()), { once: true });
  const text = Object.assign(document.createElement("div"), { className: "text" });
  text.append(
    Object.assign(document.createElement("b"), { textContent: item.file.name }),
    document.createElement("span"),
    Object.assign(document.createElement("progress"), { max: 1, ariaLabel: `Progress of ${item.file.name}` }),
  );
  open_.append(thumb, text);
  open_.addEventListener("click", () => open(item));
  const link = Object.assign(document.createElement("a"), { className: "button", hidden: true });
  link.append(icon("save"));
  const cross = Object.assign(document.createElement("button"), { type: "button" });
  cross.ariaLabel = `Remove ${item.file.name}`;
  cross.append(icon("close"));
  cross.addEventListener("click", () => remove(item));
  element.append(open_, link, cross);
  return element;
}

/** Stands for a picture that this browser can't show. */
function placeholder() {
  const svg = icon("photo");
  svg.classList.add("thumb");
  return svg;
}

function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

function stateText(item) {
  const { width, height } = item.result ?? {};
  const texts = {
    local: "waiting",
    upload: `sending, ${percent(item.share)}`,
    queued: item.position > 1 ? `waiting, ${item.position - 1} before it` : "waiting for the server",
    running: `upscaling, ${percent(item.share)}`,
    fetch: "receiving",
    done: `${width} × ${height}`,
    cancelled: "cancelled",
    failed: WORDS[item.error?.code] ?? "failed",
  };
  return texts[item.state];
}

const busyStates = ["local", "upload", "queued", "running", "fetch"];

function update(item) {
  const { element } = item;
  const busy = busyStates.includes(item.state);
  element.classList.toggle("failed", item.state === "failed");
  element.querySelector(".text span").textContent = `${stateText(item)}${item.state === "done" ? ` · ${item.options.weights}` : ""}`;
  element.querySelector(".open").title = item.error?.detail ?? "";
  const bar = element.querySelector("progress");
  bar.hidden = !busy;
  fillBar(bar, item);
  const link = element.querySelector("a");
  link.hidden = !item.result;
  if (item.result) {
    Object.assign(link, { href: item.result.url, download: item.result.name });
    link.ariaLabel = `Download ${item.result.name}`;
  }
  if (item === current) show(item);
}

function fillBar(bar, item) {
  if (item.share > 0 && ["upload", "running"].includes(item.state)) bar.value = item.share;
  else bar.removeAttribute("value");
}

function open(item) {
  current = item;
  for (const other of items) {
    other.element.classList.toggle("current", other === item);
    if (other === item) other.element.setAttribute("aria-current", "true");
    else other.element.removeAttribute("aria-current");
  }
  $("welcome").hidden = Boolean(item);
  $("compare").hidden = $("result").hidden = !item;
  $("notes").hidden = true;
  if (item) show(item);
}

function show(item) {
  const busy = busyStates.includes(item.state);
  const isVideo = item.file.type.startsWith("video/");
  showPictures(item, isVideo);
  $("over").hidden = !busy;
  $("over-text").textContent = { upload: "Sending", running: "Upscaling", fetch: "Receiving" }[item.state] ?? "Waiting";
  $("over-left").textContent = item.state === "running" ? leftText(item) : item.state === "queued" ? stateText(item) : "";
  fillBar($("over-bar"), item);
  $("result-name").textContent = item.result?.name ?? item.file.name;
  $("result-facts").textContent = facts(item);
  $("again").hidden = busy;
  $("stop").hidden = !busy;
  $("download").hidden = !item.result;
  if (item.result) Object.assign($("download"), { href: item.result.url, download: item.result.name });
  showNotes(item);
}

function showPictures(item, isVideo) {
  const { result } = item;
  const visible = ["image/png", "image/jpeg", "image/webp", "image/avif", "image/bmp"];
  const after = result && visible.includes(result.type) ? result.url : null;
  const before = item.unseen ? null : item.url;
  const film = $("film");
  film.hidden = !isVideo;
  if (isVideo) {
    const source = result?.url ?? item.url;
    if (film.getAttribute("src") !== source) film.src = source;
  } else film.removeAttribute("src");
  const unseen = !isVideo && ((!before && !after) || (result && !after));
  $("unseen").hidden = !unseen;
  $("unseen").textContent = result ? "Browsers can't show this format. The download has it." : item.size ? "" : "This browser can't show this file.";
  const dimensions = result ?? item.size;
  const shows = !isVideo && !unseen && dimensions;
  document.querySelector(".tools").hidden = !shows;
  if (shows) viewer.show(before, after, dimensions, item);
  else viewer.clear();
  $("before").alt = before ? `${item.file.name}, original` : "";
  $("after").alt = after ? `${item.file.name}, upscaled` : "";
}

function facts(item) {
  if (item.result) {
    const seconds = item.elapsed ? ` · ${duration(item.elapsed / 1000)}` : "";
    return `${item.result.width} × ${item.result.height} · ${bytes(item.result.size)} · ${item.options.weights}${seconds}`;
  }
  if (item.size) return `${item.size.width} × ${item.size.height} · ${bytes(item.file.size)}`;
  return bytes(item.file.size);
}

function showNotes(item) {
  const notes = item.warnings.map((text) => Object.assign(document.createElement("p"), { textContent: text }));
  if (item.state === "failed") {
    const note = Object.assign(document.createElement("p"), { className: "bad" });
    const plain = WORDS[item.error.code];
    note.append(plain ?? item.error.detail);
    if (plain) note.append(Object.assign(document.createElement("small"), { textContent: item.error.detail }));
    notes.unshift(note);
  }
  if (item.hint) notes.push(hinted(item));
  if (item.state === "cancelled") notes.unshift(Object.assign(document.createElement("p"), { textContent: "Cancelled." }));
  $("notes").hidden = !notes.length;
  $("notes").replaceChildren(...notes);
}

/** The server's advice on a compressed picture, and a button that follows it. */
function hinted(item) {
  const { weights } = item.hint;
  const title = TITLES[weights] ?? weights;
  const used = TITLES[item.options.weights] ?? item.options.weights;
  const note = Object.assign(document.createElement("p"), { className: "advice" });
  const text = `This file is strongly compressed, and “${used}” enlarges the traces of that, too. “${title}” removes them.`;
  const button = Object.assign(document.createElement("button"), { type: "button", className: "small-button", textContent: `Use “${title}”` });
  button.addEventListener("click", () => followHint(item, weights));
  note.append(Object.assign(document.createElement("span"), { textContent: text }), button);
  return note;
}

function followHint(item, weights) {
  const radio = document.querySelector(`input[name=model][value="${CSS.escape(weights)}"]`);
  if (!radio) return;
  radio.checked = true;
  adaptToModel();
  save();
  if (busyStates.includes(item.state)) item.abort.abort();
  start(item);
}

function leftText(item) {
  const left = item.left === null ? "" : `, ${duration(item.left)} left`;
  return `${percent(item.share)}${left}`;
}

const percent = (share) => `${Math.floor(100 * share)} %`;

function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function bytes(count) {
  if (count < 1e6) return `${Math.max(1, Math.round(count / 1e3))} kB`;
  return count < 1e9 ? `${(count / 1e6).toFixed(count < 1e7 ? 1 : 0)} MB` : `${(count / 1e9).toFixed(1)} GB`;
}

function say(text) {
  $("live").textContent = text;
}

// ---------------------------------------------------------------- ways in

function listen() {
  $("choose").addEventListener("click", () => $("files").click());
  $("more-files").addEventListener("click", () => $("files").click());
  $("photograph").addEventListener("click", () => $("photo").click());
  for (const input of [$("files"), $("photo")]) {
    input.addEventListener("change", () => {
      add(input.files);
      input.value = "";
    });
  }
  addEventListener("paste", (event) => event.clipboardData?.files.length && add(event.clipboardData.files));
  let within = 0;
  addEventListener("dragenter", (event) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    within += 1;
    $("veil").hidden = false;
  });
  addEventListener("dragleave", () => ($("veil").hidden = (within = Math.max(0, within - 1)) === 0));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    within = 0;
    $("veil").hidden = true;
    add(event.dataTransfer.files);
  });
  $("settings").addEventListener("submit", (event) => event.preventDefault());
  $("settings").addEventListener("input", (event) => {
    if (event.target.name === "model") adaptToModel();
    describeSteps();
    adaptToSettings();
    save();
  });
  $("again").addEventListener("click", () => start(current));
  $("stop").addEventListener("click", () => current.abort.abort());
}

/** Ask for the token until the server accepts it. */
async function login(wrong = false) {
  $("ask-bad").hidden = !wrong;
  $("token").value = "";
  const closed = new Promise((resolve) => $("ask").addEventListener("close", resolve, { once: true }));
  if (!$("ask").open) $("ask").showModal();
  await closed;
  api.setToken($("token").value);
}

async function load() {
  for (let asked = false; ; asked = true) {
    try {
      return await api.models();
    } catch (error) {
      if (error.status !== 401) throw error;
      await login(asked);
    }
  }
}

async function begin() {
  listen();
  restore();
  try {
    known = await load();
  } catch (error) {
    $("limits").textContent = WORDS[error.code] ?? error.detail;
    return;
  }
  const { max_bytes: size, max_pixels: pixels, videos } = known.limits;
  $("limits").textContent = `Up to ${bytes(size)} and ${Math.round(pixels / 1e6)} megapixels each. They leave the server as soon as they are done.`;
  $("videos-hint").hidden = !videos;
  fillModels();
  adaptToModel();
  adaptToSettings();
  document.body.dataset.ready = "true";
}

begin();
