# Tally in a container: `docker build -t tally .`; compose.yaml runs it beside a Redis.
# docs/operations/README.md tells how to keep it running.
FROM python:3.14-slim AS build
WORKDIR /source
RUN python -m venv /opt/tally
COPY requirements.lock .
RUN /opt/tally/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY . .
RUN /opt/tally/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.14-slim
# A number that names nobody on the host; the data directory is its alone.
RUN useradd --system --uid 10001 --no-create-home tally && install -d -m 0700 -o tally -g tally /var/lib/tally
COPY --from=build /opt/tally /opt/tally
# Listening on all of the container's addresses is only allowed with authentication.
ENV PATH=/opt/tally/bin:$PATH \
    TALLY_DATA_DIRECTORY=/var/lib/tally \
    TALLY_CUSTOMERS_HOST=0.0.0.0 \
    TALLY_ACCOUNTS_HOST=0.0.0.0 \
    TALLY_AUTH_MODE=jwt
USER tally
VOLUME /var/lib/tally
EXPOSE 8080 8090
HEALTHCHECK --start-period=30s --timeout=5s CMD ["python", "-c", "\
from urllib.request import urlopen; \
[urlopen(f'http://127.0.0.1:{port}/health/ready', timeout=2) for port in (8080, 8090)]"]
ENTRYPOINT ["tally"]
CMD ["run"]
