# syntax=docker/dockerfile:1

# docker build --build-arg VERSION="$(git describe --tags --always)" \
#   --build-arg COMMIT="$(git rev-parse --short=12 HEAD)" -t rosterd .

FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=devel
ARG COMMIT=unknown
RUN CGO_ENABLED=0 go build -buildvcs=false -trimpath \
    -ldflags "-s -w -X main.version=${VERSION} -X main.commit=${COMMIT}" -o /rosterd . \
    && mkdir -m 700 /state

FROM scratch
ARG VERSION=devel
ARG COMMIT=unknown
LABEL org.opencontainers.image.title="rosterd" \
      org.opencontainers.image.description="XMPP rosters from an HTTP URL" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}"
# For a contacts URL with https.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /rosterd /rosterd
# The state, rosterd.db: who is connected, and what each client was told. Give it a
# volume, or a new container begins without it. A folder of the host, or a volume of
# Kubernetes, must be writable for the user below (Kubernetes: fsGroup: 65532).
COPY --from=build --chown=65532:65532 /state /var/lib/rosterd
ENV STATE_DIRECTORY=/var/lib/rosterd
VOLUME /var/lib/rosterd
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
# refresh.listen and metrics.listen. They listen on loopback unless configured
# otherwise: set ROSTERD_REFRESH_LISTEN=:5290 together with a refresh token, and
# ROSTERD_METRICS_LISTEN=:9590.
EXPOSE 5290 9590
# Whether it runs. Not whether clients get rosters, which a new container does not
# mend: that is /readyz, or: rosterd health --ready
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["/rosterd", "health"]
# The configuration is expected in /etc/rosterd/config.yaml.
ENTRYPOINT ["/rosterd"]
