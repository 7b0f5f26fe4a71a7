// The test page: connect, talk, see what happens.

import { Call } from "./call.js";
import { Levels } from "./levels.js";

const MOST_EVENTS = 500;
const KEYS = "123456789*0#";
const KINDS = {
  call: ["incoming", "ringing", "answer", "reject", "hangup", "hold", "mediaReady", "inactivity", "transferRequest"],
  speech: ["speaking", "silence", "asrDelta", "asrFinal"],
  playback: ["trackStart", "trackEnd", "interruption"],
  key: ["dtmf"],
  error: ["error"],
  noise: ["ping", "metrics"],
};

const $ = (id) => document.getElementById(id);
const options = $("options").elements;

let call = null;
let levels = null;
let answeredAt = 0;
let said = 0;

// -- the call -------------------------------------------------------------------------------------

async function connect() {
  call = new Call(options.token.value);
  levels = new Levels();
  alertWith("");
  $("transcript").replaceChildren();
  show("connecting", "Connecting …");
  const mine = call;
  mine.addEventListener("sent", ({ detail }) => log(detail.command, detail, "sent"));
  mine.addEventListener("received", ({ detail }) => received(detail));
  mine.addEventListener("audio", ({ detail }) => hear(detail));
  mine.addEventListener("trouble", ({ detail }) => alertWith(detail));
  mine.addEventListener("over", over);
  try {
    await mine.start(callOption(), options.codec.value);
    levels?.show(mine.microphone, $("microphone-level"));
  } catch (error) {
    alertWith(error.message);
    if (error.needsToken) options.token.focus();
  }
}

/** What the invite asks for. An empty number becomes null, which means absent. */
function callOption() {
  const option = { tts: {} };
  if (options.asr.checked) option.asr = {};
  if (options.vad.checked) option.vad = { silencePadding: parseInt(options.silencePadding.value, 10) };
  if (options.denoise.checked) option.denoise = true;
  if (options.recorder.checked) option.recorder = {};
  return option;
}

function hear(stream) {
  $("remote").srcObject = stream;
  levels?.show(stream, $("remote-level"));
}

function over() {
  call = null;
  levels.stop();
  levels = null;
  $("remote").srcObject = null;
  for (const bubble of document.querySelectorAll("#transcript [data-state=live]")) bubble.dataset.state = "cut";
  const { state } = $("state").dataset;
  if (state === "up") alertWith("The connection to the server was lost.");
  show(state === "over" ? "over" : "idle", state === "over" ? $("state-text").textContent : "Not connected");
}

function received(event) {
  log(event.event, event, "received");
  const { event: name } = event;
  if (name === "trackStart" && !event.playId && $("session").hidden) {
    $("session").textContent = event.trackId;
    $("session").hidden = false;
  } else if (name === "answer" && !event.refer) {
    answeredAt = Date.now();
    show("up", "Connected");
    $("text").focus();
  } else if (name === "hangup" && !event.refer) {
    show("over", `Call ended: ${event.reason}`);
  } else if (name === "reject" || name === "error") {
    alertWith(event.error ?? event.reason);
  } else if (name === "speaking" && $("yield").checked) {
    call?.send({ command: "interrupt" });
  } else if (name === "asrDelta" || name === "asrFinal") {
    understood(event);
  } else if (name === "trackEnd" && event.playId) {
    settle(`play:${event.playId}`, "done");
  } else if (name === "interruption" && event.playId) {
    settle(`play:${event.playId}`, "cut");
  }
}

/** Speak a text. Without `endOfStream`, as RustPBX's own page does it: the server ends a lone text by itself. */
function speak(text) {
  const playId = `say-${++said}`;
  bubble(`play:${playId}`, "dialbus", text, "live");
  call?.send({ command: "tts", text, playId });
}

function press(key) {
  if (call && !call.press(key)) alertWith("The other side takes no keys (no telephone-event in its answer).");
}

// -- what is shown --------------------------------------------------------------------------------

function show(state, text) {
  const busy = state === "connecting" || state === "up";
  const up = state === "up";
  $("state").dataset.state = state;
  $("state-text").textContent = text;
  $("connect").disabled = busy || call !== null;
  $("hangup").disabled = !busy;
  $("mute").disabled = !up;
  setMuted(false);
  $("call-options").disabled = busy;
  for (const element of [...$("speak").elements, ...$("keypad").children]) element.disabled = !up;
  if (state === "connecting") {
    answeredAt = 0;
    $("session").hidden = true;
    $("clock").hidden = true;
  }
}

function alertWith(text) {
  $("alert").textContent = text;
  $("alert").hidden = !text;
}

function setMuted(muted) {
  call?.mute(muted);
  $("mute").setAttribute("aria-pressed", muted);
  $("mute").textContent = muted ? "Unmute" : "Mute";
}

function tick() {
  if (!answeredAt || $("state").dataset.state !== "up") return;
  const seconds = Math.floor((Date.now() - answeredAt) / 1000);
  $("clock").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  $("clock").hidden = false;
}

/** Words of the caller: an unstable text replaces the one before, the final one stays. */
function understood(event) {
  const key = `said:${event.trackId}:${event.index}`;
  const final = event.event === "asrFinal";
  if (final && !event.text) {
    document.querySelector(`#transcript [data-key="${CSS.escape(key)}"]`)?.remove();
    return;
  }
  bubble(key, event.refer ? "other" : "you", event.text, final ? "done" : "live");
  if (final && $("repeat").checked && !event.refer) speak(event.text);
}

function bubble(key, who, text, state) {
  const list = $("transcript");
  following(list, () => {
    let item = list.querySelector(`[data-key="${CSS.escape(key)}"]`);
    if (!item) {
      item = make("li", { key, who });
      item.append(make("span", {}, { you: "You", dialbus: "dialbus", other: "Third party" }[who], "who"), make("p"));
      list.append(item);
    }
    item.dataset.state = state;
    item.querySelector("p").textContent = text;
  });
}

/** A text that was spoken is over; one that was cut stays cut. */
function settle(key, state) {
  const item = document.querySelector(`#transcript [data-key="${CSS.escape(key)}"]`);
  if (item?.dataset.state === "live") item.dataset.state = state;
}

function log(name, json, direction) {
  const list = $("events");
  const kind = direction === "sent" ? "command" : kindOf(name);
  const at = new Date(direction === "received" ? json.timestamp : Date.now());
  const summary = make("summary");
  const time = make("time", {}, `${at.toTimeString().slice(0, 8)}.${String(at.getMilliseconds()).padStart(3, "0")}`);
  time.dateTime = at.toISOString();
  summary.append(
    time,
    make("span", {}, direction === "sent" ? `→ ${name}` : name, "name"),
    make("span", {}, digest(json), "digest"),
  );
  const details = make("details");
  details.append(summary, make("pre", {}, JSON.stringify(json, null, 2)));
  const item = make("li", { kind, name, direction });
  item.append(details);
  following(list, () => {
    list.append(item);
    while (list.children.length > MOST_EVENTS) list.firstChild.remove();
  });
}

function kindOf(name) {
  return Object.keys(KINDS).find((kind) => KINDS[kind].includes(name)) ?? "other";
}

/** The values that tell most, on one line. */
function digest(json) {
  const telling = ["text", "error", "reason", "digit", "playId", "subtitle", "key", "duration", "code", "speaker"];
  const values = telling
    .filter((key) => json[key] !== undefined)
    .map((key) => (key === "duration" ? `${json[key]} ms` : json[key]));
  if (json.refer === true) values.push("(transfer)");
  return values.join(" · ");
}

function make(tag, data = {}, text = "", className = "") {
  const element = document.createElement(tag);
  Object.assign(element.dataset, data);
  if (text) element.textContent = text;
  if (className) element.className = className;
  return element;
}

/** Change a list; what scrolls it keeps showing its end if it did. */
function following({ parentElement: view }, change) {
  const atEnd = view.scrollHeight - view.scrollTop - view.clientHeight < 40;
  change();
  if (atEnd) view.scrollTop = view.scrollHeight;
}

// -- begin ----------------------------------------------------------------------------------------

for (const key of KEYS) {
  const button = make("button", { key }, key);
  button.type = "button";
  button.disabled = true;
  button.setAttribute("aria-label", { "*": "Star", "#": "Hash" }[key] ?? key);
  button.addEventListener("click", () => press(key));
  $("keypad").append(button);
}
$("connect").addEventListener("click", connect);
$("hangup").addEventListener("click", () => call?.hangUp());
$("mute").addEventListener("click", () => setMuted($("mute").getAttribute("aria-pressed") !== "true"));
$("interrupt").addEventListener("click", () => call?.send({ command: "interrupt" }));
$("clear").addEventListener("click", () => $("events").replaceChildren());
$("noise").addEventListener("change", () => $("events").classList.toggle("noisy", $("noise").checked));
$("options").addEventListener("submit", (event) => event.preventDefault());
$("speak").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (text) speak(text);
  $("text").value = "";
});
setInterval(tick, 500);

// A link may bring the token along; it goes out of sight at once.
const inHash = new URLSearchParams(location.hash.slice(1)).get("token");
const given = inHash ?? new URLSearchParams(location.search).get("token");
if (given) {
  options.token.value = given;
  history.replaceState(null, "", location.pathname);
}
