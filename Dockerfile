# syntax=docker/dockerfile:1
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# The caches keep a rebuild to the crates that changed.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --release --bin synoptic \
    && cp target/release/synoptic /usr/local/bin/synoptic

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home --home-dir /var/lib/synoptic synoptic
COPY --from=build /usr/local/bin/synoptic /usr/local/bin/synoptic
USER 10001
WORKDIR /var/lib/synoptic
EXPOSE 50051
# SIGTERM drains running queries: `docker stop` does the right thing when it waits long enough.
STOPSIGNAL SIGTERM
ENTRYPOINT ["synoptic"]
CMD ["serve", "-c", "/etc/synoptic/synoptic.toml"]
