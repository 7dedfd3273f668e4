// Boots the machine of machine.js in v86, with its network card on a wsnic, and says how the
// connection is. ?url= and ?card= fill in the form, with ?start the machine starts at once.
import { connectConsole } from "./console.js";
import { machine } from "./machine.js";

const $ = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
const number = new Intl.NumberFormat("en");
// As often as v86 tries.
const RETRY_S = 10;

$("url").value = query.get("url") ?? defaultUrl();
if (query.has("card")) $("card").value = query.get("card");
showNetwork("off", "Not connected.", " v86 connects when the guest sends its first frame.");
$("start").addEventListener("submit", (event) => {
  event.preventDefault();
  start();
});
if (query.has("start")) start();

/** A wsnic with default ports on the machine that this page comes from. */
function defaultUrl() {
  const host = location.hostname || "127.0.0.1";
  return location.protocol === "https:" ? `wss://${host}:8087/` : `ws://${host}:8086/`;
}

function start() {
  let url;
  try {
    url = relay($("url").value.trim());
    if (!$("card").value) throw new Error("The network card is virtio or ne2k.");
    if (typeof V86 === "undefined") {
      throw new Error("files/libv86.js is not there: README.md says how to get v86's files.");
    }
  } catch (error) {
    say("bad", error.message);
    return;
  }
  $("start").querySelectorAll("input, select, button").forEach((field) => { field.disabled = true; });
  history.replaceState(null, "", `?${new URLSearchParams({ url: $("url").value.trim(), card: $("card").value })}`);
  watch(url);
  boot(url);
}

/** What somebody typed, as a URL that v86 gives to a WebSocket and nothing else. */
function relay(text) {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (!url || !["ws:", "wss:"].includes(url.protocol)) {
    throw new Error(`The address of wsnic begins with ws:// or wss://, not as in "${text}".`);
  }
  const isOwn = ["localhost", "127.0.0.1", "[::1]"].includes(url.hostname);
  if (location.protocol === "https:" && url.protocol === "ws:" && !isOwn) {
    throw new Error("This page came by https://: the browser lets it connect by wss:// only.");
  }
  url.hash = "";
  return url.href;
}

/** v86 makes its WebSocket itself, also again when it is lost; this shows how each of them is. */
function watch(relayUrl) {
  const place = new URL(relayUrl);
  const page = relayUrl.replace(/^ws/, "http");
  const counts = { sent: 0, received: 0 };
  const show = () => showNetwork("good", `Connected to ${place.host}.`,
    ` ${number.format(counts.sent)} frames sent, ${number.format(counts.received)} received.`);
  let later = 0;
  const count = (way) => {
    counts[way] += 1;
    later ||= setTimeout(() => { later = 0; if (current?.readyState === 1) show(); }, 250);
  };
  let current = null;
  // How the last connection ended, until there is another.
  let end = "";
  window.WebSocket = class extends WebSocket {
    constructor(...parameters) {
      super(...parameters);
      current = this;
      showNetwork("wait", `Connecting to ${place.host} …`);
      this.addEventListener("open", () => { end = "open"; show(); });
      this.addEventListener("message", () => count("received"));
      this.addEventListener("close", ({ code, reason }) => {
        if (end === "open") end = reason ? `code ${code}, ${reason}` : `code ${code}`;
        const again = ` v86 tries again every ${RETRY_S} s.`;
        if (end) {
          showNetwork("bad", "The connection was lost", ` (${end}).${again}`);
        } else {
          showNetwork("bad", `No connection to ${place.host}.`,
            ` It does not run, refuses, or its certificate is not trusted; its own page says more: `,
            page, again);
        }
      });
    }

    send(frame) {
      super.send(frame);
      count("sent");
    }
  };
}

function boot(relay_url) {
  const emulator = new V86({
    ...machine,
    autostart: true,
    disable_speaker: true,
    screen: { container: $("screen") },
    net_device: { type: $("card").value, relay_url },
  });
  connectConsole($("serial"), emulator);
  say("wait", "Loading the machine …");
  emulator.add_listener("download-progress", ({ file_name, loaded }) => {
    say("wait", `Loading ${file_name}: ${number.format(loaded >> 10)} KiB`);
  });
  emulator.add_listener("download-error", ({ file_name }) => {
    say("bad", `${file_name} cannot be loaded: README.md says how to get it.`);
  });
  emulator.add_listener("emulator-started", () => {
    say("good", "The machine runs. Type into the serial console or, with the focus elsewhere, to its screen. To start anew, reload the page.");
    $("serial").readOnly = false;
    $("serial").focus();
  });
}

function showNetwork(state, what, more = "", link = "", end = "") {
  const parts = [Object.assign(document.createElement("b"), { textContent: what }), more];
  if (link) {
    parts.push(Object.assign(document.createElement("a"), { href: link, textContent: link, target: "_blank" }), ".");
  }
  const line = document.createElement("span");
  line.append(...parts, end);
  $("network").dataset.state = state;
  $("network").replaceChildren(line);
}

function say(state, text) {
  $("machine").dataset.state = state;
  $("machine").textContent = text;
}
