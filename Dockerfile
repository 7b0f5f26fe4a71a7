# The image of one service: docker build --build-arg SERVICE=sip-ua -t dialbus/sip-ua .   (SERVICE: a folder of services/)
FROM python:3.11-slim-bookworm

ENV PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1

# The user owns what a service writes (its announcement, recordings, caches) and no code.
RUN groupadd --system --gid 10001 dialbus \
 && useradd --system --uid 10001 --gid dialbus --home-dir /var/lib/dialbus dialbus \
 && install -d -o dialbus -g dialbus /run/dialbus /var/lib/dialbus /var/lib/dialbus/config

ARG SERVICE

# Dependencies change seldom: they have a layer of their own.
COPY services/${SERVICE}/requirements.lock /app/requirements.lock
RUN pip install --require-hashes -r /app/requirements.lock

# Of services/$SERVICE, .dockerignore leaves the package and the lock.
COPY scripts/healthcheck.py /app/healthcheck.py
COPY shared/dialbus /app/dialbus
COPY services/${SERVICE} /app
RUN python -m compileall -q /app

ENV SERVICE=${SERVICE} PYTHONPATH=/app PYTHONUNBUFFERED=1 DIALBUS_RUN_DIR=/run/dialbus
WORKDIR /var/lib/dialbus
USER dialbus
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 CMD ["python", "/app/healthcheck.py"]
# Folders are hyphenated, packages are not. exec: the signals are the service's.
CMD exec python -m "$(echo "$SERVICE" | tr - _)"
