// node initramfs.mjs UNPACKED OUT: the emulated machine's root file system, a newc cpio archive
// made of the unpacked Debian i386 packages and of guest/.
import fs from 'node:fs';
import path from 'node:path';
import url from 'node:url';

const MODULES = [
  'drivers/virtio/virtio.ko', 'drivers/virtio/virtio_ring.ko',
  'drivers/virtio/virtio_pci_modern_dev.ko', 'drivers/virtio/virtio_pci_legacy_dev.ko',
  'drivers/virtio/virtio_pci.ko', 'net/core/failover.ko', 'drivers/net/net_failover.ko',
  'drivers/net/virtio_net.ko', 'drivers/net/ethernet/8390/8390.ko',
  'drivers/net/ethernet/8390/ne2k-pci.ko',
];
const FOLDERS = 'bin sbin etc proc sys dev tmp lib lib/modules usr usr/bin root run'.split(' ');
const SIGNATURE_MARK = Buffer.from('~Module signature appended~\n');
const [DIRECTORY, FILE, LINK, DEVICE] = [0o040000, 0o100000, 0o120000, 0o020000];

const here = path.dirname(url.fileURLToPath(import.meta.url));
const [unpacked, out] = process.argv.slice(2);
const parts = [];
let inode = 1;

for (const folder of FOLDERS) entry(folder, DIRECTORY | 0o755);
entry('dev/console', DEVICE | 0o600, Buffer.alloc(0), [5, 1]);
entry('bin/busybox', FILE | 0o755, fs.readFileSync(path.join(unpacked, 'bin/busybox')));
entry('bin/sh', LINK | 0o777, Buffer.from('busybox'));
entry('init', FILE | 0o755, fs.readFileSync(path.join(here, 'guest/init')));
entry('etc/jobs.sh', FILE | 0o644, fs.readFileSync(path.join(here, 'guest/jobs.sh')));
entry('etc/shell.sh', FILE | 0o644, fs.readFileSync(path.join(here, 'guest/shell.sh')));
entry('etc/udhcpc.sh', FILE | 0o755, fs.readFileSync(path.join(here, 'guest/udhcpc.sh')));
const [release] = fs.readdirSync(path.join(unpacked, 'lib/modules'));
for (const module of MODULES) {
  const file = path.join(unpacked, 'lib/modules', release, 'kernel', module);
  entry('lib/modules/' + path.basename(module), FILE | 0o644, withoutSignature(fs.readFileSync(file)));
}
entry('TRAILER!!!', 0);
fs.writeFileSync(out, Buffer.concat(parts));

function entry(name, mode, data = Buffer.alloc(0), [major, minor] = [0, 0]) {
  inode += 1;
  const path = Buffer.from(name + '\0');
  const fields = [inode, mode, 0, 0, 1, 0, data.length, 0, 0, major, minor, path.length, 0];
  const head = '070701' + fields.map(n => n.toString(16).toUpperCase().padStart(8, '0')).join('');
  parts.push(padded(Buffer.concat([Buffer.from(head), path])), padded(data));
}

function padded(bytes) {
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)]);
}

// Checking the signature costs seconds on an emulated CPU; without it the kernel is only tainted.
function withoutSignature(module) {
  const mark = module.length - SIGNATURE_MARK.length;
  if (!module.subarray(mark).equals(SIGNATURE_MARK)) return module;
  return module.subarray(0, mark - 12 - module.readUInt32BE(mark - 4));
}
