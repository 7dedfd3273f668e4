// A machine of v86 in Node: `built` is the folder that build.sh made.
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';

// irqpoll: v86's NE2000 loses interrupts in long uploads.
const CMDLINE = 'console=ttyS0 quiet noisapnp cryptomgr.notests apparmor=0 audit=0 ' +
  '8250.nr_uarts=1 raid=noautodetect tsc=reliable mitigations=off random.trust_cpu=on irqpoll';

export const print = console.log;
console.log = () => {}; // v86 logs there itself

// Starts a machine with this network card at this relay, from a saved state if there is one.
export async function start(built, relay, card, state) {
  const { WebSocket } = createRequire(path.resolve(built, 'npm') + '/')('ws');
  globalThis.WebSocket = WebSocket; // this Node may have none of its own
  const { V86 } = await import(path.resolve(built, 'npm/node_modules/v86/build/libv86.mjs'));
  const read = name => {
    const bytes = fs.readFileSync(path.resolve(built, name));
    return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  };
  return new V86({
    wasm_path: path.resolve(built, 'npm/node_modules/v86/build/v86.wasm'),
    bios: { buffer: read('kernel/root/usr/share/seabios/bios.bin') },
    vga_bios: { buffer: read('kernel/root/usr/share/seabios/vgabios-stdvga.bin') },
    ...(state ? { initial_state: { buffer: state } } : {
      bzimage: { buffer: read('vmlinuz') },
      initrd: { buffer: read('initrd.cpio') },
      cmdline: CMDLINE,
    }),
    memory_size: 96 << 20,
    vga_memory_size: 2 << 20,
    autostart: true,
    disable_keyboard: true,
    disable_mouse: true,
    disable_speaker: true,
    net_device: { type: card, relay_url: relay },
  });
}

// Collects the lines "@@{json}" of the serial console.
export function stepsOf(emulator) {
  const ready = [];
  const waiting = [];
  const console_lines = [];
  let line = '';
  emulator.add_listener('serial0-output-byte', byte => {
    if (byte !== 10) {
      line += String.fromCharCode(byte);
      return;
    }
    const text = line.replace(/\r/g, '');
    line = '';
    console_lines.push(text);
    const at = text.indexOf('@@{');
    if (at < 0) return;
    let step;
    try {
      step = JSON.parse(text.slice(at + 2));
    } catch {
      step = { step: 'unreadable', ok: false, line: text };
    }
    const waiter = waiting.shift();
    if (waiter) waiter(step);
    else ready.push(step);
  });
  return {
    send: job => emulator.serial0_send(job + '\n'),
    next: limit_s => ready.length ? Promise.resolve(ready.shift()) : new Promise(resolve => {
      const timer = setTimeout(() => resolve(
        { step: 'timeout', ok: false, limit_s, console: console_lines.slice(-20) }), limit_s * 1000);
      waiting.push(step => { clearTimeout(timer); resolve(step); });
    }),
  };
}
