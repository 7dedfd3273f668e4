// node node.mjs BUILT URL FRAME [CERTIFICATE]: prints what ask.mjs says, by the package ws.
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';
import { ask } from './ask.mjs';

const [built, url, frame, certificate] = process.argv.slice(2);
const { WebSocket } = createRequire(path.resolve(built) + '/')('ws');
const options = certificate ? [{ ca: fs.readFileSync(certificate) }] : [];
ask(WebSocket, url, frame, options, (text) => console.log(text));
