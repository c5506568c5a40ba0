#!/usr/bin/env bash
# Brings this machine to where `make demo`, `make test` and `make check` work: system packages, a virtual environment.
# Running it again costs a moment when nothing changed.
set -euo pipefail
cd "$(dirname "$0")/.."

PACKAGES=(podman buildah runc conmon netavark aardvark-dns iptables iproute2 mosquitto docker-registry
  debian-archive-keyring qemu-user-static binfmt-support uidmap slirp4netns catatonit util-linux ca-certificates openssh-client
  openssh-server stunnel4 bubblewrap)

fail() { echo "setup: $*" >&2; exit 1; }

find_python() {
  local candidate
  for candidate in python3.13 python3.12 python3.11 python3; do
    if command -v "$candidate" >/dev/null && "$candidate" -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  fail "Python 3.11 or newer is needed; on Debian 12 or Ubuntu 24.04: apt-get install python3 python3-venv"
}

missing_packages() {
  local package
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
  done
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; elif [ -t 0 ]; then sudo "$@"; else sudo -n "$@"; fi
}

# Whether this user may install packages; at a terminal sudo asks for the password.
may_install() {
  [ "$(id -u)" = 0 ] || { command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; }
}

install_packages() {
  command -v dpkg-query >/dev/null || fail "this is not Debian or Ubuntu; please install: ${PACKAGES[*]}"
  local wanted=("${PACKAGES[@]}") missing
  "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null || wanted+=(python3-venv)
  mapfile -t missing < <(missing_packages "${wanted[@]}")
  [ "${#missing[@]}" = 0 ] && return
  may_install || fail "these packages are missing; please install them: apt-get install ${missing[*]}"
  echo "setup: installing ${missing[*]}"
  # The services that Debian would start are not wanted here: the demo and the tests start their own, on free ports.
  local policy=/usr/sbin/policy-rc.d made_policy=
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null && as_root chmod 755 "$policy" && made_policy=1
  fi
  as_root apt-get update -q >/dev/null
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" >/dev/null \
    || { [ -z "$made_policy" ] || as_root rm -f "$policy"; fail "apt-get could not install: ${missing[*]}"; }
  [ -z "$made_policy" ] || as_root rm -f "$policy"
}

install_python_packages() {
  local stamp=.venv/.setup-stamp wanted
  wanted=$(cat pyproject.toml tools/setup.sh | sha256sum; "$PYTHON" --version)
  [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return
  echo "setup: making the virtual environment .venv"
  [ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
  .venv/bin/python -m pip install -q --disable-pip-version-check 'uv>=0.5,<1'
  # uv has certificates of its own, unlike all else here; a site with its own authority adds it to the system's.
  local system=/etc/ssl/certs/ca-certificates.crt
  if [ -z "${SSL_CERT_FILE:-}" ] && [ -e "$system" ]; then export SSL_CERT_FILE=$system; fi
  .venv/bin/uv pip install -q --python .venv/bin/python -e '.[dev,examples]'
  echo "$wanted" >"$stamp"
}

# Steps of images for other architectures run by emulation, which the kernel has to be told of. Where that is refused,
# as in many containers, all but those steps works, and their tests are skipped.
enable_emulation() {
  local table=/proc/sys/fs/binfmt_misc
  case "$(uname -m)" in x86_64) ;; *) return 0 ;; esac
  [ ! -e "$table/qemu-aarch64" ] || return 0
  may_install || return 0
  [ -e "$table/register" ] || as_root mount -t binfmt_misc binfmt_misc "$table" 2>/dev/null || return 0
  as_root update-binfmts --enable >/dev/null 2>&1 || true
}

PYTHON=$(find_python)
install_packages
enable_emulation
install_python_packages
tools/grpcurl.sh
