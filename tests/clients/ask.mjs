// What a page and a program in Node do alike: open a WebSocket, send one frame, and wait for the
// first frame of a DHCP server. Calls `say` once: with "frame HEX", or with "close CODE".

export function ask(WebSocket, url, frame, options, say) {
  const socket = new WebSocket(url, ...options);
  let said = false;
  const once = (text) => {
    if (!said) say(text);
    said = true;
  };
  socket.binaryType = 'arraybuffer';
  socket.onopen = () => socket.send(Uint8Array.from(frame.match(/../g), (byte) => parseInt(byte, 16)));
  socket.onmessage = ({ data }) => {
    const bytes = new Uint8Array(data);
    // UDP over IPv4 from port 67 to port 68.
    if (bytes[12] !== 8 || bytes[13] !== 0 || bytes[23] !== 17 || bytes[37] !== 68) return;
    once('frame ' + Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(''));
    socket.close(1000);
  };
  socket.onerror = () => {};
  socket.onclose = ({ code }) => once('close ' + code);
}
