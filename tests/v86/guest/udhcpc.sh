#!/bin/busybox sh
# What udhcpc runs in the emulated machine: sets address, route and resolver, writes the lease down.
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ip addr flush dev "$interface"
ip addr add "$ip/$mask" dev "$interface"
[ -n "$router" ] && ip route replace default via "${router%% *}"
: > /etc/resolv.conf
for server in $dns; do
	echo "nameserver $server" >> /etc/resolv.conf
done
[ -n "$mtu" ] && ip link set "$interface" mtu "$mtu"
echo "ip=$ip mask=$mask router=$router dns=$dns lease=$lease" > /tmp/lease
