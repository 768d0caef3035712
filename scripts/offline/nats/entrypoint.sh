#!/bin/sh
# Arguments that begin with a dash are those of the server, as in the official image.
set -e
case ${1:-} in
  -*) set -- nats-server "$@" ;;
esac
exec "$@"
