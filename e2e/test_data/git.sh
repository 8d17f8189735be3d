# Makes the repositories that cases add, always the same commits.
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.test GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.test
export GIT_AUTHOR_DATE=2020-01-01T00:00:00Z GIT_COMMITTER_DATE=2020-01-01T00:00:00Z
git init -q -b main repo && cd repo
mkdir -p sub/deep && echo readme > README && echo tool > tool && chmod 755 tool && echo leaf > sub/deep/leaf
ln -s README link && ln -s ../README sub/up
git add . && git commit -q -m one && git tag v1 && git tag -a -m annotated v1a
echo second >> README && git commit -q -a -m two
git checkout -q -b side v1 && echo side > side.txt && git add . && git commit -q -m side && git checkout -q main
cd .. && git clone -q --bare repo repo.git && git -C repo.git config uploadpack.allowAnySHA1InWant true

# A repository that is built.
git init -q -b main whole && cd whole
printf 'FROM scratch\nCOPY . /all\n' > Dockerfile && echo one > file && echo x > .dockerignore && echo x > x
mkdir -p sub/deep && printf 'FROM scratch\nCOPY . /sub\n' > sub/Dockerfile && echo leaf > sub/deep/leaf
printf 'FROM scratch\nCOPY file /other\n' > other.dockerfile && ln -s file link
git add . && git commit -q -m one && git tag v1
echo two > file && git commit -q -a -m two
git checkout -q -b side v1 && echo side > side && git add . && git commit -q -m side && git checkout -q main
cd .. && git clone -q --bare whole whole.git && git -C whole.git config uploadpack.allowAnySHA1InWant true
