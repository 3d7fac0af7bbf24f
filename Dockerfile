# The service alone: a bundle, onnxruntime and FastAPI; no torch.
#
#   skinlesion export ensemble=runs/six/ensemble/ensemble.json out=bundle
#   docker build --tag skinlesion .
#   docker run --rm --read-only --tmpfs /tmp --cap-drop=ALL --security-opt=no-new-privileges --publish 127.0.0.1:8000:8000 \
#     --volume "$PWD/bundle:/bundle:ro" skinlesion
FROM python:3.11.16-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7 AS build
WORKDIR /src
# What the service needs is a group of its own in pyproject.toml: the package's own requirements bring torch.
COPY pyproject.toml README.md LICENSE ./
COPY skinlesion skinlesion
COPY conf conf
COPY docker docker
RUN sh docker/install.sh /venv

FROM python:3.11.16-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin service
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001
WORKDIR /tmp
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["skinlesion", "serve"]
CMD ["bundle=/bundle", "host=0.0.0.0"]
