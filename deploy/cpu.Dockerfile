# agsr serve on CPUs. From the root of the checkout: docker build -f deploy/cpu.Dockerfile -t agsr .
FROM python:3.11-slim-bookworm AS build
COPY . /src
RUN python -m venv /opt/agsr \
 && /opt/agsr/bin/pip install --no-cache-dir -c /src/constraints.txt '/src[cpu,heif,serve,video]'

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin agsr \
 && install -d -o 10001 -g 10001 /cache
COPY --from=build /opt/agsr /opt/agsr
USER 10001
ENV AGSR_CACHE=/cache PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
VOLUME /cache
EXPOSE 8188
HEALTHCHECK --start-period=60s CMD ["/opt/agsr/bin/python", "-c", \
 "import urllib.request as r; r.urlopen('http://127.0.0.1:8188/readyz', timeout=5)"]
ENTRYPOINT ["/opt/agsr/bin/agsr", "serve", "--host", "0.0.0.0"]
