// node guest.mjs BUILT URL CARD JOB...: boots Linux in v86 with its network card on the wsnic at
// URL, runs the jobs (shell functions of guest/jobs.sh with arguments) one after the other, and
// prints one line of JSON per step. Exit status 0: every step succeeded.
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';

const [built, relay, card, ...jobs] = process.argv.slice(2);
const BOOT_LIMIT_S = 240;
const JOB_LIMIT_S = 180;
// irqpoll: v86's NE2000 loses interrupts in long uploads.
const CMDLINE = 'console=ttyS0 quiet noisapnp cryptomgr.notests apparmor=0 audit=0 ' +
  '8250.nr_uarts=1 raid=noautodetect tsc=reliable mitigations=off random.trust_cpu=on irqpoll';

const print = console.log;
console.log = () => {}; // v86 logs there itself
const { WebSocket } = createRequire(path.resolve(built, 'npm') + '/')('ws');
globalThis.WebSocket = WebSocket; // this Node may have none of its own
const { V86 } = await import(path.resolve(built, 'npm/node_modules/v86/build/libv86.mjs'));

const steps = stepsOf(new V86({
  wasm_path: path.resolve(built, 'npm/node_modules/v86/build/v86.wasm'),
  bios: { buffer: read('kernel/root/usr/share/seabios/bios.bin') },
  vga_bios: { buffer: read('kernel/root/usr/share/seabios/vgabios-stdvga.bin') },
  bzimage: { buffer: read('vmlinuz') },
  initrd: { buffer: read('initrd.cpio') },
  cmdline: CMDLINE,
  memory_size: 96 << 20,
  vga_memory_size: 2 << 20,
  autostart: true,
  disable_keyboard: true,
  disable_mouse: true,
  disable_speaker: true,
  net_device: { type: card, relay_url: relay },
}));

let good = report(await steps.next(BOOT_LIMIT_S));
for (const job of jobs) {
  if (!good) break;
  steps.send(job);
  good = report(await steps.next(JOB_LIMIT_S));
}
process.exit(good ? 0 : 1);

function report(step) {
  print(JSON.stringify(step));
  return step.ok;
}

function read(name) {
  const bytes = fs.readFileSync(path.resolve(built, name));
  return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
}

// Collects the lines "@@{json}" of the serial console.
function stepsOf(emulator) {
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
