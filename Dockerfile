# The monitor: `docker build -t unship-monitor .`; a folder with unship.yaml is mounted at /etc/unship.
# Third-party packages have the versions of requirements.lock.

FROM python:3.12-slim-bookworm AS build
WORKDIR /build
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY sdk sdk
COPY streams streams
COPY detectors detectors
COPY actions actions
COPY console console
# Constraints have no hashes, because the two local packages have none to compare.
RUN sed -n 's/^\([A-Za-z0-9][^ ;\\]*==[^ ;\\]*\).*/\1/p' requirements.lock > constraints.txt \
    && python -m venv /opt/unship \
    && /opt/unship/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt ./sdk . \
    && /opt/unship/bin/pip check

FROM python:3.12-slim-bookworm
COPY --from=build /opt/unship /opt/unship
ENV PATH=/opt/unship/bin:$PATH PYTHONUNBUFFERED=1
# Nobody's user: a number, so that an orchestrator can see that it is not root.
RUN useradd --system --uid 10001 --home-dir /var/lib/unship --create-home unship
USER 10001
WORKDIR /var/lib/unship
# The process itself ends when it cannot go on; this says whether it can reach what it needs. A finding such as a
# topic with another retention is not good health either.
HEALTHCHECK --interval=60s --timeout=20s --start-period=30s --retries=3 \
    CMD ["unship", "-q", "-c", "/etc/unship/unship.yaml", "check", "--timeout", "10"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["unship", "-c", "/etc/unship/unship.yaml"]
CMD ["run"]
