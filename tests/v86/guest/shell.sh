# What the emulated machine does for a person (the word "shell" on its command line): takes an
# address, and gives a shell on the serial console and on the screen.
say() { :; }
job_nic
mac=$(cat "/sys/class/net/$NIC/address")
hostname "guest-$(echo "$mac" | cut -d: -f5- | tr -d :)"

console() {
	stty sane < "/dev/$1"
	while :; do
		setsid -c sh < "/dev/$1" > "/dev/$1" 2>&1
	done
}

echo "Asking for an address as $mac ..." > /dev/console
udhcpc -i "$NIC" -b -A 3 -x "hostname:$(hostname)" -s /etc/udhcpc.sh > /tmp/dhcp.log 2>&1
clear > /dev/tty1
for tty in ttyS0 tty1; do
	{
		echo
		echo "$(hostname), $(uname -sr)"
		cat /tmp/lease 2> /dev/null || echo "no address yet, see /tmp/dhcp.log"
		echo
	} > "/dev/$tty"
done
export PS1='\h# ' TERM=linux HOME=/root
cd /root
console tty1 &
TERM=dumb console ttyS0
