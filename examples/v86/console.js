// A serial line in a <textarea>: plain text, without the escape codes of terminals.

const KEYS = {
  ArrowUp: "\x1b[A", ArrowDown: "\x1b[B", ArrowRight: "\x1b[C", ArrowLeft: "\x1b[D",
  Home: "\x1b[H", End: "\x1b[F", Delete: "\x1b[3~", Escape: "\x1b", Tab: "\t",
};
// ESC and what belongs to it: a sequence with parameters, a title, or one character (ECMA-48).
const ESCAPE = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[^[\]])/g;
const UNFINISHED = /\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?)?$/;
const KEPT = 100_000;

/** Shows the first serial line of a V86 in `element`, and sends what is typed there. */
export function connectConsole(element, emulator) {
  const decoder = new TextDecoder();
  const encoder = new TextEncoder();
  let bytes = [];
  let begun = "";

  emulator.add_listener("serial0-output-byte", (byte) => {
    if (bytes.push(byte) === 1) setTimeout(show, 20);
  });
  function show() {
    let text = (begun + decoder.decode(new Uint8Array(bytes), { stream: true })).replace(ESCAPE, "");
    bytes = [];
    begun = UNFINISHED.exec(text)?.[0] ?? "";
    text = text.slice(0, text.length - begun.length);
    let shown = element.value;
    for (const character of text) {
      if (character === "\b") shown = shown.slice(0, -1);
      else if (character === "\n" || character === "\t" || character >= " ") shown += character;
    }
    element.value = shown.slice(-KEPT);
    element.scrollTop = element.scrollHeight;
  }

  const send = (text) => emulator.serial_send_bytes(0, encoder.encode(text));
  element.addEventListener("beforeinput", (event) => {
    event.preventDefault();
    if (event.inputType === "deleteContentBackward") send("\x7f");
    else if (["insertLineBreak", "insertParagraph"].includes(event.inputType)) send("\r");
    else send((event.data ?? event.dataTransfer?.getData("text") ?? "").replace(/\r?\n/g, "\r"));
  });
  element.addEventListener("keydown", (event) => {
    if (event.altKey || event.metaKey || event.shiftKey || element.readOnly) return;
    let text = event.ctrlKey ? undefined : KEYS[event.key];
    const isCopy = event.key === "c" && element.selectionStart !== element.selectionEnd;
    // Ctrl and a letter, but for what copies and pastes.
    if (event.ctrlKey && /^[a-z]$/.test(event.key) && event.key !== "v" && !isCopy) {
      text = String.fromCharCode(event.key.charCodeAt(0) & 31);
    }
    if (text === undefined) return;
    event.preventDefault();
    send(text);
  });
}
