# One image for the code server, the web server, the daemon and the exporter: they must have one version of Dagster.
FROM python:3.11-slim AS packages
WORKDIR /build
RUN ["python", "-m", "venv", "/venv"]
COPY requirements.lock pyproject.toml ./
RUN awk '/^uv==/, !/\\$/' requirements.lock > uv.lock \
    && python -m venv uv \
    && uv/bin/pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes --requirement uv.lock
# Only what the lock has, and only wheels with its hashes.
RUN ["uv/bin/uv", "pip", "install", "--quiet", "--no-cache", "--python", "/venv/bin/python", "--no-build", \
     "--compile-bytecode", "--constraints", "requirements.lock", "--requirements", "pyproject.toml", "--extra", "k8s"]

FROM packages AS project
COPY README.md LICENSE ./
COPY bcw_assets bcw_assets
RUN ["uv/bin/uv", "pip", "install", "--quiet", "--no-cache", "--offline", "--python", "/venv/bin/python", \
     "--no-deps", "--compile-bytecode", "--target", "/project", "."]

FROM python:3.11-slim
RUN ["useradd", "--uid", "10001", "--no-create-home", "--shell", "/usr/sbin/nologin", "bcw"]
COPY --from=packages /venv /venv
COPY --from=project /project /project
COPY deploy/dagster.yaml deploy/workspace.yaml deploy/bucket.py /app/
# Nothing is written outside /tmp.
ENV PATH=/project/bin:/venv/bin:$PATH PYTHONPATH=/project PYTHONUNBUFFERED=1 \
    DAGSTER_HOME=/app HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /app
USER 10001:10001
CMD ["dagster", "code-server", "start", "--host", "0.0.0.0", "--port", "4000", \
     "--module-name", "bcw_assets", "--location-name", "bcw_assets"]
