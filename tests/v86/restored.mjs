// node restored.mjs BUILT URL GATEWAY: a Linux in v86 takes an address, its state is saved, and machines
// are restored from that: one that takes a new MAC address, and two at a time that do not. Prints one
// line of JSON per step. Exit status 0: every step went as it should.
import { print, start, stepsOf } from './machine.mjs';

const [built, relay, gateway] = process.argv.slice(2);
const BOOT_LIMIT_S = 240;
const JOB_LIMIT_S = 120;
const NEW_MAC = '02:00:5e:00:00:77';

let good = true;

// One step of a machine, which is to succeed or fail.
async function step(who, steps, job, wanted) {
  if (job) steps.send(job);
  const done = await steps.next(job ? JOB_LIMIT_S : BOOT_LIMIT_S);
  print(JSON.stringify({ who, wanted, ...done }));
  if (done.step === 'timeout' || done.ok !== wanted) good = false;
}

async function restored(state) {
  const emulator = await start(built, relay, 'virtio', state.slice(0));
  await new Promise(resolve => emulator.add_listener('emulator-started', resolve));
  return [emulator, stepsOf(emulator)];
}

const first = await start(built, relay, 'virtio');
const firstSteps = stepsOf(first);
await step('first', firstSteps, null, true);
await step('first', firstSteps, 'dhcp saved', true);
await step('first', firstSteps, `ping ${gateway}`, true);
const state = await first.save_state();
await first.destroy();

const [changed, changedSteps] = await restored(state);
await step('changed', changedSteps, `ping ${gateway}`, true);
await step('changed', changedSteps, `newmac ${NEW_MAC}`, true);
await step('changed', changedSteps, `ping ${gateway}`, true);
await step('changed', changedSteps, 'dhcp changed', true);
await step('changed', changedSteps, `ping ${gateway}`, true);
await changed.destroy();

const [original, originalSteps] = await restored(state);
await step('original', originalSteps, `ping ${gateway}`, true);
const [clone, cloneSteps] = await restored(state);
await step('clone', cloneSteps, `ping ${gateway}`, false);
await step('original', originalSteps, `ping ${gateway}`, true);
await step('clone', cloneSteps, `newmac ${NEW_MAC}`, true);
await step('clone', cloneSteps, 'dhcp clone', true);
await step('clone', cloneSteps, `ping ${gateway}`, true);
await step('original', originalSteps, `ping ${gateway}`, true);
await clone.destroy();
await original.destroy();
process.exit(good ? 0 : 1);
