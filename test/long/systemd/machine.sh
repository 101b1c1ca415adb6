#!/bin/bash
# A machine of its own for the service: namespaces for processes, mounts, network and the rest, and in them systemd as
# process 1 with the package at /opt/shoal, the unit as it is shipped, and its default configuration. Nothing outside changes.
#   machine.sh CHECKOUT WATCHDOG_SECONDS
set -euo pipefail
if [ "${SHOAL_MACHINE:-}" != inside ]; then
  exec env SHOAL_MACHINE=inside unshare --fork --kill-child --pid --mount --cgroup --uts --ipc --net --mount-proc bash "$0" "$@"
fi
checkout=$1 watchdog=$2
mount --make-rprivate /
ip link set lo up
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system/shoal.service.d /run/lock /run/etc /run/etc-work /run/opt
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/etc-work /etc
# The checkout may stand below what is covered next.
mkdir -p /run/opt/shoal
mount --bind "$checkout" /run/opt/shoal
mount --rbind /run/opt /opt
mount -t tmpfs tmpfs /var/lib
mount -t tmpfs tmpfs /tmp
# The lines at the head of the unit.
getent passwd shoal > /dev/null || useradd --system --home-dir /var/lib/shoal --shell /usr/sbin/nologin shoal
install -d -m 755 /etc/shoal
install -m 644 /opt/shoal/config/default.jsonc /etc/shoal/config.jsonc
rm -f /etc/shoal/environment
install -m 644 /opt/shoal/config/shoal.service /run/systemd/system/
printf '[Service]\nWatchdogSec=%s\n' "$watchdog" > /run/systemd/system/shoal.service.d/faster.conf
printf '[Unit]\nWants=shoal.service\n' > /run/systemd/system/try.target
rm -f /etc/machine-id && systemd-id128 new > /etc/machine-id
export container=other
exec /lib/systemd/systemd --system --unit=try.target --log-target=console --show-status=0
