# The service image: the bundled program and the configuration on a Node base. Every RUN is in the build
# stage, which runs on the builder's own platform: images for other platforms need no emulation.
# No "syntax" line on purpose: it would be a pull.
ARG NODE_IMAGE=node:24-bookworm-slim

FROM --platform=$BUILDPLATFORM ${NODE_IMAGE} AS build
WORKDIR /build
COPY package.json package-lock.json ./
# Behind a proxy with its own certificate: docker build --secret id=ca,src=FILE
RUN --mount=type=secret,id=ca,required=false \
    if [ -f /run/secrets/ca ]; then export NODE_EXTRA_CA_CERTS=/run/secrets/ca; fi && \
    npm ci --omit=dev --ignore-scripts --no-audit --no-fund
COPY service service
COPY configs configs
# Fixed modes: what the checkout's umask left must neither change the digest nor lock the service out.
RUN node service/bundle.mjs /out/synapse.mjs && cp -r configs /out/ && chmod -R u=rwX,go=rX /out && \
    mkdir -m 0700 -p /state/data /state/models

FROM ${NODE_IMAGE}
WORKDIR /app
ENV NODE_ENV=production
COPY --from=build /out/ ./
# A named volume that is mounted here for the first time takes over this owner.
COPY --from=build --chown=1000:1000 /state/ ./

# The user "node" of the base image.
USER 1000:1000
EXPOSE 8002
ENTRYPOINT ["node", "/app/synapse.mjs"]
HEALTHCHECK --interval=30s --timeout=15s --start-period=20s --retries=3 \
    CMD ["node", "/app/synapse.mjs", "--health"]

# What the image says about itself comes last: a new version or commit leaves every layer as it is.
ARG VERSION=0.0.0-dev
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
ARG SOURCE=
ENV SYNAPSE_VERSION=${VERSION} SYNAPSE_REVISION=${REVISION}
LABEL org.opencontainers.image.title="synapse" \
      org.opencontainers.image.description="Local-first memory server for coding agents (MCP over HTTP)" \
      org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION} \
      org.opencontainers.image.created=${CREATED} \
      org.opencontainers.image.source=${SOURCE} \
      org.opencontainers.image.licenses="MIT" \
      org.synapse.data-format="1"
