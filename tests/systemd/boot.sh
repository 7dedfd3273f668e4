#!/bin/sh
# Boots this machine's systemd as the first process of new PID, mount, cgroup, IPC and UTS
# namespaces, in the network namespace it is started in. Run as root:
#
#   boot.sh FOLDER INSTALLED
#
# FOLDER is an empty folder to work in. INSTALLED holds usr and etc as "make install" makes them:
# the system sees it above this machine's /usr, and an /etc of its own. Or INSTALLED is a whole
# Debian, of which the system changes a copy. Of its units it sees only those that it needs: nothing
# of them touches hardware or settings of the machine. The process becomes unshare(1), whose only child is systemd; killing unshare kills everything.
set -eu
PATH=$PATH:/usr/sbin:/sbin

folder=$1
installed=$2

if [ "${3-}" != inside ]; then
	# All of systemd's processes live below a group of their own, wherever this machine has its
	# groups: there is one hierarchy of version 2, and it can be mounted anywhere.
	exec unshare --mount --propagation private sh -eu -c '
		mkdir "$2/groups"
		mount -n -t cgroup2 cgroup2 "$2/groups"
		mkdir -p "$2/groups/$(basename "$2")"
		echo $$ > "$2/groups/$(basename "$2")/cgroup.procs"
		umount -n "$2/groups"
		exec unshare --mount --propagation private --pid --fork --kill-child \
			--uts --ipc --cgroup "$1" "$2" "$3" inside
	' boot "$0" "$folder" "$installed"
fi

# This machine's programs.
borrow() {
	mount -n -t tmpfs -o mode=0755 tmpfs "$root"
	cd "$root"
	mkdir -p usr etc/systemd/system proc sys run tmp var dev
	mount -n -t overlay -o ro,lowerdir="$installed/usr:/usr" overlay usr
	for name in bin sbin lib lib32 lib64 libx32; do
		[ ! -L "/$name" ] || ln -s "usr/$name" "$name"
	done
	cp -a "$installed/etc/." etc
	cp -L /etc/os-release etc
	cp -aL /etc/ld.so.* etc
	cat > etc/passwd <<- END
		root:x:0:0:root:/root:/bin/sh
		nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
	END
	printf 'root:x:0:\nnogroup:x:65534:\n' > etc/group
	printf 'passwd: files\ngroup: files\nhosts: files\n' > etc/nsswitch.conf
}

# A Debian of its own.
copy() {
	mkdir "$folder/changes"
	mount -n -t tmpfs -o mode=0755 tmpfs "$folder/changes"
	mkdir "$folder/changes/files" "$folder/changes/work"
	mount -n -t overlay -o "lowerdir=$installed,upperdir=$folder/changes/files,workdir=$folder/changes/work" \
		overlay "$root"
	cd "$root"
	rm -r etc/systemd/system/*.wants
}

root=$folder/root
mkdir "$root"
if [ -e "$installed/etc/os-release" ]; then copy; else borrow; fi
mkdir .old
cp -L /etc/resolv.conf etc
# A system that was booted before: not one to be set up.
echo 0123456789abcdef0123456789abcdef > etc/machine-id
echo bed > etc/hostname
: > etc/fstab

for target in sysinit sockets timers; do
	wants=usr/lib/systemd/system/$target.target.wants
	[ ! -d "$wants" ] || mount -n -t tmpfs tmpfs "$wants"
done
for unit in systemd-journald systemd-sysusers systemd-tmpfiles-setup; do
	ln -s "../$unit.service" "usr/lib/systemd/system/sysinit.target.wants/$unit.service"
done

mount -n -t proc proc proc
mount -n -t sysfs -o ro sysfs sys
mount -n -t cgroup2 cgroup2 sys/fs/cgroup
mount -n -t tmpfs -o mode=0755 tmpfs run
mount -n -t tmpfs -o mode=1777 tmpfs tmp
mount -n -t tmpfs -o mode=0755 tmpfs dev
mkdir dev/net dev/pts dev/shm
for name in null zero full random urandom tty; do
	: > "dev/$name"
	mount -n --bind "/dev/$name" "dev/$name"
done
# As udev makes it; without udev the kernel's own is for root alone.
mknod -m 0666 dev/net/tun c 10 200
mount -n -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts dev/pts
mount -n -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr

pivot_root . .old
cd /
umount -l .old
rmdir .old
# As on a machine of its own; systemd leaves this to whoever makes a container.
mount --make-rshared /
hostname bed
exec env -i container=bed PATH=/usr/sbin:/usr/bin:/sbin:/bin \
	/lib/systemd/systemd --system --unit=basic.target --log-target=journal --show-status=0
