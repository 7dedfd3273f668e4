# What the emulated machine can be told to do over its serial console: one function per job.

# say NAME STATUS [key value]...
say() {
	_name=$1
	[ "$2" = 0 ] && _ok=true || _ok=false
	shift 2
	_line="{\"step\":\"$_name\",\"ok\":$_ok"
	while [ $# -gt 1 ]; do
		_line="$_line,\"$1\":\"$2\""
		shift 2
	done
	echo "@@$_line}" > /dev/console
}

job_nic() {
	tries=0
	while [ $tries -lt 40 ]; do
		NIC=$(ls /sys/class/net | grep -v lo | head -n 1)
		[ -n "$NIC" ] && break
		tries=$((tries + 1))
		usleep 100000
	done
	ip link set lo up
	ip link set "$NIC" up
	say ready $? driver "$(basename "$(readlink "/sys/class/net/$NIC/device/driver")")" \
		mac "$(cat "/sys/class/net/$NIC/address")"
}

job_dhcp() {
	rm -f /tmp/lease
	udhcpc -i "$NIC" -n -q -t 10 -T 1 -x "hostname:$1" -s /etc/udhcpc.sh > /tmp/dhcp.log 2>&1
	[ -f /tmp/lease ]
	say dhcp $? lease "$(cat /tmp/lease 2>/dev/null)"
}

# Another card, and the same machine behind it.
job_newmac() {
	ip link set "$NIC" down && ip link set "$NIC" address "$1" && ip link set "$NIC" up
	say newmac $? mac "$(cat "/sys/class/net/$NIC/address")"
}

job_ping() {
	ping -c 3 -W 2 -s "${2:-56}" "$1" > /tmp/ping.log 2>&1
	say ping $? host "$1" summary "$(grep received /tmp/ping.log)"
}

job_dns() {
	address=$(nslookup -type=a "$1" 2>&1 | sed -n '/^Name/,$s/^Address:* *\(1: \)*//p' | head -n 1)
	[ "$address" = "$2" ]
	say dns $? name "$1" address "$address"
}

job_download() {
	sum=$(wget -q -O - "$1" | sha256sum | cut -d' ' -f1)
	[ "$sum" = "$2" ]
	say download $? sum "$sum"
}

job_upload() {
	# busybox's wget sends text only, up to the first zero byte.
	head -c $(($2 * 3 / 4)) /dev/urandom | base64 -w 0 > /tmp/upload
	sum=$(sha256sum < /tmp/upload | cut -d' ' -f1)
	answer=$(wget -q -O - --post-file /tmp/upload "$1")
	[ "$answer" = "$sum" ]
	say upload $? sum "$sum" answer "$answer"
}
