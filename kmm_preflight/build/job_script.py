"""What a Job's container runs: buildah without privilege, in any image that has a shell and buildah."""

from __future__ import annotations

WORK = "/work"
TOLD = f"{WORK}/told"
"""Size and sha256 of image.tar beside it; there once that is whole."""

STOPPED = "stopped"
"""The last words of a build that was asked to end."""

# Its last words stand in the Pod's status: `pushed DIGEST`, `build CODE`, `push CODE`, `stopped`; anything else, or
# none, means that it came to no build. Texts come in variables NAME_0, NAME_1…, logins in /auth/0, /auth/1…; the
# arguments are options of the build.
SCRIPT = r"""
set -u
exec 2>&1
work=/work
result=localhost/kmm-preflight:result
export HOME=$work/home XDG_RUNTIME_DIR=$work/run TMPDIR=/var/lib/containers/tmp
unset XDG_CONFIG_HOME DOCKER_CONFIG REGISTRY_AUTH_FILE BUILDAH_ISOLATION

words() { printf '%s' "$*" > /dev/termination-log; }
ended() { words "$*"; exit 1; }
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
# The shell hears a signal only while it waits. Whoever sent it can still read the log for a while.
run() { "$@" & child=$!; wait "$child"; }
stop() {
  trap '' TERM
  words stopped
  kill "$child" 2> /dev/null
  sleep 5
  exit 143
}
child=
trap stop TERM

auth=$HOME/.config/containers
mkdir -p "$TMPDIR" $work/context $work/certs "$auth" "$HOME/.docker" "$XDG_RUNTIME_DIR/containers" || ended prepare
text DOCKERFILE > $work/Dockerfile && text REGISTRY_CA > $work/certs/ca.crt || ended prepare
text REGISTRIES > $work/registries.conf || ended prepare
# buildah looks for a login in these three, one after the other.
login /auth/0 "$XDG_RUNTIME_DIR/containers/auth.json" || ended prepare
login /auth/1 "$auth/auth.json" || ended prepare
login /auth/2 "$HOME/.docker/config.json" || ended prepare
[ -e /etc/containers/policy.json ] ||
  printf '{"default":[{"type":"insecureAcceptAnything"}]}' > "$auth/policy.json" || ended prepare

buildah='buildah --storage-driver=vfs'
[ ! -s $work/registries.conf ] || buildah="$buildah --registries-conf=$work/registries.conf"
trust=
[ ! -s $work/certs/ca.crt ] || trust="--cert-dir=$work/certs"
# Where this does not run the builder is to blame, after it the build.
$buildah info > $work/info || { cat $work/info; ended prepare; }

run $buildah bud --isolation=chroot $PULL_TLS $trust "$@" --tag=$result --file=$work/Dockerfile $work/context ||
  ended "build $?"
if [ -n "$IMAGE" ]; then
  echo "PUSH $IMAGE"
  run $buildah push $PUSH_TLS $trust --digestfile=$work/digest $result "docker://$IMAGE" || ended "push $?"
  words "pushed $(cat $work/digest)"
  exit 0
fi
echo "SAVE the image"
run $buildah push $result "oci-archive:$work/image.tar" || ended "save $?"
size=$(wc -c < $work/image.tar) && sum=$(sha256sum < $work/image.tar) || ended save
printf '%s %s\n' "$size" "${sum%% *}" > $work/writing && mv $work/writing $work/told || ended save
# It is read from outside, by whom the Job is deleted then.
trap 'exit 0' TERM
while :; do
  sleep 3600 &
  wait $!
done
"""
