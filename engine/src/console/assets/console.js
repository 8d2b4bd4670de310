// What the pages do beyond being pages: one stream of events while somebody looks, ages that count up, contact that is told
// honestly, and a button that copies. Without it everything still works; it is only not live.
const body = document.body, root = document.documentElement;
const stream = body.dataset.stream;
const LOST_MS = 20000, RETRY_MS = 2000;
let source = null, heard = performance.now(), lostAt = null, retry = 0;

const live = kind => body.dispatchEvent(new CustomEvent(kind, { bubbles: true }));
const alive = () => {
  const was = root.classList.contains("is-lost");
  heard = performance.now();
  lostAt = null;
  root.classList.remove("is-lost");
  root.classList.add("is-live");
  if (was) live("refresh");
};
const lost = () => {
  if (root.classList.contains("is-lost")) return;
  lostAt = lostAt || heard;
  root.classList.remove("is-live");
  root.classList.add("is-lost");
};

// A browser has six connections to one host: of all tabs the one that was looked at last has the stream, and tells the others.
const tabs = stream ? new BroadcastChannel(`farmiq ${stream}`) : null;
if (tabs) tabs.onmessage = ({ data }) => {
  if (data === "mine") close();
  else if (data === "free") open();
  else { alive(); live(data); }
};

function open() {
  if (!stream || source || document.hidden) return;
  tabs.postMessage("mine");
  source = new EventSource(stream);
  source.onopen = alive;
  for (const kind of ["board", "alarm", "sync", "weighing", "ping", "resync"]) {
    source.addEventListener(kind, () => {
      const what = kind === "resync" ? "refresh" : kind;
      alive();
      live(what);
      tabs.postMessage(what);
    });
  }
  // Who is put out sees nothing of the barn any more: the page asks who is there.
  source.addEventListener("end", ({ data }) => { if (JSON.parse(data).reason === "removed") location.reload(); });
  source.onmessage = alive;
  source.onerror = () => {
    if (source && source.readyState === EventSource.CLOSED) { close(); retry = setTimeout(open, RETRY_MS); }
  };
}
function leave() {
  if (source) tabs.postMessage("free");
  close();
}
function close() { if (source) source.close(); source = null; clearTimeout(retry); }

// A ping of its own says whether the engine answers when the stream says nothing.
async function ping() {
  if (document.hidden || !stream) return;
  const giveUp = new AbortController();
  const timer = setTimeout(() => giveUp.abort(), 8000);
  try { if ((await fetch("/health", { cache: "no-store", signal: giveUp.signal })).ok) alive(); } catch { /* told by the silence */ }
  clearTimeout(timer);
}
setInterval(ping, 7000);
setInterval(() => {
  const now = performance.now();
  if (stream && !document.hidden && now - heard > LOST_MS) lost();
  for (const lostFor of document.querySelectorAll("[data-lost]")) {
    lostFor.textContent = lostAt === null ? "" : span((now - lostAt) / 1000);
  }
  for (const age of document.querySelectorAll("[data-age]")) {
    age.dataset.from ??= now - 1000 * Number(age.dataset.age);
    age.textContent = span((now - Number(age.dataset.from)) / 1000);
  }
}, 1000);

function span(seconds) {
  const unit = body.dataset;
  const [count, name] = seconds < 60 ? [Math.floor(seconds), unit.s] : seconds < 3600 ? [Math.floor(seconds / 60), unit.m]
    : seconds < 172800 ? [Math.floor(seconds / 3600), unit.h] : [Math.floor(seconds / 86400), unit.d];
  return `${Math.max(0, count)} ${name}`;
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return leave();
  heard = performance.now();
  open();
  ping();
  live("refresh");
});
addEventListener("pagehide", leave);
addEventListener("pageshow", open);

document.addEventListener("click", event => {
  const copy = event.target.closest("[data-copy]");
  if (copy) {
    const field = document.getElementById(copy.dataset.copy);
    field.select();
    if (document.execCommand("copy")) copy.textContent = copy.dataset.done;
  }
  if (event.target.closest("[data-print]")) print();
});
document.addEventListener("submit", event => {
  // Whoever taps twice means it once.
  if (event.target.dataset.sent) event.preventDefault();
  event.target.dataset.sent = "yes";
  setTimeout(() => delete event.target.dataset.sent, 3000);
});
open();
ping();
