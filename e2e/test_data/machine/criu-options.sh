# What the machine that `runtime_checkpoint` switches on for options of CRIU does: prints `name: value` lines, which the
# case reads.
. /e2e/counting.sh

# What a file has of the disk, in KiB.
size() { du -k "$1" | cut -f1; }

# After what the firmware wrote.
echo
# A lock of a file.
take locks
say locks "$(quiet ctk-runtime run --detach box)"
until_is test -e $count
say locks-refused "$(quiet ctk-runtime checkpoint --image-path /run/locks-no box | tr -d '\n') $(status)"
say locks-checkpoint "$(quiet ctk-runtime checkpoint --file-locks --image-path /run/locks box)"
was=$(tail -n 1 $count)
say locks-free "$(flock -n rootfs/tmp/lock echo free || echo held)"
say locks-restore "$(quiet ctk-runtime restore --detach --file-locks --image-path /run/locks box) $(goes_on "$was")"
say locks-held "$(flock -n rootfs/tmp/lock echo free || echo held)"
ctk-runtime delete --force box

# A socket whose other end is somebody's of the host.
python3 -c "
import os, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind('/run/host/log')
while True:
    text = s.recv(99).decode()
    open('/run/heard.new', 'w').write(text)
    os.rename('/run/heard.new', '/run/heard')
" &
until_is test -e /run/host/log
rm -f $count
take socket
say socket "$(quiet ctk-runtime run --detach box)"
until_is test -e /run/heard
say socket-refused "$(quiet ctk-runtime checkpoint --image-path /run/socket-no box | tr -d '\n') $(status)"
say socket-checkpoint "$(quiet ctk-runtime checkpoint --ext-unix-sk --image-path /run/socket box)"
sleep 0.2
was=$(cat /run/heard)
say socket-restore "$(quiet ctk-runtime restore --detach --ext-unix-sk --image-path /run/socket box)"
hears_more() { test "$(cat /run/heard)" -gt "$was"; }
say socket-heard "$(until_is hears_more; hears_more && echo yes)"
ctk-runtime delete --force box

# As from a shell.
rm -f $count
take counter
say job "$(quiet ctk-runtime run --detach box)"
until_is test -e $count
say job-checkpoint "$(quiet ctk-runtime checkpoint --shell-job --image-path /run/job box)"
was=$(tail -n 1 $count)
say job-restore "$(quiet ctk-runtime restore --detach --shell-job --image-path /run/job box) $(goes_on "$was")"

# Memory once only.
say dedup-pre "$(quiet ctk-runtime checkpoint --pre-dump --image-path /run/dedup-pre box)"
before=$(size /run/dedup-pre/pages-1.img)
say dedup-checkpoint "$(quiet ctk-runtime checkpoint --auto-dedup --parent-path ../dedup-pre --image-path /run/dedup box)"
after=$(size /run/dedup-pre/pages-1.img)
say dedup-less "$(test "$after" -lt "$before" && echo yes || echo "$before then $after")"
was=$(tail -n 1 $count)
say dedup-restore "$(quiet ctk-runtime restore --detach --auto-dedup --image-path /run/dedup box) $(goes_on "$was")"
say dedup-used "$(test "$(size /run/dedup-pre/pages-1.img)" -lt "$after" && echo yes)"

# A network namespace with nothing in it.
up() { ctk-runtime exec box busybox ip link show lo 2>&1 | grep -c '[<,]UP[,>]'; }
say empty-before "$(up)"
say empty-checkpoint "$(quiet ctk-runtime checkpoint --empty-ns network --image-path /run/empty box)"
was=$(tail -n 1 $count)
say empty-restore "$(quiet ctk-runtime restore --detach --empty-ns network --image-path /run/empty box) $(goes_on "$was")"
say empty-after "$(up)"
say empty-other "$(quiet ctk-runtime checkpoint --empty-ns ipc --image-path /run/ipc box)"
ctk-runtime delete --force box

# Another profile of AppArmor.
mount -t securityfs none /sys/kernel/security 2> /dev/null
cat /e2e/profile > /sys/kernel/security/apparmor/.load
say profiles $?
take confined
say profile "$(quiet ctk-runtime run --detach box)"
label() { cat "/proc/$(ctk-runtime state box | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')/attr/current"; }
say profile-before "$(label)"
say profile-checkpoint "$(quiet ctk-runtime checkpoint --image-path /run/profile box)"
was=$(tail -n 1 $count)
say profile-restore "$(quiet ctk-runtime restore --detach --lsm-profile apparmor:e2e-two --image-path /run/profile box) $(goes_on "$was")"
say profile-after "$(label)"
ctk-runtime delete --force box

# Memory goes to a server.
take counter
rm -f $count
say server "$(quiet ctk-runtime run --detach box)"
until_is test -e $count
mkdir /run/pages
timeout 60 criu page-server --images-dir /run/pages --address 127.0.0.1 --port 9876 > /run/pages.log 2>&1 &
listens() { grep -q ':2694 .* 0A ' /proc/net/tcp; }
until_is listens
say server-checkpoint "$(quiet timeout 60 ctk-runtime checkpoint --page-server 127.0.0.1:9876 --image-path /run/served box)"
wait $!
say server-log "$(tail -3 /run/pages.log)"
say server-pages "$(ls /run/pages | grep -q '^pages-' && echo sent) $(ls /run/served | grep -c '^pages-')"
was=$(tail -n 1 $count)
cp /run/pages/page* /run/served
say server-restore "$(quiet ctk-runtime restore --detach --image-path /run/served box) $(goes_on "$was")"
say server-none "$(quiet timeout 60 ctk-runtime checkpoint --page-server 127.0.0.1:9 --image-path /run/no-server box | tr -d '\n') $(status)"
ctk-runtime delete --force box

# Namespaces that are not made again: it is said before anything happens.
take users
say users "$(quiet ctk-runtime run --detach box)"
say users-checkpoint "$(quiet ctk-runtime checkpoint --image-path /run/users box) $(status)"
say users-left "$(ls /run/users 2>&1)"
ctk-runtime delete --force box
take users
say users-restore "$(quiet ctk-runtime restore --image-path /run/job other)"
unshare --pid --fork --mount-proc sleep 1000 &
until_is pgrep -x sleep
sed "s/@PID@/$(pgrep -x sleep | head -1)/" configs/pids.json > config.json
say pids "$(quiet ctk-runtime run --detach box)"
say pids-checkpoint "$(quiet ctk-runtime checkpoint --image-path /run/pids box) $(status)"
say pids-restore "$(quiet ctk-runtime restore --image-path /run/job other)"
ctk-runtime delete --force box
say left "$(ls /run/ctk-runtime)"
say done "$(cut -d' ' -f1 /proc/uptime)"
sync
poweroff -f
