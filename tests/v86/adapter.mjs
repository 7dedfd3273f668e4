// node adapter.mjs BUILT URL: v86's own network adapter (cut out of the readable build of the npm
// package) on a fake bus. Reads frames as lines of hex on stdin, one "send" each; prints what the
// adapter receives as lines of hex. Ends with stdin.
import fs from 'node:fs';
import path from 'node:path';
import readline from 'node:readline';
import { createRequire } from 'node:module';

const [built, relay] = process.argv.slice(2);
const { WebSocket } = createRequire(path.resolve(built, 'npm') + '/')('ws');
const NetworkAdapter = networkAdapter(
  fs.readFileSync(path.resolve(built, 'npm/node_modules/v86/build/libv86-debug.mjs'), 'utf8'));

const listeners = {};
const bus = {
  register: (name, listener, self) => { listeners[name] = listener.bind(self); },
  send: (name, bytes) => {
    if (name === 'net0-receive') process.stdout.write(Buffer.from(bytes).toString('hex') + '\n');
  },
};
const adapter = new NetworkAdapter(relay, bus, 0);
readline.createInterface({ input: process.stdin })
  .on('line', line => listeners['net0-send'](new Uint8Array(Buffer.from(line, 'hex'))))
  .on('close', () => { adapter.destroy(); setTimeout(() => process.exit(0), 1000).unref(); });

// The class is not exported; its text runs from its constructor to the end of its last method.
function networkAdapter(library) {
  const NAME = '$NetworkAdapter$$module$src$browser$network$$';
  const start = library.indexOf(`function ${NAME}(`);
  const last = library.indexOf(`${NAME}.prototype.change_proxy`, start);
  const end = library.indexOf('\n};\n', last);
  if (start < 0 || last < 0 || end < 0) throw new Error('v86 has no network adapter where it was');
  return new Function('WebSocket', `${library.slice(start, end + 4)}\nreturn ${NAME};`)(WebSocket);
}
