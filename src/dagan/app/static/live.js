// The live page: the camera's pictures go to the server one by one, and the portrait's come back.
"use strict";
const el = (id) => document.getElementById(id);
const SIDE = 640;      // The longer side of a picture that is sent; the face in it is then larger than the model needs.
const QUALITY = 0.85;
const MOST_BYTES = 11e6;
const CALM = "Look straight ahead with a calm face.";
const state = { socket: null, stream: null, sent: 0, answered: 0, spare: 2, delay: null, running: false, grabbing: false, problem: "" };
const sheet = document.createElement("canvas");

if (window.top !== window) document.documentElement.classList.add("framed");
function followTheme() {
  let dark = null;
  try { if (window.top !== window) dark = window.parent.document.body.classList.contains("dark"); } catch { dark = null; }
  if (dark === null) return;
  document.documentElement.classList.toggle("dark", dark);
  document.documentElement.classList.toggle("light", !dark);
}
function fitFrame() {  // The frame in the page is as high as what is in it.
  try {
    const frame = window.frameElement, height = document.querySelector("main").scrollHeight + 8;
    if (frame && frame.clientHeight !== height && height > 100) frame.style.height = height + "px";
  } catch { /* Another site's page shows this one. */ }
}
new ResizeObserver(fitFrame).observe(document.querySelector("main"));
followTheme();
setInterval(followTheme, 1000);

function say(text, bad = false) {
  const status = el("status");
  if (status.textContent !== text) status.textContent = text;
  status.classList.toggle("problem", bad);
}

async function start() {
  if (state.running) { stop("Stopped."); return; }
  if (!navigator.mediaDevices) {
    say("The browser shows its camera to pages of this machine or with https alone: open this page there.", true);
    return;
  }
  try {
    state.stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } }, audio: false });
  } catch (error) {
    say(error.name === "NotAllowedError" ? "The camera is not allowed: allow it in the address bar, and press Start again."
      : "There is no camera that can be used: connect one, close other programs that use it, and press Start again.", true);
    return;
  }
  el("camera").srcObject = state.stream;
  await el("camera").play();
  Object.assign(state, { sent: 0, answered: 0, shown: 0, delay: null, running: true, problem: "" });
  el("start").textContent = "Stop";
  el("recentre").disabled = false;
  say(CALM);
  connect();
}

function stop(text, bad = false) {
  state.running = false;
  if (state.stream) state.stream.getTracks().forEach((track) => track.stop());
  if (state.socket) { const socket = state.socket; state.socket = null; socket.close(); }
  el("camera").srcObject = null;
  el("start").textContent = "Start";
  el("recentre").disabled = true;
  el("view").hidden = true;
  say(text, bad);
}

function connect() {
  const address = new URL("live/socket", document.baseURI);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  state.socket = socket;
  socket.onmessage = (event) => typeof event.data === "string" ? told(JSON.parse(event.data)) : answered(event.data);
  socket.onclose = () => { if (state.socket === socket) stop(state.problem || "The connection has ended: press Start again.", true); };
}

function told(facts) {
  if (facts.problem) {
    state.problem = facts.problem;
    if (reading) { const entry = reading; reading = null; refuse(entry); }
    say(facts.problem, true);
  }
  if (facts.ready) {
    for (const entry of portraits.slice(1)) entry.number = null;
    state.spare = facts.workers + 1;
    const view = el("view");
    view.href = new URL("live/view?key=" + encodeURIComponent(facts.key), document.baseURI);
    view.hidden = false;
    sendOptions();
    sendPortrait();
    pump();
  }
  if (facts.portrait !== undefined && reading) { reading.number = facts.portrait; reading = null; say(""); }
}

// Sends the camera's newest picture whenever few pictures are unanswered; pictures between are never taken.
function pump() {
  const video = el("camera");
  const next = () => {
    if (!state.running) return;
    grab(video).finally(schedule);
  };
  const schedule = () => {
    if (!state.running) return;
    if (video.requestVideoFrameCallback && document.visibilityState === "visible") video.requestVideoFrameCallback(next);
    else setTimeout(next, 33);
  };
  schedule();
}

async function grab(video) {
  const socket = state.socket;
  if (state.grabbing || !socket || socket.readyState !== 1 || state.sent - state.answered >= state.spare || socket.bufferedAmount > 0 || !video.videoWidth) return;
  state.grabbing = true;
  try {
    const taken = performance.now();
    const scale = Math.min(1, SIDE / Math.max(video.videoWidth, video.videoHeight));
    sheet.width = Math.round(video.videoWidth * scale);
    sheet.height = Math.round(video.videoHeight * scale);
    sheet.getContext("2d", { willReadFrequently: true }).drawImage(video, 0, 0, sheet.width, sheet.height);
    const blob = await new Promise((done) => sheet.toBlob(done, "image/jpeg", QUALITY));
    const data = new Uint8Array(12 + blob.size);
    const head = new DataView(data.buffer);
    head.setFloat64(0, taken, true);
    head.setUint32(8, ++state.sent, true);
    data.set(new Uint8Array(await blob.arrayBuffer()), 12);
    if (socket.readyState === 1) socket.send(data);
  } finally { state.grabbing = false; }
}

async function answered(data) {
  const length = new DataView(data).getUint32(0, true);
  const facts = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  state.answered = Math.max(state.answered, facts.number);
  if (facts.problem) { say(facts.problem, true); return; }
  if (!facts.face) { say("No face is seen: come into the picture."); state.lost = true; return; }
  if (state.lost || el("status").textContent === CALM) say("");
  state.lost = false;
  const picture = await createImageBitmap(new Blob([new Uint8Array(data, 4 + length)], { type: "image/jpeg" }));
  if (state.shown > facts.number) return;
  state.shown = facts.number;
  const canvas = el("result");
  canvas.width = picture.width;
  canvas.height = picture.height;
  canvas.getContext("2d").drawImage(picture, 0, 0);
  picture.close();
  const delay = performance.now() - facts.time;
  state.delay = state.delay === null ? delay : 0.9 * state.delay + 0.1 * delay;
  el("numbers").textContent = `${facts.rate.toFixed(0)} pictures a second, ${state.delay.toFixed(0)} ms behind`;
  window.daganLive = { ...facts, delay, frames: (window.daganLive?.frames || 0) + 1 };
}

function tell(wish) { if (state.socket && state.socket.readyState === 1) state.socket.send(JSON.stringify(wish)); }
function sendOptions() {
  el("strength-now").textContent = Number(el("strength").value).toFixed(2);
  tell({ options: { relative: el("relative").checked, limit_motion: el("limit_motion").checked, move: el("move").value, strength: Number(el("strength").value) } });
}

// Each portrait has the number under which this connection's server knows it; null means that the server has yet to read it.
const portraits = [];
let reading = null;

function add(url, name, number = null) {
  const button = document.createElement("button");
  const entry = { url, name, number, button };
  portraits.push(entry);
  button.type = "button";
  button.setAttribute("role", "radio");
  button.setAttribute("aria-label", name);
  button.innerHTML = '<img alt="">';
  button.firstChild.src = url;
  button.onclick = () => choose(entry);
  button.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = portraits[(portraits.indexOf(entry) + step + portraits.length) % portraits.length];
    choose(next);
    next.button.focus();
  };
  el("gallery").append(button);
  return entry;
}

function choose(entry) {
  state.chosen = entry;
  for (const other of portraits) {
    other.button.setAttribute("aria-checked", String(other === entry));
    other.button.tabIndex = other === entry ? 0 : -1;
  }
  sendPortrait();
}

function sendPortrait() {
  if (!state.socket || state.socket.readyState !== 1) return;
  if (state.chosen.number !== null) { tell({ portrait: state.chosen.number }); return; }
  reading = state.chosen;
  tell({ photo: reading.url, name: reading.name });
}

function refuse(entry) {
  entry.button.remove();
  portraits.splice(portraits.indexOf(entry), 1);
  choose(portraits[0]);
}

el("photo").onchange = () => {
  const file = el("photo").files[0];
  el("photo").value = "";
  if (!file) return;
  if (file.size > MOST_BYTES) { say(`${file.name} has ${(file.size / 1e6).toFixed(0)} MB: a portrait may have ${MOST_BYTES / 1e6}: make it smaller first.`, true); return; }
  const reader = new FileReader();
  reader.onload = () => choose(add(reader.result, file.name));
  reader.readAsDataURL(file);
};
el("start").onclick = start;
el("recentre").onclick = () => { tell({ recentre: true }); say("Re-centred."); };
function mirror() { for (const id of ["camera", "result"]) el(id).classList.toggle("mirrored", el("mirror").checked); }
el("mirror").onchange = mirror;
for (const id of ["relative", "limit_motion", "move", "strength"]) el(id).onchange = sendOptions;
el("strength").oninput = () => { el("strength-now").textContent = Number(el("strength").value).toFixed(2); };
mirror();
const still = new Image();  // Until the camera runs, the portrait that will move is shown.
still.onload = () => { if (!state.shown) { const side = Math.min(still.width, still.height); el("result").getContext("2d").drawImage(still, (still.width - side) / 2, 0, side, side, 0, 0, el("result").width, el("result").height); } };
still.src = "live/portrait.jpg";
choose(add("live/portrait.jpg", "The portrait that comes with the program", 0));
window.addEventListener("pagehide", () => stop(""));
