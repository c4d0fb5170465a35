"""Shell script of a Job's container. It runs buildah without privileges, in any image with a shell and buildah."""

from __future__ import annotations

WORK = "/work"
ARCHIVE = f"{WORK}/image.tar"
"""Archive of the result."""

ARCHIVE_FACTS = f"{WORK}/image-facts"
"""Size and sha256 of the archive. The file exists as soon as the archive is complete."""

STOPPED = "stopped"
"""Last message of a build that received SIGTERM."""

# The Pod's status has the script's last message: `pushed DIGEST`, `build CODE`, `push CODE` or `stopped`. Another
# message, or none, means that the build did not begin. Texts come in variables NAME_0, NAME_1…, logins in /auth/0,
# /auth/1…; the arguments are options of the build.
SCRIPT = r"""
set -u
exec 2>&1
work=/work
result=localhost/kmm-preflight:result
export HOME=$work/home XDG_RUNTIME_DIR=$work/run TMPDIR=/var/lib/containers/tmp
unset XDG_CONFIG_HOME DOCKER_CONFIG REGISTRY_AUTH_FILE BUILDAH_ISOLATION

message() { printf '%s' "$*" > /dev/termination-log; }
fail() { message "$*"; exit 1; }
text() {
  number=0
  while eval "piece=\${$1_$number-}" && [ -n "$piece" ]; do
    printf '%s' "$piece"
    number=$((number + 1))
  done
}
login() {
  if [ -s "$1/.dockerconfigjson" ]; then
    cat "$1/.dockerconfigjson" > "$2"
  elif [ -s "$1/.dockercfg" ]; then
    { printf '{"auths":' && cat "$1/.dockercfg" && printf '}'; } > "$2"
  fi
}
# The shell handles a signal only in wait. After SIGTERM the log can be read for five more seconds.
run() { "$@" & child=$!; wait "$child"; }
stop() {
  trap '' TERM
  message stopped
  kill "$child" 2> /dev/null
  sleep 5
  exit 143
}
child=
trap stop TERM

auth=$HOME/.config/containers
mkdir -p "$TMPDIR" $work/context $work/certs "$auth" "$HOME/.docker" "$XDG_RUNTIME_DIR/containers" || fail prepare
text DOCKERFILE > $work/Dockerfile && text REGISTRY_CA > $work/certs/ca.crt || fail prepare
text REGISTRIES > $work/registries.conf || fail prepare
# buildah searches a login in these three files, in this order.
login /auth/0 "$XDG_RUNTIME_DIR/containers/auth.json" || fail prepare
login /auth/1 "$auth/auth.json" || fail prepare
login /auth/2 "$HOME/.docker/config.json" || fail prepare
[ -e /etc/containers/policy.json ] ||
  printf '{"default":[{"type":"insecureAcceptAnything"}]}' > "$auth/policy.json" || fail prepare

buildah='buildah --storage-driver=vfs'
[ ! -s $work/registries.conf ] || buildah="$buildah --registries-conf=$work/registries.conf"
trust=
[ ! -s $work/certs/ca.crt ] || trust="--cert-dir=$work/certs"
# If this fails, the builder is broken. Later failures are those of the build.
$buildah info > $work/info || { cat $work/info; fail prepare; }

run $buildah bud --isolation=chroot $PULL_TLS $trust "$@" --tag=$result --file=$work/Dockerfile $work/context ||
  fail "build $?"
if [ -n "$IMAGE" ]; then
  echo "PUSH $IMAGE"
  run $buildah push $PUSH_TLS $trust --digestfile=$work/digest $result "docker://$IMAGE" || fail "push $?"
  message "pushed $(cat $work/digest)"
  exit 0
fi
echo "SAVE the image"
run $buildah push $result "oci-archive:$work/image.tar" || fail "save $?"
size=$(wc -c < $work/image.tar) && sum=$(sha256sum < $work/image.tar) || fail save
printf '%s %s\n' "$size" "${sum%% *}" > $work/writing && mv $work/writing $work/image-facts || fail save
# The suite reads the archive from outside, then deletes the Job.
trap 'exit 0' TERM
while :; do
  sleep 3600 &
  wait $!
done
"""
