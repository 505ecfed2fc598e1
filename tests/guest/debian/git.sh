# History with fixed dates, so that every object id is known.
export HOME=$PWD GIT_CONFIG_NOSYSTEM=1 TZ=UTC LC_ALL=C GIT_PAGER=cat
export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=C GIT_COMMITTER_EMAIL=c@example.org
git config --global init.defaultBranch main; git config --global gc.auto 0; git config --global pack.threads 2
git init -q repo; cd repo
for i in 1 2 3 4 5 6; do
    seq $((i * 100)) >numbers; echo "revision $i" >"file$i"
    export GIT_AUTHOR_DATE="170000000$i +0000" GIT_COMMITTER_DATE="170000000$i +0000"
    git add . && git commit -q -m "commit $i" || exit
done
git log --oneline --stat | cat
git checkout -q -b side HEAD~3; echo side >side; git add side; git commit -q -m side
git checkout -q main; git merge -q -m merged side; git log --graph --format='%h %s %an %ad' --date=iso
git diff HEAD~2 --stat; git diff HEAD~4 -- numbers | tail -5; git blame -s file3; git grep -n revision | sort
git tag -a v1 -m tag; git describe; git gc -q; git fsck --full; git count-objects -v | grep -E 'count|in-pack'
cd ..; git clone -q repo copy; cd copy; git rev-parse HEAD v1 HEAD^{tree}; git log -p -1 HEAD~2 | head -20
echo change >>numbers; git stash -q; git status --short; git stash pop -q; git status --short
git rebase -q --onto HEAD~3 HEAD~1 2>&1 | tail -1; git archive HEAD | sha256sum; git bundle create -q ../b HEAD && git bundle verify -q ../b; echo "done $?"
git -c protocol.file.allow=always fetch -q ../repo side && git rev-parse FETCH_HEAD
git nonexistent 2>/dev/null; echo $?
