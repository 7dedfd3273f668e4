// node guest.mjs BUILT URL CARD JOB...: boots Linux in v86 with its network card on the wsnic at
// URL, runs the jobs (shell functions of guest/jobs.sh with arguments) one after the other, and
// prints one line of JSON per step. Exit status 0: every step succeeded.
import { print, start, stepsOf } from './machine.mjs';

const [built, relay, card, ...jobs] = process.argv.slice(2);
const BOOT_LIMIT_S = 240;
const JOB_LIMIT_S = 180;

const steps = stepsOf(await start(built, relay, card));
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
