# Bash with its own features and coreutils as children.
set -u
export LC_ALL=C TZ=UTC
echo "$BASH_VERSION"
declare -A map=([one]=1 [two]=2 [three]=3)
for key in $(printf '%s\n' "${!map[@]}" | sort); do echo "$key=${map[$key]}"; done
fib() { local n=$1; if ((n < 2)); then echo $n; else echo $(($(fib $((n - 1))) + $(fib $((n - 2))))); fi; }
echo "fib $(fib 6)"
text="The quick brown fox"
echo "${text^^} ${text//o/0} ${text:4:5} ${#text} ${text##* }"
[[ $text =~ ([a-z]+)\ brown ]] && echo "matched ${BASH_REMATCH[1]}"
seq 1 20 | sort -rn | head -5 | paste -sd,
seq 100 | sha256sum; seq 100 | sha1sum; seq 100 | md5sum; seq 100 | cksum; seq 1000 | b2sum
date -u -d @1700000000 '+%F %T %j %U'
printf 'abc\0\1\2\377' | od -A x -t x1z
seq 30 | split -l 10 - part. && wc -l part.?? && cat part.?? | tac | tail -2
seq 5 | tr 1-5 a-e | tee copy | cat -n
printf 'b 2\na 1\nc 3\n' | sort | join - <(printf 'a x\nb y\n')
mkdir -p tree/a/b; touch -d @1700000000 tree/a/b/file; ln -s ../file tree/a/link; chmod 640 tree/a/b/file
ls -ld --time-style=+%s tree/a/b/file | cut -d' ' -f1,2,5-; stat -c '%A %s %Y %n' tree/a/b/file; readlink tree/a/link
printf 'x%.0s' {1..1000} | wc -c; expr 7 \* 191; factor 1234567890123 18446744073709551557
printf '%5.2f|%-6s|%06d|%x|%q\n' 3.14159 ab 42 255 "it's"
echo "1 2 3 4" | (read -r a b rest; echo "$b-$a-$rest")
(exit 7); echo "status $?"; false || echo "or"; ! true || echo no
bash -c 'kill -TERM $$'; echo "by signal $?"
trap 'echo trapped USR1' USR1; kill -USR1 $$; trap - USR1
{ sleep 0.1; echo background; } & wait $!; echo "waited $?"
yes | head -3 | uniq -c; echo "pipe ${PIPESTATUS[*]}"
coproc doubler { while read -r n; do echo $((n * 2)); done; }
echo 21 >&"${doubler[1]}"; read -r answer <&"${doubler[0]}"; echo "coproc $answer"
cat <<END | sed 's/^/> /' | nl
here $((6 * 7))
END
timeout 0.2 sleep 5; echo "timeout $?"
nonexistent-command 2>/dev/null; echo "missing $?"
touch plain; ./plain 2>/dev/null; echo "not executable $?"
printf '#!/bin/bash\necho "script $0 $*"\n' >script; chmod +x script; ./script a 'b c'
ulimit -n 64; ulimit -n
head -c 100000 /dev/zero | gzip -n | gzip -d | cksum
dd if=/dev/zero bs=4096 count=10 2>/dev/null | cksum
test -t 0 || echo "no terminal"; env -i A=1 env; basename /a/b.c .c; dirname /a/b.c
truncate -s 12345 sparse; stat -c %s sparse; du -b sparse | cut -f1; rm -r tree part.* copy; ls -d p* s*
