# One image with the `lakegauge` executable: a service is a subcommand of it.
#
#   docker build --tag lakegauge .
#   docker run --rm lakegauge --help
#
# Any builder will do, BuildKit or the older one. What changes rarely stands first, so that a change
# of the code compiles our own crates only. Where no registry can be reached, scripts/offline-images
# makes the bases, and offline.env says their names for the two arguments.

ARG RUST_IMAGE=rust:1.95.0-slim-trixie
ARG DEBIAN_IMAGE=debian:trixie-slim

# The manifests alone, of whatever crates there are: a change of the code leaves this stage's outcome,
# and with it the layer of dependencies, as it was.
FROM ${DEBIAN_IMAGE} AS manifests
WORKDIR /manifests
COPY . .
RUN find . -type f ! -name Cargo.toml ! -name Cargo.lock -delete && find . -type d -empty -delete

FROM ${RUST_IMAGE} AS build
WORKDIR /lakegauge
# Function names stay in backtraces; the line numbers of the release profile would double the image.
ARG CARGO_PROFILE_RELEASE_DEBUG=none
# How much is optimised; tests of the image itself take less of it, which is compiled sooner.
ARG CARGO_PROFILE_RELEASE_LTO=thin
ARG CARGO_PROFILE_RELEASE_OPT_LEVEL=3
ENV CARGO_PROFILE_RELEASE_DEBUG=${CARGO_PROFILE_RELEASE_DEBUG} \
  CARGO_PROFILE_RELEASE_LTO=${CARGO_PROFILE_RELEASE_LTO} \
  CARGO_PROFILE_RELEASE_OPT_LEVEL=${CARGO_PROFILE_RELEASE_OPT_LEVEL} \
  CARGO_TERM_COLOR=never

# The dependencies, compiled for empty crates with our manifests.
COPY --from=manifests /manifests ./
RUN for crate in shared/* services/* grafana/generator integration-tests; do \
      mkdir "$crate/src" && touch "$crate/src/lib.rs"; \
    done \
  && rm services/lakegauge/src/lib.rs \
  && echo 'fn main() {}' >services/lakegauge/src/main.rs \
  && cargo build --release --locked --package lakegauge

# Ours. Cargo compares times, and the files may be older than the empty crates.
COPY migrations migrations
COPY nats nats
COPY prometheus prometheus
COPY grafana grafana
COPY shared shared
COPY services services
RUN find shared services -name '*.rs' -exec touch {} + \
  && cargo build --release --locked --package lakegauge

# What the image gets, in one piece: besides the executable the authorities that TLS to PostgreSQL and
# NATS is checked against.
RUN mkdir -p /image/usr/local/bin /image/etc/ssl/certs \
  && cp target/release/lakegauge /image/usr/local/bin/ \
  && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/

FROM ${DEBIAN_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="Lakegauge" \
  org.opencontainers.image.description="Telemetry of a data lake and a data warehouse, counted exactly once" \
  org.opencontainers.image.licenses="Apache-2.0" \
  org.opencontainers.image.version="${VERSION}" \
  org.opencontainers.image.revision="${REVISION}"
# One copy: the older builder loses a layer between two.
COPY --from=build /image/ /
# A container's loopback address is reached by nobody.
ENV ADMIN_ADDR=0.0.0.0:8010 METRICS_ADDR=0.0.0.0:8000
EXPOSE 8000 8010
# Nothing is written outside of what NATS and PostgreSQL keep, so any user will do.
USER 10001:10001
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s --retries=3 \
  CMD ["lakegauge", "healthcheck"]
ENTRYPOINT ["lakegauge"]
CMD ["--help"]
