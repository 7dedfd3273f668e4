// The machine that the page boots: options of v86's constructor, all of which its v86.d.ts explains.
// For another one put its image into files/ and name it here instead of `bzimage`, `initrd` and
// `cmdline`, as `cdrom`, `hda` or `initial_state`, such as cdrom: { url: "files/linux.iso" }.
export const machine = {
  wasm_path: "files/v86.wasm",
  bios: { url: "files/bios.bin" },
  vga_bios: { url: "files/vgabios.bin" },
  bzimage: { url: "files/vmlinuz" },
  initrd: { url: "files/initrd.cpio" },
  // "shell" is for the guest that get.sh makes. irqpoll: v86's NE2000 loses interrupts in long uploads.
  cmdline: "shell console=tty0 console=ttyS0 quiet loglevel=2 noisapnp cryptomgr.notests apparmor=0 audit=0 " +
    "8250.nr_uarts=1 raid=noautodetect tsc=reliable mitigations=off random.trust_cpu=on irqpoll",
  memory_size: 96 << 20,
  vga_memory_size: 2 << 20,
};
