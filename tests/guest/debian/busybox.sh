# Run by busybox-static's shell, with busybox's own applets.
export TZ=UTC
echo hello | busybox sed 's/l/L/g'
busybox awk 'BEGIN { for (i = 1; i <= 5; i++) s += i / 7; printf "%.12f\n", s; exit 3 }'; echo $?
printf '3\n1\n2\n' | busybox sort | busybox tr '\n' ' '; echo
busybox seq 1000 | busybox sha512sum; busybox seq 1000 | busybox md5sum
busybox expr 6 \* 7; busybox date -u -d @86400 +%F
busybox seq 2000 | busybox gzip | busybox gunzip | busybox wc
busybox seq 500 | busybox bzip2 -c 2>/dev/null | busybox bunzip2 -c 2>/dev/null | busybox tail -1
mkdir d; echo x >d/f; busybox tar cf - d | busybox tar tf -
busybox sh -c 'kill -9 $$'; echo $?
busybox dc -e '2 64 ^ p' 2>/dev/null; echo '2^100' | busybox bc
busybox vi --nonexistent 2>/dev/null; busybox true && busybox uname -s
i=0; while [ $i -lt 30 ]; do i=$((i + 1)); busybox true; done; echo $i
